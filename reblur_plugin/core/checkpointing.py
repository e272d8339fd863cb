"""Activation checkpointing of any network: parts of it remember only their input and compute the rest once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reblur_plugin.errors import ReblurError


@contextmanager
def checkpointed(network: nn.Module, depth: int | None) -> Iterator[None]:
    """Checkpoint the parts of `network` that lie `depth` levels below it: 0 is the network as a whole, None nothing.

    Gradients stay the same. Single layers are left alone: they have nothing inside to forget.

    Raises:
        ReblurError: (in the forward pass) if a part changes its input in place, which its second run would see.
    """
    parts = [] if depth is None else list(dict.fromkeys(_parts(network, depth)))
    own = {part: part.__dict__.get("forward") for part in parts}
    try:
        for part in parts:
            part.forward = partial(_recomputed, type(part).__name__, part.forward)
        yield
    finally:
        for part, forward in own.items():
            del part.forward
            if forward is not None:
                part.forward = forward


def _parts(module: nn.Module, depth: int) -> Iterator[nn.Module]:
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):  # never called themselves
        for child in module.children():
            yield from _parts(child, depth)
    elif depth == 0:
        if any(True for _ in module.children()):
            yield module
    else:
        for child in module.children():
            yield from _parts(child, depth - 1)


def _recomputed(name: str, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    tensors = [value for value in (*inputs, *options.values()) if isinstance(value, Tensor)]
    versions = [tensor._version for tensor in tensors]
    output = checkpoint(forward, *inputs, use_reentrant=False, **options)
    if versions != [tensor._version for tensor in tensors]:
        raise ReblurError(f"checkpointing: {name} changes its input in place and can't be computed twice; leave it out")
    return output
