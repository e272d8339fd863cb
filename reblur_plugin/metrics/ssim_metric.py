"""SSIM of Wang et al. (2004) in the three forms that deblurring papers print; the paper's is the Gaussian one."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from reblur_plugin.errors import MetricError, did_you_mean

Window = Literal["gaussian", "uniform", "volume"]
_SIDES: dict[str, int] = {"gaussian": 11, "uniform": 7, "volume": 11}  # pixels
_BAND = 64  # rows
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_LOGGER = logging.getLogger("basicsr")


def reblur_ssim(
    img: NDArray[np.uint8],
    img2: NDArray[np.uint8],
    crop_border: int = 0,
    window: Window = "gaussian",
    better: str = "higher",
) -> float:
    """Return SSIM between two 8-bit images `(H, W, 3)`.

    Name the form beside each number: one blurry GOPRO frame has .717, .695 and .796 by the three.

    - "gaussian": the paper's (section S1, D14) and BasicSR's. Gaussian 11x11 window, sigma 1.5, each channel by itself.
    - "uniform": scikit-image's default. Uniform 7x7 window, sample covariance, each channel by itself.
    - "volume": MATLAB's `ssim` of a colour image. Gaussian 11x11x11 window, which slides over the channels too.

    An image smaller than the window has no SSIM: the result is nan and a warning says so.

    Args:
        img, img2: the result and the sharp image.
        crop_border: pixels left out at each edge.
        window: the form.
        better: for BasicSR's record of the best result.

    Raises:
        MetricError: if the form is unknown.
    """
    if window not in get_args(Window):
        raise MetricError(
            f"reblur_ssim: window: expected a known form, got {window!r}{did_you_mean(window, get_args(Window))}"
        )
    height, width = img.shape[:2]
    side = _SIDES[window]
    if min(height, width) - 2 * crop_border < side:
        _LOGGER.warning("SSIM: expected at least %dx%d pixels, got %dx%d; left out", side, side, width, height)
        return math.nan
    inside = np.s_[crop_border : height - crop_border, crop_border : width - crop_border]
    x, y = img[inside], img2[inside]
    if window == "volume":
        return float(_map(x, y, window).mean())
    return float(np.mean([_of_channel(*pair, window) for pair in zip(cv2.split(x), cv2.split(y), strict=True)]))


def _of_channel(x: NDArray[np.uint8], y: NDArray[np.uint8], window: str) -> float:
    """Return mean SSIM, computed in bands of rows that fit into a processor's cache: three quarters of the time."""
    edges = _SIDES[window] - 1
    starts = range(0, x.shape[0] - edges, _BAND)
    bands = [_map(x[start : start + _BAND + edges], y[start : start + _BAND + edges], window) for start in starts]
    return math.fsum(band.sum() for band in bands) / sum(band.size for band in bands)


def _map(x: NDArray[Any], y: NDArray[Any], window: str) -> NDArray[Any]:
    """Return SSIM at each place of the window. Only the sum of the variances counts, so it is filtered once."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = _filtered(x, window), _filtered(y, window)
    product, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = _filtered(x * y, window) - product
    variances = _filtered(x * x + y * y, window) - squares
    if window == "uniform":  # scikit-image's default is the sample covariance
        pixels = _SIDES[window] ** 2
        covariance *= pixels / (pixels - 1)
        variances *= pixels / (pixels - 1)
    found: NDArray[Any] = ((2 * product + _C1) * (2 * covariance + _C2)) / ((squares + _C1) * (variances + _C2))
    return found


def _filtered(values: NDArray[Any], window: str) -> NDArray[Any]:
    """Return the weighted mean in each window; "volume" repeats the edges as MATLAB does, others stay within."""
    side = _SIDES[window]
    taps = np.full(side, 1 / side) if window == "uniform" else _gaussian(side)
    means = cv2.sepFilter2D(values, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REPLICATE)
    if window == "volume":
        return means @ _across_channels(taps, values.shape[2])
    edge = side // 2
    return means[edge:-edge, edge:-edge]


def _gaussian(side: int, sigma: float = 1.5) -> NDArray[Any]:
    taps = np.exp(-0.5 * ((np.arange(side) - side // 2) / sigma) ** 2)
    return taps / taps.sum()


def _across_channels(taps: NDArray[Any], channels: int) -> NDArray[Any]:
    """Return the matrix that filters the channels, the first and the last of them repeated beyond the ends."""
    matrix, edge = np.zeros((channels, channels)), len(taps) // 2
    for target in range(channels):
        for place, tap in enumerate(taps):
            matrix[min(max(target + place - edge, 0), channels - 1), target] += tap
    return matrix
