"""Reblurability as a metric without a sharp image: how much M_R changes the result (D37)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reblur_plugin.checkpoints import network
from reblur_plugin.core.reblurability import reblurability_map
from reblur_plugin.data.images import to_float, to_tensor
from reblur_plugin.errors import MetricError


def reblurability(
    img: NDArray[np.uint8],
    img2: NDArray[np.uint8] | None = None,
    crop_border: int = 0,
    weights: str | None = None,
    reblur_net: nn.Module | None = None,
    better: str = "lower",
) -> float:
    """Return mean |M_R(L) - L| of an 8-bit image `(H, W, 3)` (BGR), in grey levels; 0: nothing is left to reblur.

    Values of two M_R can't be compared.

    Args:
        img: the result.
        img2: ignored; BasicSR hands the sharp image to every metric.
        crop_border: pixels left out at each edge of the mean.
        weights: net_r_*.pth of ReblurModel, which names its network.
        reblur_net: M_R itself, which ReblurModel hands over where `weights` isn't given.
        better: for BasicSR's record of the best result.

    Raises:
        MetricError: if there is no M_R.
        CheckpointError: if the checkpoint is missing, damaged or doesn't name its network.
    """
    network = load_reblur_net(weights) if weights else reblur_net
    if not isinstance(network, nn.Module):
        raise MetricError("reblurability: weights: missing; give net_r_*.pth, or network_r in the options")
    image = to_tensor(to_float(img[..., ::-1]))[None].to(next(network.parameters()).device)
    change = reblurability_map(network, image)[0, 0].cpu().numpy() * 255
    height, width = change.shape
    return float(change[crop_border : height - crop_border, crop_border : width - crop_border].mean())


@lru_cache(maxsize=2)
def load_reblur_net(weights: str, device: str | None = None) -> nn.Module:
    """Return the M_R of a checkpoint, loaded once, on a device; None: on a GPU where there is one.

    Raises:
        CheckpointError: if it is missing, damaged or doesn't name its network.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return network(weights, "r").requires_grad_(False).to(place)
