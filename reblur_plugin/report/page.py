"""The page: one file that opens from the disk without a network, and the pictures beside it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from reblur_plugin.data.images import ImageError
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.file_scores import picture_in
from reblur_plugin.evaluation.scores import ADAPTED, BLURRY, DEBLURRED, REBLURRED, UNCHANGED
from reblur_plugin.files import as_bytes, for_people, whole_file
from reblur_plugin.report.contents import decimals
from reblur_plugin.report.figures import style
from reblur_plugin.report.study import Method, Study
from reblur_plugin.report.tables import Cell, Table

PICTURES = "pictures"
_VIEWER = "reblur_plugin.viewer"
_MOST = 50  # sentences
_OURS = re.compile(r"[0-9a-f]{20}\.(jpg|png|webp)")  # names of pictures that this module writes
_QUALITY = {
    "jpg": [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "png": [],
    "webp": [cv2.IMWRITE_WEBP_QUALITY, 90],
}


@dataclass(frozen=True)
class Pictures:
    """Which pictures the page has.

    Attributes:
        suffix: "jpg" (quality 95, colours in full), "webp" (quality 90, a third of it) or "png" (without loss).
        of_all_stages: else of each run's first and last one alone, besides the blurry and the sharp ones.
    """

    suffix: str = "jpg"
    of_all_stages: bool = True


@dataclass(frozen=True)
class _Shown:
    """A picture of the page: its file here, where it comes from, and its size."""

    name: str
    width: int
    height: int


def write_page(
    study: Study,
    tables: Sequence[Table],
    figures: dict[str, tuple[str, Figure]],
    out: Path,
    title: str,
    wanted: Pictures,
) -> Path:
    """Write index.html and the pictures that it shows; return its path.

    Pictures that an earlier call has written of the same files are kept, those of others are deleted.

    Args:
        study: what it is about; files that can't be shown are added to its problems.
        tables, figures: of the report.
        out: folder of the report.
        title: of the page.
        wanted: which pictures.

    Raises:
        FileError: if the disk refuses.
    """
    data = _data(study, out, wanted)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=False)
    template = environment.from_string(_resource(__package__, "page/index.html.jinja"))
    text = template.render(
        title=title,
        summary=_summary(study),
        css=Markup(_resource(_VIEWER, "viewer.css") + _resource(__package__, "page/page.css")),
        js=Markup(_resource(_VIEWER, "viewer.js") + _resource(__package__, "page/page.js")),
        data=Markup(json.dumps(data, allow_nan=False).replace("<", "\\u003c")),
        tables=tables,
        figures=[_figure(name, caption, one) for name, (caption, one) in figures.items()],
        has_images=bool(data["images"]),
        problems=few(study.problems),
        sources=sources(study),
        variants=[variant.label for variant in study.variants],
    )
    page = out / "index.html"
    with whole_file(page, "free or change the disk, then make the report again") as file:
        file.write(for_people(text))
    return page


def few(problems: Sequence[str]) -> list[str]:
    """Return each sentence once, and of very many the first ones and their number."""
    found = list(dict.fromkeys(problems))
    return found if len(found) <= _MOST else [*found[:_MOST], f"and {len(found) - _MOST} more"]


def _resource(package: str, name: str) -> str:
    return (resources.files(package) / name).read_text(encoding="utf-8")


def _summary(study: Study) -> str:
    runs = len({one.run for one in study.methods if one.run})
    parts = (runs, "run"), (len(study.images), "image"), (len(study.variants), "metric")
    return ", ".join(f"{count} {word}{'s' * (count != 1)}" for count, word in parts)


def _figure(name: str, caption: str, figure: Figure) -> dict[str, Any]:
    """Return what the template shows of a figure; its size keeps what is below in its place while it is loaded."""
    width, height = (round(extent * 100) for extent in figure.get_size_inches())
    return {"name": name, "caption": caption, "source": _source(name, figure), "width": width, "height": height}


def _source(name: str, figure: Figure) -> str:
    """Return a figure's address: of curves one that holds them, of pictures that of their file."""
    if any(axes.get_images() for axes in figure.axes):
        return f"figures/{name}.png"
    file = io.BytesIO()
    with style():
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _data(study: Study, out: Path, wanted: Pictures) -> dict[str, Any]:
    """Return what the page's script shows; write the pictures."""
    methods = study.methods
    shown = _pictures(study, out, wanted)
    return {
        "metrics": [
            {"name": one.metric, "label": one.label, "better": one.better, "decimals": decimals(one)}
            for one in study.variants
        ],
        "methods": [
            {"label": study.label(one), "run": one.run, "step": one.step, "base": _base(methods, one)}
            for one in methods
        ],
        "images": [
            {
                "name": name,
                "width": next(iter(pictures.values())).width,
                "height": next(iter(pictures.values())).height,
                "pictures": [{"label": label, "src": f"{PICTURES}/{one.name}"} for label, one in pictures.items()],
                "scores": [_scores(study, method, name) for method in methods],
                "note": _note(study, name),
            }
            for name, pictures in shown.items()
        ],
    }


