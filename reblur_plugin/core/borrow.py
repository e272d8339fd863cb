"""Networks lent to the adaptation: whatever it does with them, their owner gets them back bit for bit."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import eval_mode
from reblur_plugin.core.choices import AdaptError
from reblur_plugin.core.objectives import frozen

_borrowers: dict[nn.Module, int] = {}  # parts of networks that are borrowed now, and the thread that did it
_borrowers_changed = threading.Condition()


def chosen_names(deblur_net: nn.Module, patterns: Literal["all"] | Sequence[str]) -> list[str]:
    """Return the names of the weights that adapt, in the network's order.

    A weight with `requires_grad=False` is held, as in training. Where all are, the flags only say that the network
    isn't trained now, and all adapt.

    Raises:
        AdaptError: if a pattern fits none, or the network has none that steps of 3e-6 can move.
    """
    weights = {name: parameter for name, parameter in deblur_net.named_parameters() if parameter.is_floating_point()}
    if not weights:
        raise AdaptError(f"deblur_net: {type(deblur_net).__name__} has no floating-point weights to adapt")
    names = {name: parameter for name, parameter in weights.items() if parameter.requires_grad} or weights
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
            if any(fnmatchcase(name, pattern) for name in weights):
                raise AdaptError(f"parameters: {pattern!r} names weights that are held: requires_grad is False")
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

    Both networks run in eval mode in the block and write into copies of their buffers. Another thread that borrows one
    of them waits for the end of the block.
    """
    with ExitStack() as stack:
        stack.enter_context(alone_with(deblur_net, reblur_net))
        names = [] if patterns is None else chosen_names(deblur_net, patterns)
        chosen = dict(deblur_net.named_parameters())
        for network in (deblur_net, reblur_net):
            stack.enter_context(eval_mode(network))
            stack.enter_context(_kept_tensors(network))
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
def alone_with(*networks: nn.Module) -> Iterator[None]:
    """Keep other threads from borrowing a part of these networks; this thread may borrow them once more."""
    me, parts = threading.get_ident(), {module for network in networks for module in network.modules()}
    with _borrowers_changed:
        _borrowers_changed.wait_for(lambda: all(_borrowers.get(part, me) == me for part in parts))
        taken = parts - _borrowers.keys()
        _borrowers.update(dict.fromkeys(taken, me))
    try:
        yield
    finally:
        with _borrowers_changed:
            for part in taken:
                del _borrowers[part]
            _borrowers_changed.notify_all()


@contextmanager
def _kept_tensors(network: nn.Module) -> Iterator[None]:
    """Let `network` write into copies of its buffers and of tensors that are plain attributes; its own stay untouched.

    Such an attribute is what old weight_norm, spectral_norm and pruning compute in each pass from the weights.
    """
    homes = [home for module in network.modules() for home in (module._buffers, vars(module))]
    before = [dict(home.items()) for home in homes]
    tensors = [(i, name, value) for i, own in enumerate(before) for name, value in own.items() if _is_tensor(value)]
    copies = {id(value): value.detach().clone() for _, _, value in tensors}  # one of a tensor that modules share
    try:
        for i, name, value in tensors:
            homes[i][name] = copies[id(value)]
        yield
    finally:
        for home, own in zip(homes, before, strict=True):
            for name in [name for name, value in home.items() if _is_tensor(value)]:
                if name in own:
                    home[name] = own[name]
                else:
                    del home[name]
        for i, name, value in tensors:  # also where there is no tensor any more
            homes[i][name] = value


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


@contextmanager
def _fresh_casts() -> Iterator[None]:
    """Let autocast cast the weights in every pass: its cached copies would hide the updates."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)
