"""NIQE of whole batches where the images are: BasicSR's value, rounded to float32 where that one rounds (D41)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reblur_plugin import host

FEWEST = 2  # blocks, for a covariance
_BLOCK = 96  # pixels each way, of the original; half as many at half the size
_RADIUS, _SIGMA = 3, 7 / 6  # of the window for mean and variance
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # to the neighbours whose products are looked at
_HALVING = tuple(part / 256 for part in (-3, -9, 29, 111, 111, 29, -9, -3))  # the cubic kernel, twice as wide
_LUMA = (65.481, 128.553, 24.966)  # BT.601
_PARAMETERS = "metrics/niqe_pris_params.npz"  # of pristine photographs, in BasicSR


def blocks_of(images: Tensor) -> int:
    """Return how many blocks an image has."""
    return (images.shape[-2] // _BLOCK) * (images.shape[-1] // _BLOCK)


def niqe(images: Tensor) -> Tensor:
    """Return NIQE of each image, `(B,)`, on the CPU; nan for one without texture. Smaller is more natural.

    On smooth areas BasicSR's value counts what its float32 variances leave; here they are rounded at the same places.

    Args:
        images: 8-bit RGB `(B, 3, H, W)`, at least 2 blocks of 96 x 96 pixels.
    """
    rows, columns = (size // _BLOCK for size in images.shape[-2:])
    luma = _luma(images[..., : rows * _BLOCK, : columns * _BLOCK])
    halved = _halved((luma.double() / 255).float()) * 255
    features = torch.cat([_features(luma, _BLOCK), _features(halved, _BLOCK // 2)], dim=-1)
    return torch.tensor([_distance(blocks) for blocks in features.cpu().numpy()], dtype=torch.float64)


def _luma(images: Tensor) -> Tensor:
    # In double, then rounded: CUDA divides float32 by a number as it multiplies by the inverse, a bit off.
    red, green, blue = (images.double() / 255).float().double().unbind(1)
    luma = _LUMA[2] * blue + _LUMA[1] * green + _LUMA[0] * red + 16
    return ((luma / 255).float() * 255).round()


def _halved(images: Tensor) -> Tensor:
    """Return images `(B, H, W)` at half the size as MATLAB's antialiased bicubic `imresize` gives them."""
    for axis in (1, 2):
        edges = images.narrow(axis, 0, 3).flip(axis), images.narrow(axis, images.shape[axis] - 3, 3).flip(axis)
        padded = torch.cat([edges[0], images, edges[1]], dim=axis).double()
        count = images.shape[axis] // 2
        even = [_every_second(padded, axis, start, count) for start in range(8)]
        images = _weighted(_HALVING, even).float()
    return images


def _every_second(images: Tensor, axis: int, start: int, count: int) -> Tensor:
    return images.narrow(axis, start, 2 * count - 1)[(slice(None),) * axis + (slice(None, None, 2),)]


def _features(luma: Tensor, size: int) -> Tensor:
    """Return the 18 features of each block, `(B, blocks, 18)`."""
    mean = _windowed(luma)
    deviation = (_windowed(luma.square()) - mean.square()).abs().sqrt()
    normal = (luma - mean) / (deviation + 1)
    blocks = normal.unfold(1, size, size).unfold(2, size, size).flatten(1, 2)
    alpha, left, right = _asymmetric_gaussian(blocks)
    features = [alpha, (left + right) / 2]
    _, alphas, _, mean_ratios = _tables(luma.device)
    for shift in _SHIFTS:
        alpha, left, right = _asymmetric_gaussian(blocks * blocks.roll(shift, dims=(-2, -1)))
        index = torch.searchsorted(alphas, alpha)
        features += [alpha, (right - left) * mean_ratios[index], left, right]
    return torch.stack(features, dim=-1)


def _windowed(images: Tensor) -> Tensor:
    """Return the Gaussian mean around every pixel; beyond the edge its last pixel goes on."""
    places = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    bell = torch.exp(-places.square() / (2 * _SIGMA**2))
    weights = (bell / bell.sum()).tolist()
    padded = F.pad(images.double(), (_RADIUS,) * 4, mode="replicate")
    for axis in (1, 2):
        size = padded.shape[axis] - 2 * _RADIUS
        padded = _weighted(weights, [padded.narrow(axis, start, size) for start in range(len(weights))])
    return padded.float()


def _weighted(weights: Sequence[float], images: Sequence[Tensor]) -> Tensor:
    total = weights[0] * images[0]
    for weight, image in zip(weights[1:], images[1:], strict=True):
        total.add_(image, alpha=weight)
    return total


def _asymmetric_gaussian(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit an asymmetric generalised Gaussian to each block; return alpha and both scales, `(B, blocks)`."""
    values = blocks.flatten(2).double()
    squares = values.square()
    left, right = ((squares * side).sum(-1) / side.sum(-1) for side in (values < 0, values > 0))
    left, right = left.sqrt(), right.sqrt()
    ratio = left / right
    shape = values.abs().mean(-1).square() / squares.mean(-1)
    shape = shape * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    moments, alphas, scale_ratios, _ = _tables(blocks.device)
    above = torch.searchsorted(moments, shape).clamp(1, len(moments) - 1)
    index = torch.where((moments[above] - shape) < (shape - moments[above - 1]), above, above - 1)
    index = torch.where(shape.isnan(), 0, index)  # nothing lies nearest to nan: BasicSR takes the first
    return alphas[index], left * scale_ratios[index], right * scale_ratios[index]


@lru_cache(maxsize=2)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return by rising alpha: E|x|^2 / E[x^2], alpha, the scale's and the mean's ratio to the deviation."""
    alphas = torch.from_numpy(np.arange(0.2, 10.001, 0.001))
    first, second, third = (torch.lgamma(order / alphas) for order in (1, 2, 3))
    moments = (2 * second - first - third).exp()
    ratios = ((first - third) / 2).exp(), (second - first).exp()
    return moments.to(device), alphas.to(device), ratios[0].to(device), ratios[1].to(device)


def _distance(features: NDArray[np.float64]) -> float:
    """Return the distance of one image's blocks `(blocks, 36)` to those of pristine photographs."""
    mean, covariance = _pristine()
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < FEWEST:
        return float("nan")
    inverse = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    apart = mean - np.nanmean(features, axis=0)
    return float(np.sqrt(apart @ inverse @ apart))


@lru_cache(maxsize=1)
def _pristine() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    host.prepare()
    import basicsr

    stored = np.load(Path(basicsr.__path__[0]) / _PARAMETERS)
    return stored["mu_pris_param"][0], stored["cov_pris_param"]
