"""Pictures for people: the stages of one photograph side by side."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
REBLURRED_TOP = 16  # grey levels at the bright end of what M_R changes, the same in all heat maps
_PANEL = 480  # width of one panel in pixels
_BAR = 28  # height of its title
_YELLOW = (255, 210, 0)
_ZOOM = 4  # the crop shows 1/4 of the width and height


def comparison(images: dict[str, Picture]) -> Picture:
    """Return one picture: a column an image under its name, the whole above, a zoomed crop with the most detail below.

    Args:
        images: names to 8-bit RGB `(H, W, 3)` of one size; the last one (the sharpest) says where the detail is.
    """
    top, left, height, width = _detail(list(images.values())[-1])
    columns = []
    for name, image in images.items():
        whole = _fit(_framed(image, top, left, height, width))
        crop = _fit(image[top : top + height, left : left + width], cv2.INTER_CUBIC)
        columns.append(np.concatenate((_title(name), whole, crop)))
    return np.concatenate(columns, axis=1)


def heat_map(values: NDArray[np.floating[Any]], top: float) -> Picture:
    """Return `values` `(H, W)` from 0 to `top` in the colours of viridis, RGB `(H, W, 3)`: dark blue to yellow."""
    levels = (np.clip(values / top, 0, 1) * 255).round().astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)


def with_kernel(image: Picture, kernel: NDArray[np.floating[Any]]) -> Picture:
    """Return `image` with a blur kernel at the bottom right, as in Figure 1: white is its largest value."""
    side = max(min(image.shape[:2]) // 4, 1)
    levels = (kernel / kernel.max() * 255).round().astype(np.uint8)
    shown = cv2.resize(levels, (side, side), interpolation=cv2.INTER_NEAREST)
    inset = image.copy()
    inset[-side:, -side:] = shown[..., None]
    return cv2.rectangle(inset, (inset.shape[1] - side, inset.shape[0] - side), inset.shape[1::-1], _YELLOW, 1)


def _detail(image: Picture) -> tuple[int, int, int, int]:
    """Return top, left, height, width of the window with the strongest edges."""
    height, width = (max(extent // _ZOOM, 1) for extent in image.shape[:2])
    edges = np.abs(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), cv2.CV_32F))
    energy = cv2.boxFilter(edges, -1, (width, height), anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    energy = energy[: image.shape[0] - height + 1, : image.shape[1] - width + 1]
    top, left = np.unravel_index(int(energy.argmax()), energy.shape)
    return int(top), int(left), height, width


def _framed(image: Picture, top: int, left: int, height: int, width: int) -> Picture:
    thickness = max(image.shape[1] // 200, 1)
    return cv2.rectangle(image.copy(), (left, top), (left + width - 1, top + height - 1), _YELLOW, thickness)


def _fit(image: Picture, interpolation: int = cv2.INTER_AREA) -> Picture:
    height = max(round(image.shape[0] * _PANEL / image.shape[1]), 1)
    return cv2.resize(image, (_PANEL, height), interpolation=interpolation)


def _title(name: str) -> Picture:
    bar = np.full((_BAR, _PANEL, 3), 255, dtype=np.uint8)
    return cv2.putText(bar, name, (8, _BAR - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
