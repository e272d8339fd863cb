"""Networks lent to the adaptation: whatever it does with them, their owner gets them back bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def bare(network: nn.Module) -> nn.Module:
    """Return the network inside a data-parallel wrapper, whose backward pass would wait for the other processes."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return network.module if isinstance(network, wrappers) else network


@contextmanager
def lent_parameters(network: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Yield the network's float parameters, free to change until the end of the block.

    Their storage is exchanged for a copy, never written: the caller's values can't be harmed, not even half-way.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.is_floating_point()]
    saved = [(parameter, parameter.data, parameter.grad, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.data = parameter.data.clone()
            parameter.grad = None
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter, data, grad, requires_grad in saved:
            parameter.data = data
            parameter.grad = grad
            parameter.requires_grad_(requires_grad)


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Let `network` write into copies of its buffers; its own come back untouched."""
    saved = [
        (module._buffers, name, buffer)
        for module in network.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    copies = {id(buffer): buffer.clone() for _, _, buffer in saved}  # one copy of a buffer that modules share
    try:
        for buffers, name, buffer in saved:
            buffers[name] = copies[id(buffer)]
        yield
    finally:
        for buffers, name, buffer in saved:
            buffers[name] = buffer


@contextmanager
def fresh_casts() -> Iterator[None]:
    """Let autocast cast the weights in every pass: its cached copies would hide the updates."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Run `network` in eval mode; every submodule's own mode comes back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
