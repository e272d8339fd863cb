"""Networks as option files ask for them: built, loaded, averaged, in low precision, compiled, over processes."""

from __future__ import annotations

import copy
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from reblur_plugin import checkpoints
from reblur_plugin.core.boundary import bare, choose_output
from reblur_plugin.core.device import has_fast_bf16
from reblur_plugin.host import build_network, get_root_logger
from reblur_plugin.models.criteria import ReblurModelError, built

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_COMPILERS = {"darwin": "clang++", "win32": "cl"}  # that PyTorch takes where the environment names none as CXX


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
    if label == "g":
        choose_output(network, opt.get("deblurred_output"))
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
    averaged = copy.deepcopy(bare(net_g)).eval()  # requires_grad stays: what is held isn't adapted either
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


def autocast_type(name: str | None, device: torch.device) -> torch.dtype | None:
    """Return the low precision that `train: amp` names; "auto" is bf16 where the device has units for it.

    Raises:
        ReblurModelError: if it names none.
    """
    if name == "auto":
        return torch.bfloat16 if has_fast_bf16(device) else None
    if name is not None and name not in _TYPES:
        raise ReblurModelError(f"train: amp: expected bf16, fp16, auto or nothing, got {name!r}")
    return None if name is None else _TYPES[name]


def is_trained(opt: Mapping[str, Any]) -> bool:
    """Return whether M_D begins with somebody's weights: `path: pretrain_network_g`, or those of a SpandrelNet."""
    return bool(opt["path"].get("pretrain_network_g") or opt["network_g"]["type"] == "SpandrelNet")


def require_compiler() -> None:
    """Refuse torch.compile without a C++ compiler, which PyTorch would miss in the first iteration only.

    Raises:
        ReblurModelError: in this case.
    """
    named = os.environ.get("CXX", "").strip() or _COMPILERS.get(sys.platform, "g++")
    program = named if shutil.which(named) else shlex.split(named)[0]  # a path of Windows holds blanks
    if not shutil.which(program):
        raise ReblurModelError(
            f"train: compile: expected a C++ compiler, found no {program}; install it, or leave the key out"
        )
