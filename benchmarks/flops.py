"""Floating-point operations of a computation, backward passes included, counted while it runs once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Counter(TorchDispatchMode):
    """Adds up what PyTorch's formulas give for each convolution and matrix product.

    PyTorch's own FlopCounterMode fails on `autograd.grad`, because it follows modules as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result


def count_flops(computation: Callable[[], object]) -> int:
    """Return the operations of all convolutions in one run on a CPU; a multiply-add is two.

    A backward pass counts the gradients that are made: for the input, for the weights, or both.
    """
    with _Counter() as counter:
        computation()
    return counter.flops
