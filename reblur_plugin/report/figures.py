"""The curves of a report: the trade-off over adaptation (Figures 6, S2, S3), Table 1's relation, each image's gain."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from reblur_plugin.evaluation.scores import BLURRY
from reblur_plugin.evaluation.variants import Variant
from reblur_plugin.files import for_people, whole_file
from reblur_plugin.report import published
from reblur_plugin.report.statistics import mean_of
from reblur_plugin.report.study import Method, Study

COLUMN = 3.4  # inches: a column of a paper in two columns
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # letters stay letters
    "svg.hashsalt": "reblur_plugin",  # the same file for the same figure
    "text.parse_math": False,  # names of runs may hold a $
    "savefig.dpi": 200,
}
# Okabe and Ito: also told apart by readers who see fewer colours
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "osD^vP*"


def all_figures(study: Study) -> dict[str, tuple[str, Figure]]:
    """Return the figures that have something to show, by name, each with its caption."""
    found: dict[str, tuple[str, Figure]] = {}
    with style():
        for name, caption, figure in (
            ("tradeoff", _TRADEOFF, tradeoff(study)),
            ("inverse_relation", _INVERSE, inverse_relation(study)),
            ("gain", _GAIN, gain(study)),
        ):
            if figure is not None:
                found[name] = caption, figure
    return found


_TRADEOFF = (
    "Perception against distortion over the steps of adaptation (Figures 6, S2, S3), means over images. The open mark "
    "is M_D as trained. Up and to the right is better."
)
_INVERSE = (
    "The better deblurred, the harder to reblur (Table 1). Dotted: PSNR(L, B), what an M_R scores that changes nothing."
)
_GAIN = (
    "What the last step of adaptation does to each image, sorted: where it helps (filled) and where it doesn't (open)."
)


def shown(name: str) -> str:
    """Return a name as figures can show it: bytes that are no UTF-8 are written out, legends leave out a leading _."""
    text = " ".join(for_people(name).decode("utf-8").split())
    return f" {text}" if text.startswith("_") else text


@contextmanager
def style() -> Iterator[None]:
    """Set how figures look within the block; letters that the font lacks are boxes, without a warning for each."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield


def save(figure: Figure, stem: Path) -> None:
    """Write a figure as PDF and PNG."""
    with style():
        for suffix in ("pdf", "png"):
            with whole_file(stem.with_name(f"{stem.name}.{suffix}")) as file:
                figure.savefig(
                    file,
                    format=suffix,
                    bbox_inches="tight",
                    metadata={"CreationDate": None} if suffix == "pdf" else None,
                )


def tradeoff(study: Study) -> Figure | None:
    """Return perception against PSNR: a curve for each run that adapts, a point for each other one."""
    psnr = study.metric("PSNR")
    panels = [one for one in (study.metric("LPIPS"), study.metric("NIQE"), study.metric("SSIM")) if one]
    if psnr is None or not panels:
        return None
    curves = {run: _steps(study, run) for run in study.run_names()}
    curves = {run: methods for run, methods in curves.items() if methods}
    if not curves:
        return None
    figure = Figure(figsize=(COLUMN * len(panels), COLUMN * 0.85), layout="constrained")
    for axes, variant in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (run, methods) in enumerate(curves.items()):
            both = set(study.common(methods, psnr)) & set(study.common(methods, variant))
            names = [name for name in study.images if name in both]
            x, y = ([mean_of(study.on(one, metric, names)) for one in methods] for metric in (psnr, variant))
            colour, mark = COLOURS[number % len(COLOURS)], _MARKS[number % len(_MARKS)]
            axes.plot(x, y, f"-{mark}", color=colour, markersize=3.5, linewidth=1, label=shown(run))
            axes.plot(x[:1], y[:1], mark, color=colour, markerfacecolor="white", markersize=4.5)
            if len(methods) > 1:
                axes.annotate(
                    f"{methods[-1].step or ''}", (x[-1], y[-1]), xytext=(3, 3), textcoords="offset points", fontsize=7
                )
        axes.set_xlabel("PSNR (dB)")
        axes.set_ylabel(shown(variant.label))
        if variant.better == "lower":
            axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=max(1, min(3, len(curves))))
    return figure


def inverse_relation(study: Study) -> Figure | None:
    """Return PSNR(M_R(L), B) and PSNR(L, B) against PSNR(L, S), with the paper's Table 1 beside."""
    points = sorted(found for found in study.reblurring().values() if not any(map(math.isnan, found)))
    if not points:
        return None
    figure = Figure(figsize=(2 * COLUMN, COLUMN * 0.85), layout="constrained")
    ours, printed = figure.subplots(1, 2)
    x, reblurred, unchanged = zip(*points, strict=True)
    ours.plot(x, reblurred, "-o", color=COLOURS[0], markersize=4, label="M_R(L)")
    ours.plot(x, unchanged, ":s", color=COLOURS[0], markersize=3, label="L itself")
    rows = [row for row in published.rows() if row.table == "1"]
    deblurred, paper = (
        [float(row.values["PSNR"] or "nan") for row in rows if row.group == group]
        for group in ("deblurring", "reblurring")
    )
    printed.plot(deblurred, paper, "-^", color=COLOURS[1], markersize=4, label="M_R(L)")
    for axes, title in ((ours, "these runs"), (printed, "the paper's Table 1")):
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("PSNR(L, S) in dB: how well deblurred")
        axes.set_ylabel("PSNR to B in dB: how well reblurred")
        axes.legend()
    return figure


def gain(study: Study) -> Figure | None:
    """Return each image's change by adaptation, a panel a metric, sorted, for each run that adapts."""
    pairs = study.adaptations()
    variants = [one for one in study.variants if any(study.values.get((after, one)) for _, after in pairs)][:4]
    if not variants:
        return None
    figure = Figure(figsize=(COLUMN * len(variants) * 0.75, COLUMN * 0.75), layout="constrained")
    for axes, variant in zip(figure.subplots(1, len(variants), squeeze=False)[0], variants, strict=True):
        for number, (before, after) in enumerate(pairs):
            names = study.common((before, after), variant)
            changes = sorted(
                b - a for a, b in zip(study.on(before, variant, names), study.on(after, variant, names), strict=True)
            )
            _dots(axes, changes, variant, COLOURS[number % len(COLOURS)], shown(before.run))
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xlabel("images, sorted")
        axes.set_xticks([])
        axes.set_title(f"change of {variant.metric}", fontsize=8)
    if len(pairs) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def _dots(axes: Any, changes: Sequence[float], variant: Variant, colour: str, label: str) -> None:
    sign = 1 if variant.better == "higher" else -1
    filled = [colour if change * sign > 0 else "white" for change in changes]
    places = [(number + 0.5) / len(changes) for number in range(len(changes))]
    axes.scatter(places, changes, s=14, c=filled, edgecolors=colour, linewidths=0.8, label=label)


def _steps(study: Study, run: str) -> list[Method]:
    """Return a run's methods along its adaptation; of one without, its only result."""
    own = [one for one in study.of_run(run) if one.stage != BLURRY]
    along = sorted((one for one in own if one.step is not None), key=lambda one: one.step or 0)
    return along or own[:1]
