"""Networks lent to the adaptation: whatever it does with them, their owner gets them back bit for bit."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn

from reblur_plugin.core.choices import AdaptError
from reblur_plugin.core.objectives import frozen


def bare(network: nn.Module) -> nn.Module:
    """Return the network inside a data-parallel wrapper, whose backward pass would wait for the other processes."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return network.module if isinstance(network, wrappers) else network


def chosen_names(deblur_net: nn.Module, patterns: Literal["all"] | Sequence[str]) -> list[str]:
    """Return the names of the weights that adapt, in the network's order.

    Raises:
        AdaptError: if a pattern fits none, or the network has none that steps of 3e-6 can move.
    """
    names = {name: parameter for name, parameter in deblur_net.named_parameters() if parameter.is_floating_point()}
    if not names:
        raise AdaptError(f"deblur_net: {type(deblur_net).__name__} has no floating-point weights to adapt")
    for parameter in names.values():
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise AdaptError(
                f"deblur_net: expected float32 weights, got {parameter.dtype}, where steps of 3e-6 are rounded away; "
                "call .float() and use autocast for speed"
            )
    if patterns == "all":
        return list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            parts = dict.fromkeys(f"{name.split('.')[0]}.*" for name in names if "." in name)
            near = difflib.get_close_matches(pattern, [*parts, *names], n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join([*parts] or names)}"
            raise AdaptError(f"parameters: expected names of weights of M_D, got {pattern!r}; {hint}")
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise AdaptError("parameters: expected all or a list of names, got an empty list")
    return chosen


@contextmanager
def borrowed(
    deblur_net: nn.Module,
    reblur_net: nn.Module,
    patterns: Literal["all"] | Sequence[str] | None,
    channels_last: bool,
) -> Iterator[list[nn.Parameter]]:
    """Yield the weights of M_D that `patterns` name, free to change until the end of the block; all else is held.

    Both networks run in eval mode in the block and write into copies of their buffers.
    """
    names = [] if patterns is None else chosen_names(deblur_net, patterns)
    chosen = dict(deblur_net.named_parameters())
    with ExitStack() as stack:
        for network in (deblur_net, reblur_net):
            stack.enter_context(eval_mode(network))
            stack.enter_context(_kept_buffers(network))
            stack.enter_context(frozen(network))
        stack.enter_context(_fresh_casts())
        if channels_last:
            stack.enter_context(_lent(list(reblur_net.parameters()), channels_last))
        stack.enter_context(_lent(list(chosen.values()), channels_last))
        parameters = [chosen[name] for name in names]
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield parameters


@contextmanager
def _lent(parameters: Sequence[nn.Parameter], channels_last: bool) -> Iterator[None]:
    """Let floating-point `parameters` be changed.

    Their storage is exchanged for a copy, made at once, and never written: the caller's values can't be harmed, not
    even half-way, and are restored without a copy.
    """
    lent = [parameter for parameter in parameters if parameter.is_floating_point()]
    saved = [(parameter, parameter.data, parameter.grad) for parameter in lent]
    try:
        for parameter, copy in zip(lent, _copies(lent, channels_last), strict=True):
            parameter.data, parameter.grad = copy, None
        yield
    finally:
        for parameter, data, grad in saved:
            parameter.data = data
            parameter.grad = grad


def _copies(parameters: Sequence[nn.Parameter], channels_last: bool) -> list[torch.Tensor]:
    """Return a copy of each, all made in one call."""
    layouts = [torch.channels_last if channels_last and p.ndim == 4 else torch.preserve_format for p in parameters]
    pairs = zip(parameters, layouts, strict=True)
    copies = [torch.empty_like(parameter, memory_format=layout) for parameter, layout in pairs]
    if copies:
        torch._foreach_copy_(copies, [parameter.data for parameter in parameters])
    return copies


@contextmanager
def _kept_buffers(network: nn.Module) -> Iterator[None]:
    """Let `network` write into copies of its buffers; its own stay untouched."""
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
def _fresh_casts() -> Iterator[None]:
    """Let autocast cast the weights in every pass: its cached copies would hide the updates."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Run `network` in eval mode; every submodule's own mode is restored afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