def _base(methods: Sequence[Method], method: Method) -> int | None:
    """Return the place of what a method is compared with: of an adapted one deblurred, of others the input."""
    if method.stage.startswith(ADAPTED):
        return next((at for at, one in enumerate(methods) if (one.run, one.stage) == (method.run, DEBLURRED)), None)
    if method.stage in (BLURRY, REBLURRED, UNCHANGED):
        return None
    return next((at for at, one in enumerate(methods) if one.stage == BLURRY), None)


def _scores(study: Study, method: Method, name: str) -> list[float | None] | None:
    if name not in study.records.get(method, {}):
        return None
    found = (study.values.get((method, variant), {}).get(name, math.nan) for variant in study.variants)
    return [value if math.isfinite(value) else None for value in found]


def _note(study: Study, name: str) -> str:
    reasons = {
        f"{method.run} stays unadapted: {records[name].fallback}"
        for method, records in study.records.items()
        if name in records and records[name].fallback
    }
    return "; ".join(sorted(reasons))


def _pictures(study: Study, out: Path, wanted: Pictures) -> dict[str, dict[str, _Shown]]:
    """Return the pictures of each image by label, blurry first and sharp last; write those that aren't there."""
    methods = study.methods if wanted.of_all_stages else study.ends()
    files = {name: study.files(name, methods) for name in study.images}
    paths = list(dict.fromkeys(path.resolve() for found in files.values() for path in found.values()))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = threads.map(lambda path: _shown(path, out / PICTURES, wanted.suffix), paths)
        written = dict(zip(paths, tqdm(results, "pictures", len(paths), leave=False, disable=None), strict=True))
    shown: dict[str, dict[str, _Shown]] = {}
    for name, found in files.items():
        for label, path in found.items():
            first, result = next(iter(shown.get(name, {}).values()), None), written[path.resolve()]
            if isinstance(result, ReblurError):
                study.problems.append(f"{result}; left out of the pictures")
            elif first and (first.width, first.height) != (result.width, result.height):
                size = f"{result.width}x{result.height}"
                study.problems.append(f"{path}: expected {first.width}x{first.height} as {name}'s others, got {size}")
            else:
                shown.setdefault(name, {})[label] = result
    _delete_others(out / PICTURES, {one.name for found in shown.values() for one in found.values()})
    return shown


def _shown(path: Path, folder: Path, suffix: str) -> _Shown | ReblurError:
    """Write a picture for the page, unless it is there; its name tells of which file it was made."""
    try:
        known = path.stat()
        digest = hashlib.sha256(as_bytes(f"{path.resolve()} {known.st_size} {known.st_mtime_ns}")).hexdigest()[:20]
        target = folder / f"{digest}.{suffix}"
        if target.is_file():
            with Image.open(target) as there:  # reads its size alone
                return _Shown(target.name, *there.size)
        picture = picture_in(path)
    except OSError as error:
        return ImageError(f"{path}: expected a picture, but it can't be read ({error.strerror})")
    except ReblurError as error:
        return error
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    try:
        done, encoded = cv2.imencode(f".{suffix}", bgr, _QUALITY[suffix])
    except cv2.error:
        done = False
    if not done:
        size = f"{picture.shape[1]}x{picture.shape[0]}"
        return ImageError(f"{path}: {size} pixels are more than .{suffix} can hold; give --pictures png")
    with whole_file(target) as file:
        file.write(encoded.tobytes())
    return _Shown(target.name, picture.shape[1], picture.shape[0])


def _delete_others(folder: Path, kept: set[str]) -> None:
    for path in folder.glob("*"):
        if _OURS.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)


def _listed(found: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items()) if isinstance(found, dict) else ""


def sources(study: Study) -> Table:
    """Return what each run's scores depend on."""
    rows = []
    for run in study.runs:
        head = run.head
        kinds = sorted({record.blur_kind for record in run.records if record.blur_kind})
        facts = {
            "data": _listed(head.get("data")),
            "kind of blur": ", ".join(kinds),
            "weights": _listed(head.get("checkpoints")),
            "device": str(head.get("device", "")),
            "versions": _listed(head.get("versions")),
            "names": str(head.get("matched", "")),
        }
        rows.append([Cell(run.name), Cell(str(head.get("program", ""))), *map(Cell, facts.values())])
    header = ["run", "scored by", "data", "kind of blur", "weights", "device", "versions", "names were matched"]
    return Table("sources", "Sources", header, rows, len(header))
