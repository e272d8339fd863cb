"""Histogram matching, line 10 of Algorithm 1: the colours of the adapted image are those of the first deblurred one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from skimage.exposure import match_histograms
from torch import Tensor

from reblur_plugin.errors import ReblurError

Method = Literal["skimage", "torch"]


@torch.no_grad()
def match_histogram(image: Tensor, reference: Tensor, method: Method = "skimage") -> Tensor:
    """Return `image` with each channel's histogram matched to `reference`'s (Algorithm 1, line 10).

    Both are floats `(B, C, H, W)` with the same B and C; H and W may differ. The result has `image`'s shape, dtype and
    device and carries no gradient. Matching works on the float values, by exact ranks, before any clamp or rounding
    (D5). One channel is worked on at a time, to save memory.

    Args:
        method: "skimage" asks scikit-image, on the CPU; "torch" computes the same on the image's device.

    Raises:
        ReblurError: if batch size or channel count differ, or these are no float images.
    """
    if image.ndim != 4 or not image.is_floating_point() or not reference.is_floating_point():
        raise ReblurError(
            f"histogram matching: expected floats (B, C, H, W), got {image.dtype} {tuple(image.shape)} and "
            f"{reference.dtype} {tuple(reference.shape)}"
        )
    if image.shape[:2] != reference.shape[:2]:
        raise ReblurError(
            f"histogram matching: expected the same batch size and channels, got {tuple(image.shape)} and "
            f"{tuple(reference.shape)}"
        )
    match: Callable[[Tensor, Tensor], Tensor] = _by_torch if method == "torch" else _by_skimage
    matched = torch.empty_like(image, memory_format=torch.contiguous_format)
    for index in range(image.shape[0]):
        for channel in range(image.shape[1]):
            matched[index, channel] = match(image[index, channel], reference[index, channel])
    return matched


def _by_skimage(image: Tensor, reference: Tensor) -> Tensor:
    # NumPy has no bfloat16; float32 holds every rank that double would, and scikit-image interpolates in double.
    source, target = (
        (plane if plane.dtype == torch.float64 else plane.float()).cpu().numpy() for plane in (image, reference)
    )
    return torch.from_numpy(match_histograms(source, target))


def _by_torch(image: Tensor, reference: Tensor) -> Tensor:
    """Look each value's quantile up among the reference's, linearly in between; `(H, W)` to `(H, W)`, in double."""
    _, lookup, counts = image.contiguous().unique(return_inverse=True, return_counts=True)
    quantiles = counts.cumsum(0).double() / image.numel()
    levels, counts = reference.contiguous().unique(return_counts=True)
    return _interpolated(quantiles, counts.cumsum(0).double() / reference.numel(), levels.double())[lookup]


def _interpolated(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Return the line through `(knots, values)` at `x`, held at both ends, as `numpy.interp` does."""
    left = (torch.searchsorted(knots, x, right=True) - 1).clamp(0, knots.numel() - 2)
    slope = (values[left + 1] - values[left]) / (knots[left + 1] - knots[left])
    found = slope * (x - knots[left]) + values[left]
    return torch.where(x >= knots[-1], values[-1], torch.where(x <= knots[0], values[0], found))
