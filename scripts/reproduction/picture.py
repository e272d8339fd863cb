"""All comparisons in one picture: which way each training and each sequence points."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reproduction.claims import Part
from reproduction.verdicts import Judged

_COLOURS = {"shown": "tab:green", "not shown": "tab:gray", "contradicted": "tab:red"}
_SEED, _SEQUENCE = 34, 14  # sizes of dots


def overview(rows: Sequence[tuple[int, Part, Judged]]) -> Figure:
    """Return a picture with a row for each comparison, by its claim's number; right is as the paper claims.

    Each row has its own scale, whose end is its largest effect: the direction can be read, not the size.
    """
    figure = Figure(figsize=(9, 0.6 + 0.24 * len(rows)))
    axes = figure.subplots()
    for at, (_, part, judged) in enumerate(rows):
        sign = 1 if part.better == "higher" else -1
        largest = max(map(abs, [*judged.effects, *judged.units.values()])) or 1.0
        colour = _COLOURS[judged.verdict]
        for values, size, face in (
            (list(judged.units.values()), _SEQUENCE, "none"),
            (judged.effects, _SEED, colour),
        ):
            places = [sign * value / largest for value in values]
            axes.scatter(places, [at] * len(places), size, facecolors=face, edgecolors=colour, linewidths=0.8, zorder=3)
        margin = -part.margin / largest
        if part.margin and margin > -1:
            axes.plot([margin, margin], [at - 0.4, at + 0.4], color="black", linewidth=0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    labels = [f"{number}  {part.metric.partition(' (')[0]}: {part.text}" for number, part, _ in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-1.08, 1.08)
    axes.set_xticks([-1, 0, 1], ["against the paper", "0", "as the paper claims"], fontsize=7)
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(handles=_legend(), loc="lower left", fontsize=6)
    return figure


def _legend() -> list[Artist]:
    marks: list[Artist] = [Patch(color=colour, label=verdict) for verdict, colour in _COLOURS.items()]
    dots: list[Artist] = [
        Line2D([], [], linestyle="", marker="o", color="black", markersize=5, label="a training"),
        Line2D([], [], linestyle="", marker="o", color="black", markersize=3.5, fillstyle="none", label="a sequence"),
    ]
    return [*dots, *marks]
