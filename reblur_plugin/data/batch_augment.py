"""Augmentation of whole batches on the device that trains: `augment.py`'s, with the same chance (D13, D32).

Workers then cut patches out and draw what is to be done to them; pixels travel in 8 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from reblur_plugin.data.prefetch import Batch

_CHANCE, _SEED = "chance", "chance_seed"


def draw_chance(rng: np.random.Generator) -> dict[str, Any]:
    """Return what `augment.augment_nah` would draw: flips, order of channels, saturation, sigma, seed of the noise.

    The seed is text, so that it isn't collated into a tensor, from which a GPU would have to be asked for it.
    """
    flips, order = rng.random(3) < 0.5, rng.permutation(3)
    saturation, sigma = rng.uniform(0.5, 1.5), abs(rng.standard_normal()) * 2 / 255
    numbers = [*flips.astype(float), *order.astype(float), saturation, sigma]
    return {_CHANCE: torch.tensor(numbers, dtype=torch.float64), _SEED: str(rng.integers(2**63))}


def augment_batch(batch: Batch, name: str) -> Batch:
    """Return a batch of 8-bit patches `lq`, `gt` `(B, 3, H, H)` as floats in [0, 1], augmented by their chances.

    `name` is the augmentation: nah, flip or none. Batches without chances are returned as they are.
    """
    if _CHANCE not in batch:
        return batch
    rest = {key: value for key, value in batch.items() if key not in (_CHANCE, _SEED)}
    chance = batch[_CHANCE].to(torch.float32)
    images = torch.stack((batch["lq"], batch["gt"]))  # (2, B, 3, H, W)
    if name != "none":
        images = _flip(images, chance[:, :3] > 0)
    if name == "nah":
        order = chance[:, 3:6].long()
        images = images[:, torch.arange(len(order), device=order.device)[:, None], order]
    images = images.to(torch.float32) / 255
    if name == "nah":
        images = _saturate(images, chance[:, 6].reshape(-1, 1, 1, 1))
        noise = _noise(batch["lq"].shape, list(map(int, batch[_SEED])), batch["lq"].device)
        images[0] = (images[0] + noise * chance[:, 7].reshape(-1, 1, 1, 1)).clamp_(0, 1)
    return rest | {"lq": images[0], "gt": images[1]}


def _flip(images: Tensor, flips: Tensor) -> Tensor:
    """Return images mirrored left-right, top-down and along the diagonal where `flips` `(B, 3)` says so."""
    horizontal, vertical, transpose = (flips[:, number].reshape(-1, 1, 1, 1) for number in range(3))
    images = torch.where(horizontal, images.flip(-1), images)
    images = torch.where(vertical, images.flip(-2), images)
    return torch.where(transpose, images.transpose(-1, -2), images)


def _saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Return images whose HSV saturation is multiplied and cut at 1: channels move from V = max by the same factor."""
    value = images.amax(2, keepdim=True)
    distance = value - images
    most = value / distance.amax(2, keepdim=True).clamp_min(1e-12)
    return value - distance * torch.minimum(factor, most)


def _noise(shape: torch.Size, seeds: list[int], device: torch.device) -> Tensor:
    """Return standard normal noise, each patch's by its own seed; other numbers on another kind of device."""
    _, channels, height, width = shape
    source = torch.Generator(device)
    patches = [
        torch.randn(height, width, channels, generator=source.manual_seed(seed), device=device) for seed in seeds
    ]
    return torch.stack(patches).permute(0, 3, 1, 2)
