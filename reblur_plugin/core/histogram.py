"""Histogram matching, line 10 of Algorithm 1: the colours of the adapted image are those of the first deblurred one."""

from __future__ import annotations

import torch
from skimage.exposure import match_histograms
from torch import Tensor

from reblur_plugin.errors import ReblurError


@torch.no_grad()
def match_histogram(image: Tensor, reference: Tensor) -> Tensor:
    """Return `image` with each channel's histogram matched to `reference`'s (Algorithm 1, line 10).

    Both are floats `(B, C, H, W)` with the same B and C; H and W may differ. The result has `image`'s shape, dtype and
    device and carries no gradient. Matching works on the float values, by scikit-image's exact ranks, before any clamp
    or rounding (D5).

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
    matched = torch.empty_like(image, memory_format=torch.contiguous_format)
    for index in range(image.shape[0]):
        source, target = (tensor[index].double().cpu().numpy() for tensor in (image, reference))
        matched[index] = torch.from_numpy(match_histograms(source, target, channel_axis=0))
    return matched
