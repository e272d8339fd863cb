"""Sharpness as a metric: the gradient energy of a result beside that of the sharp image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def reblur_sharpness(
    img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, better: str = "higher"
) -> float:
    """Return the gradient energy of L divided by that of S: below 1 is less sharp than S, above 1 sharper (or noisier).

    The gradient energy is the mean square of differences between neighbouring pixels, over both directions and all
    channels; a change of brightness leaves it as it is. Not in the paper.

    Args:
        img, img2: L and S, 8 bits, `(H, W, 3)`.
        crop_border: pixels left out at each edge.
        better: for BasicSR's record of the best result.

    Returns:
        A number from 0; nan where S has no gradient.
    """
    energy, reference = (_gradient_energy(picture, crop_border) for picture in (img, img2))
    return energy / reference if reference else math.nan


def _gradient_energy(picture: NDArray[np.uint8], border: int) -> float:
    height, width = picture.shape[:2]
    values = picture[border : height - border, border : width - border].astype(np.float64)
    return float(sum(np.square(np.diff(values, axis=axis)).mean() for axis in (0, 1)))
