"""Networks as option files ask for them: built, loaded, laid out in memory, averaged over processes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from reblur_plugin import checkpoints
from reblur_plugin.core.borrow import bare
from reblur_plugin.host import build_network, get_root_logger
from reblur_plugin.models.criteria import ReblurModelError, built


def network(opt: dict[str, Any], label: str, raw: bool) -> nn.Module:
    """Return the network of `network_<label>` with the weights that `path: pretrain_network_<label>` names.

    Args:
        opt: all options, as BasicSR's classes get them.
        label: g for M_D, r for M_R, d for the discriminator.
        raw: take the raw weights of a checkpoint rather than the averaged ones, where it has both.

    Raises:
        ReblurModelError: if it can't be built, or a test names no checkpoint.
        CheckpointError: if the checkpoint doesn't fit.
    """
    network = built(f"network_{label}", build_network, opt[f"network_{label}"])
    path = opt["path"].get(f"pretrain_network_{label}")
    if path:
        is_raw = raw and "params" in checkpoints.load(path)
        key = opt["path"].get(f"param_key_{label}") or ("params" if is_raw else None)
        checkpoints.load_weights(network, path, key, opt["path"].get(f"strict_load_{label}", True))
        get_root_logger().info(f"Loaded net_{label} from {path} ({key or 'params_ema or params'}).")
    elif not opt["is_train"]:
        raise ReblurModelError(
            f"path: pretrain_network_{label}: missing; a test needs a checkpoint, "
            "which python -m reblur_plugin.train makes"
        )
    count = sum(parameter.numel() for parameter in network.parameters())
    get_root_logger().info(f"net_{label}: {type(network).__name__}, {count:,} parameters.")
    return network


def average(net_g: nn.Module, opt: dict[str, Any]) -> nn.Module:
    """Return a copy of M_D for its averaged weights, with those of its checkpoint where that has some."""
    averaged = copy.deepcopy(bare(net_g)).eval().requires_grad_(False)
    path = opt["path"].get("pretrain_network_g")
    if path and "params_ema" in checkpoints.load(path):
        checkpoints.load_weights(averaged, path, "params_ema", opt["path"].get("strict_load_g", True))
    return averaged


@torch.no_grad()
def move_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    """Move averaged weights towards those of `network`; buffers are copied."""
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)  # at once, hence private
    for mean, buffer in zip(averaged.buffers(), network.buffers(), strict=True):
        mean.copy_(buffer)


def parallel(network: nn.Module, device: torch.device, find_unused_parameters: bool) -> nn.Module:
    """Return a network on `device` whose gradients are averaged over the processes, if it has any to train."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return network
    return nn.parallel.DistributedDataParallel(
        network,
        device_ids=[torch.cuda.current_device()] if device.type == "cuda" else None,
        find_unused_parameters=find_unused_parameters,
        gradient_as_bucket_view=True,  # no second copy of the gradient
    )
