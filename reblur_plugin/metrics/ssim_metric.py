"""SSIM as the paper measures it (section S1): scikit-image, each channel by itself, averaged."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

_WINDOW = 11  # pixels on a side
_LOGGER = logging.getLogger("basicsr")


def reblur_ssim(img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, better: str = "higher") -> float:
    """Return SSIM between two 8-bit images `(H, W, C)` with the Gaussian window of Wang et al. (sigma 1.5, 11x11).

    These are the first author's arguments (D14). MATLAB's `ssim` on a colour image reads higher: it slides a
    three-dimensional window.

    An image smaller than the window has no SSIM: the result is nan and a warning says so.

    Args:
        img, img2: the result and the sharp image.
        crop_border: pixels left out at each edge.
        better: for BasicSR's record of the best result.
    """
    height, width = img.shape[:2]
    if min(height, width) - 2 * crop_border < _WINDOW:
        _LOGGER.warning("SSIM: expected at least 11x11 pixels, got %dx%d; left out", width, height)
        return math.nan
    window = np.s_[crop_border : height - crop_border, crop_border : width - crop_border]
    return float(
        structural_similarity(
            img[window],
            img2[window],
            channel_axis=-1,
            data_range=255,
            gaussian_weights=True,
            use_sample_covariance=False,
        )
    )
