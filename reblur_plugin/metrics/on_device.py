"""PSNR, SSIM, LPIPS and NIQE of whole batches where the images are: the values of the CPU's references (D41).

On a CPU the references are the faster ones. On a GPU these take milliseconds, where the references, called for one
image after the other, would take longer than deblurring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reblur_plugin.errors import MetricError
from reblur_plugin.metrics import lpips_metric, niqe_on_device, ssim_metric

_RADIUS, _SIGMA = ssim_metric.WINDOW // 2, 1.5  # of Wang et al.
_AT_ONCE = 1280 * 720  # pixels; LPIPS of VGG takes 2.3 GiB for so many
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def batch(pictures: Sequence[NDArray[np.uint8]], device: torch.device | str) -> Tensor:
    """Return pictures `(H, W, C)` of one size on `device` as `(B, C, H, W)`."""
    return torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2)


def scores(batches: Sequence[Tensor], type: str, **options: Any) -> Tensor | None:
    """Return a registered metric of each image, `(B,)`, or None if only its reference can compute it.

    As many images are taken at once as keep the memory within a few gigabytes.

    Args:
        batches: 8-bit RGB `(B, 3, H, W)` on one device: the images and, if the metric needs them, the sharp ones.
        type: the metric's registered name.
        options: the other keys of its block.
    """
    border = options.get("crop_border", 0)
    height, width = batches[0].shape[-2:]
    count = max(1, _AT_ONCE // (height * width))
    windows = (batch[..., border : height - border, border : width - border].split(count) for batch in batches)
    parts = [_scores(type, options, *part) for part in zip(*windows, strict=True)]
    found = [part for part in parts if part is not None]
    return torch.cat(found) if len(found) == len(parts) else None


def _scores(type: str, options: dict[str, Any], images: Tensor, sharp: Tensor | None = None) -> Tensor | None:
    if sharp is None:
        return _niqe(images) if type == "reblur_niqe" else None
    least = min(images.shape[-2:])
    if type == "calculate_psnr" and not options.get("test_y_channel") and options.get("input_order", "HWC") == "HWC":
        return psnr(images, sharp)
    if type == "reblur_ssim" and least >= ssim_metric.WINDOW:
        return ssim(images, sharp)
    if type == "reblur_lpips" and least >= lpips_metric.SMALLEST:
        return lpips_metric.distances(images, sharp, options.get("net", "alex"), options.get("weights"))
    return None


def _niqe(images: Tensor) -> Tensor | None:
    """Return NIQE; None where there is none for an image, which its reference says in a warning."""
    if niqe_on_device.blocks_of(images) < niqe_on_device.FEWEST:
        return None
    found = niqe_on_device.niqe(images)
    return None if bool(found.isnan().any()) else found


def psnr(images: Tensor, sharp: Tensor) -> Tensor:
    """Return PSNR of each image, `(B,)`: BasicSR's `calculate_psnr` on RGB; infinite where nothing differs.

    Args:
        images, sharp: 8-bit `(B, C, H, W)` on one device.

    Raises:
        MetricError: if they aren't of one shape.
    """
    image, reference = _doubles(images, sharp)
    return 10 * torch.log10(255**2 / (image - reference).square().mean(dim=(1, 2, 3)))


def ssim(images: Tensor, sharp: Tensor) -> Tensor:
    """Return SSIM of each image, `(B,)`: scikit-image's per channel with the paper's arguments (D14).

    Only windows that lie inside the image count, as there. nan where there is none.

    Args:
        images, sharp: 8-bit `(B, C, H, W)` on one device.

    Raises:
        MetricError: if they aren't of one shape.
    """
    image, reference = _doubles(images, sharp)
    if min(image.shape[-2:]) < 2 * _RADIUS + 1:
        return image.new_full(image.shape[:1], torch.nan)
    mean, mean_reference = _windowed(image), _windowed(reference)
    variance = _windowed(image * image) - mean * mean
    variance_reference = _windowed(reference * reference) - mean_reference * mean_reference
    covariance = _windowed(image * reference) - mean * mean_reference
    contrast = (2 * covariance + _C2) / (variance + variance_reference + _C2)
    luminance = (2 * mean * mean_reference + _C1) / (mean * mean + mean_reference * mean_reference + _C1)
    return (luminance * contrast).mean(dim=(1, 2, 3))


def _doubles(images: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    if images.shape != sharp.shape or images.ndim != 4:
        raise MetricError(
            f"metrics: expected two batches (B, C, H, W) of one shape, got {tuple(images.shape)} and "
            f"{tuple(sharp.shape)}; crop or resize one of them"
        )
    return images.double(), sharp.double()


def _windowed(images: Tensor) -> Tensor:
    """Return the Gaussian mean of every window inside the images, rows and columns one after the other."""
    places = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-places.square() / (2 * _SIGMA**2))
    weights = (bell / bell.sum()).tolist()
    for axis in (2, 3):
        size = images.shape[axis] - 2 * _RADIUS
        total = weights[0] * images.narrow(axis, 0, size)
        for start, weight in enumerate(weights[1:], 1):
            total = total.add_(images.narrow(axis, start, size), alpha=weight)
        images = total
    return images
