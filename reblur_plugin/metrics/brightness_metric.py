"""Brightness as a metric: what adaptation drifts by where histograms aren't matched."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def reblur_brightness(
    img: NDArray[np.uint8], img2: NDArray[np.uint8], crop_border: int = 0, better: str = "lower"
) -> float:
    """Return |mean L - mean S| in grey levels, the mean over the channels; 0: as bright as S. Not in the paper.

    Args:
        img, img2: L and S, 8 bits, `(H, W, 3)`.
        crop_border: pixels left out at each edge.
        better: for BasicSR's record of the best result.
    """
    height, width = img.shape[:2]
    inside = slice(crop_border, height - crop_border), slice(crop_border, width - crop_border)
    means = [picture[inside].astype(np.float64).mean(axis=(0, 1)) for picture in (img, img2)]
    return float(np.abs(means[0] - means[1]).mean())
