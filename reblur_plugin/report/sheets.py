"""Contact sheets: images and crops where methods differ most (Figures 5, 7-9, S4-S7); residual kernels (Figure 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from tqdm import tqdm

from reblur_plugin.core.kernel import KernelError, residual_kernel
from reblur_plugin.data.images import to_float, to_tensor
from reblur_plugin.data.pairs import size
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.file_scores import picture_in
from reblur_plugin.evaluation.pictures import Picture, with_kernel
from reblur_plugin.evaluation.scores import BLURRY
from reblur_plugin.report.figures import COLUMN, shown, style
from reblur_plugin.report.study import SHARP, Method, Study

_CROP = 5  # the crop shows 1/5 of the width
_ASPECT = 4 / 3
_MOST_COLUMNS = 7
_KERNEL = 25  # pixels on a side
_SMALL = 4  # differences are looked for at a quarter of the size
_COLOUR = "#FFD200"


@dataclass(frozen=True)
class Window:
    """A crop: top, left, height and width in pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: Picture) -> Picture:
        """Return the crop of an image."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def choose_methods(study: Study) -> list[Method]:
    """Return the methods of a sheet, as far as columns go."""
    return study.ends()[:_MOST_COLUMNS]


def choose_images(study: Study, count: int) -> list[str]:
    """Return the images on which methods differ most, by the spread of LPIPS (else of PSNR, else any) among results."""
    methods = [one for one in choose_methods(study) if one.stage != BLURRY]
    complete = [name for name in study.images if all(name in study.pictures.get(one, {}) for one in methods)]
    variant = study.metric("LPIPS") or study.metric("PSNR") or (study.variants[0] if study.variants else None)
    if variant is None or len(methods) < 2:
        return complete[:count]

    def spread(name: str) -> float:
        values = [study.values.get((one, variant), {}).get(name, np.nan) for one in methods]
        return float(np.ptp(values)) if np.isfinite(values).all() else -1.0

    return sorted(complete, key=spread, reverse=True)[:count]


def pictures_of(study: Study, name: str, methods: Sequence[Method]) -> dict[str, Picture]:
    """Return an image's pictures of one size by label, the sharp one last; other files are named and left out."""
    found: dict[str, Picture] = {}
    for label, path in study.files(name, methods).items():
        try:
            picture = picture_in(path)
        except ReblurError as error:
            study.problems.append(f"{error}; left out of the pictures")
            continue
        if found and picture.shape != next(iter(found.values())).shape:
            here, first = size(picture), size(next(iter(found.values())))
            study.problems.append(f"{path}: expected {first} as {name}'s others, got {here}")
            continue
        found[label] = picture
    return found


