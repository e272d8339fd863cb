"""NIQE of Mittal et al. (2012): BasicSR's function with the original parameters, guarded."""

from __future__ import annotations

import logging
import math
import warnings

import numpy as np
from numpy.typing import NDArray

_BLOCK = 96  # NIQE's statistics need two blocks of 96 x 96
_LOGGER = logging.getLogger("basicsr")


def reblur_niqe(
    img: NDArray[np.uint8], img2: NDArray[np.uint8] | None = None, crop_border: int = 0, better: str = "lower"
) -> float:
    """Return NIQE of an 8-bit image `(H, W, 3)` (BGR), on its luma; smaller is more natural.

    An image with fewer than two blocks of 96 x 96 pixels, or without any texture, has no NIQE: the result is nan and a
    warning says so; averages leave it out.

    Args:
        img: the result.
        img2: ignored; BasicSR hands the sharp image to every metric.
        crop_border: pixels left out at each edge.
        better: for BasicSR's record of the best result.
    """
    from reblur_plugin.host import calculate_niqe

    height, width = (extent - 2 * crop_border for extent in img.shape[:2])
    if (height // _BLOCK) * (width // _BLOCK) < 2:
        _LOGGER.warning("NIQE: expected at least two blocks of 96x96 pixels, got %dx%d; left out", width, height)
        return math.nan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of empty means before it fails
            return float(calculate_niqe(img, crop_border))
    except np.linalg.LinAlgError:
        _LOGGER.warning("NIQE: the image of %dx%d pixels has no texture to measure; left out", width, height)
        return math.nan