def where_they_differ(pictures: Sequence[Picture]) -> Window:
    """Return the crop in which pictures differ most: by the standard deviation of their brightness, summed."""
    height, width = pictures[0].shape[:2]
    crop_width = max(width // _CROP, min(width, 64))
    crop_height = min(height, max(round(crop_width / _ASPECT), 1))
    grey = [cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in pictures]
    small = max(width // _SMALL, 1), max(height // _SMALL, 1)
    spread = np.std([cv2.resize(one, small, interpolation=cv2.INTER_AREA).astype(np.float32) for one in grey], axis=0)
    box = min(max(crop_width // _SMALL, 1), small[0]), min(max(crop_height // _SMALL, 1), small[1])
    energy = cv2.boxFilter(spread, -1, box, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    energy = energy[: small[1] - box[1] + 1, : small[0] - box[0] + 1]
    top, left = (int(place) * _SMALL for place in np.unravel_index(int(energy.argmax()), energy.shape))
    return Window(min(top, height - crop_height), min(left, width - crop_width), crop_height, crop_width)


def contact_sheet(study: Study, count: int) -> Figure | None:
    """Return a sheet: a row an image, which shows the blurry one with the crop's frame, then all crops."""
    methods = choose_methods(study)
    rows = []
    for name in tqdm(choose_images(study, count), desc="contact sheet", unit="image", leave=False, disable=None):
        found = pictures_of(study, name, methods)
        results = [picture for label, picture in found.items() if label not in (BLURRY, SHARP)]
        if results:
            rows.append((name, found, where_they_differ(results if len(results) > 1 else list(found.values()))))
    if not rows:
        return None
    labels = list(dict.fromkeys(label for _, found, _ in rows for label in found))
    return _grid(rows, labels)


def _grid(rows: Sequence[tuple[str, Mapping[str, Picture], Window]], labels: Sequence[str]) -> Figure:
    whole = 1.7  # width of the whole image in widths of a crop
    unit = 2 * COLUMN / (len(labels) + whole)
    with style():
        figure = Figure(figsize=(unit * (len(labels) + whole), unit * len(rows) / _ASPECT + 0.3), layout=_tight())
        grid = figure.subplots(len(rows), len(labels) + 1, squeeze=False, width_ratios=[whole, *[1] * len(labels)])
        for line, (name, found, window) in zip(grid, rows, strict=True):
            first = next(found[label] for label in (BLURRY, *found) if label in found)
            _show(line[0], first, name)
            frame = Rectangle(
                (window.left, window.top), window.width, window.height, fill=False, color=_COLOUR, linewidth=1
            )
            line[0].add_patch(frame)
            for axes, label in zip(line[1:], labels, strict=True):
                _show(axes, window.of(found[label]) if label in found else None, "")
        for axes, label in zip(grid[0][1:], labels, strict=True):
            axes.set_title(_wrapped(shown(label)), fontsize=6)
    return figure


def kernel_sheet(study: Study, count: int) -> Figure | None:
    """Return Figure 1's insets: the centre of each picture with the kernel that makes it of the sharp image.

    A point: nothing of the blur is left. Needs sharp images.
    """
    methods = choose_methods(study)
    rows: list[tuple[str, dict[str, Picture]]] = []
    for name in choose_images(study, count):
        if name in study.sharp:
            found = pictures_of(study, name, methods)
            sharp = found.get(SHARP)
            insets = {} if sharp is None else _with_kernels(found, sharp)
            if insets:
                rows.append((name, insets))
    if not rows:
        return None
    labels = list(dict.fromkeys(label for _, insets in rows for label in insets))
    unit = 2 * COLUMN / len(labels)
    with style():
        figure = Figure(figsize=(2 * COLUMN, unit * len(rows) + 0.3), layout=_tight())
        grid = figure.subplots(len(rows), len(labels), squeeze=False)
        for line, (name, insets) in zip(grid, rows, strict=True):
            for axes, label in zip(line, labels, strict=True):
                _show(axes, insets.get(label), name if label == labels[0] else "")
        for axes, label in zip(grid[0], labels, strict=True):
            axes.set_title(_wrapped(shown(label)), fontsize=6)
    return figure


def _tight() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)


def _with_kernels(found: Mapping[str, Picture], sharp: Picture) -> dict[str, Picture]:
    insets = {}
    for label, picture in found.items():
        before, after = (to_tensor(to_float(one))[None] for one in (sharp, picture))
        try:
            kernel = residual_kernel(before, after, _KERNEL)
        except KernelError:  # too small, or flat at its centre
            continue
        insets[label] = with_kernel(_centre(picture), kernel.numpy())
    return insets


def _centre(picture: Picture) -> Picture:
    side = min(256, *picture.shape[:2])
    top, left = ((extent - side) // 2 for extent in picture.shape[:2])
    return picture[top : top + side, left : left + side]


def _show(axes: Any, picture: NDArray[np.uint8] | None, title: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if picture is not None:
        axes.imshow(picture, interpolation="nearest")
    if title:
        axes.set_ylabel(shown(title), fontsize=5)


def _wrapped(label: str) -> str:
    """Return a label in lines that fit over a crop."""
    lines, line = [], ""
    for word in label.replace("_", "_ ").split(" "):
        if len(line) + len(word) > 14 and line:
            lines.append(line)
            line = ""
        line += word if not line or line.endswith("_") else f" {word}"
    return "\n".join([*lines, line])
