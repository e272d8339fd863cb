"""What adaptation costs, measured on small crops before it starts, and how to do it within a bound (docs/design.md)."""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reblur_plugin.core.algorithm1 import Adaptation, algorithm1
from reblur_plugin.core.borrow import borrowed
from reblur_plugin.core.boundary import image_from
from reblur_plugin.core.choices import AdaptConfig, AdaptError
from reblur_plugin.core.device import full_precision, give_back, in_gib, in_use
from reblur_plugin.core.parts import ALIGN, STRIP, VISIBLE, Plan, Tiling, halo, pixels, seam
from reblur_plugin.errors import ReblurError

_COUNTED, _TIMED = 64, 128  # pixels each way of the crops that are measured
_DEPTHS = (0, 1, 2)  # of parts that are tried for checkpointing
_OWN = 4 * ALIGN  # own pixels of the smallest tile each way: below that nearly all is halo
# Convolutions copy what they work on into other layouts: this much of the largest one's tensors.
_SCRATCH, _SCRATCH_CHANNELS_LAST = 1.25, 4.0
_SLACK = 64 * 2**20  # bytes for what grows with neither image nor network
_SORTING = {"skimage": 64, "torch": 128, "none": 0}  # bytes a pixel that histogram matching takes for a channel


@dataclass(frozen=True)
class PixelCost:
    """What a way to compute costs for each pixel of a tile. `plan` says which parts are checkpointed."""

    plan: Plan
    bytes: float
    step_seconds: float
    pass_seconds: float


@dataclass(frozen=True)
class Demand:
    """What is to be adapted, and the bytes that are taken anyway: `held` while its tiles run, `least` at its end."""

    height: int
    width: int
    steps: int
    held: int
    least: int = 0

    def planned(self, cost: PixelCost, tiling: Tiling | None) -> Plan:
        """Return `cost` in tiles with the estimate of memory and time."""
        largest, total = pixels(self.height, self.width, tiling or Tiling())
        memory = max(self.held + round(cost.bytes * largest), self.least)
        seconds = (self.steps * cost.step_seconds + cost.pass_seconds) * total
        return replace(cost.plan, tiling=tiling, memory=memory, seconds=seconds)


class Costs:
    """What adaptation by two networks costs; each thing is measured once, when it must be known.

    Args:
        deblur_net, reblur_net: M_D and M_R, without wrappers; both are unchanged afterwards.
        like: an image of the photographs' channels, dtype and device.
        config: what will be done to them.
    """

    def __init__(self, deblur_net: nn.Module, reblur_net: nn.Module, like: Tensor, config: AdaptConfig) -> None:
        self._networks = deblur_net, reblur_net
        self._like = like
        self._config = config
        self._plans: dict[tuple[int, int, int | None], Plan] = {}
        self._bound: int | None = None  # within which measuring stays too
        self._single = replace(
            config, steps=min(config.steps, 1), histogram="none", keep="all", max_change=None, max_memory=None
        )

    def plan(self, height: int, width: int, max_memory: int | None) -> Plan:
        """Return the first that fits of: whole and plain, whole and checkpointed, the fastest in tiles.

        Measuring stays within the bound, too. A size keeps its plan for as long as that fits with what is in use.

        Args:
            height, width: of the photograph.
            max_memory: bytes that the process (on a GPU: PyTorch) may hold, what it holds now included; None: any.

        Raises:
            AdaptError: if nothing fits; the message names the least that works, or more than which is needed. Also if
                there is a bound, and the system doesn't say what this process holds.
        """
        if max_memory is not None and in_use(self._like.device) is None:
            raise AdaptError(
                "max_memory: expected a system that tells how much memory a process holds, "
                f"got {sys.platform}; leave it out"
            )
        self._bound = max_memory
        known = self._plans.get((height, width, max_memory))
        plan = None if known is None else self._again(known, height, width)
        if plan is None or (max_memory is not None and plan.memory > max_memory):
            plan = self._planned(height, width, max_memory)
            give_back()  # what measuring leaves in the process
        self._plans[height, width, max_memory] = plan
        return plan

    def _again(self, plan: Plan, height: int, width: int) -> Plan:
        """Return a plan with the estimate for what is in use now."""
        give_back()
        is_plain = plan.deblur_depth is None and plan.reblur_depth is None
        return self._demand(height, width).planned(self.plain if is_plain else self.checkpointed, plan.tiling)

    def _planned(self, height: int, width: int, max_memory: int | None) -> Plan:
        size = f"{width}x{height} pixels"
        self._require(self._held + self._weights, size, "more than")
        plain = self.plain  # measured first: what its run leaves in the process counts as in use
        give_back()
        demand = self._demand(height, width)
        wholes = [demand.planned(plain, None)]
        if max_memory is None or wholes[0].memory <= max_memory:
            return wholes[0]
        wholes.append(demand.planned(self.checkpointed, None))
        if wholes[1].memory <= max_memory:
            return wholes[1]
        self._require(self._held + self._pass_bytes * STRIP, size, "more than")
        if self.seam > VISIBLE:
            names = " or ".join(type(network).__name__ for network in self._networks)
            why = f", and {names} can't be computed in tiles: they would change it by {self.seam * 255:.1f} grey levels"
            self._require(min(plan.memory for plan in wholes), size, why=why)
        tilings = _tilings(height, width, self.halo)
        tried = [demand.planned(cost, tiling) for cost in (plain, self.checkpointed) for tiling in tilings]
        self._require(min(plan.memory for plan in tried), size)
        return min((plan for plan in tried if plan.memory <= max_memory), key=lambda plan: plan.seconds)

    def _require(self, memory: float, size: str, least: str = "at least", why: str = "") -> None:
        """Refuse what needs more than the bound."""
        if self._bound is not None and memory > self._bound:
            gib = math.ceil(memory / 2**30 * 100) / 100
            raise AdaptError(
                f"max_memory: expected {least} {gib:.2f} GiB for {size} with these networks, "
                f"got {in_gib(self._bound)}{why}; give more, or a smaller photograph"
            )

    def _demand(self, height: int, width: int) -> Demand:
        image = self._like.shape[1] * self._like.element_size() * height * width
        kept = sum(self._config.keeps(number) for number in range(self._config.steps + 1))
        held = self._held + (kept + 3) * image  # the present one, and two to compare it with L^0
        sorting = _SORTING[self._config.histogram] * height * width if self._config.steps else 0
        return Demand(height, width, self._config.steps, held + self._fixed, held + sorting)

    @property
    def _held(self) -> int:
        """Return the bytes in use; 0 where the system doesn't say, which is refused where there is a bound."""
        return in_use(self._like.device) or 0

    @property
    def _weights(self) -> int:
        """Return the bytes that adapting adds for M_D's weights, without a look at it: copy, gradient, Adam's state."""
        size = sum(weight.numel() * weight.element_size() for weight in self._networks[0].parameters())
        return size * ((4 if self._config.optimizer == "adam" else 2) if self._config.steps else 1)

    @cached_property
    def plain(self) -> PixelCost:
        """Return what it costs to remember all activations."""
        return self._cost(Plan())

    @cached_property
    def checkpointed(self) -> PixelCost:
        """Return what it costs with those parts checkpointed that leave the lowest peak."""
        if self._config.steps == 0:
            return self.plain
        found = {plan: self._bytes(plan) for plan in (Plan(depth) for depth in _DEPTHS)}
        best = min(found, key=found.__getitem__)
        found |= {plan: self._bytes(plan) for plan in (replace(best, reblur_depth=depth) for depth in _DEPTHS[1:])}
        return self._cost(min(found, key=found.__getitem__))

    @cached_property
    def halo(self) -> int:
        """Return the pixels of halo that tiles need."""
        with self._chain() as chain:
            return halo(chain, self._like.shape[1], self._like)

    @cached_property
    def seam(self) -> float:
        """Return how much tiles with that halo change an image at most, as a part of the unit range."""
        with self._chain() as chain:
            return seam(chain, self._like.shape[1], self._like, self.halo)

    @cached_property
    def _pass_bytes(self) -> float:
        """Return bytes a pixel of a pass of both networks that remembers nothing."""
        with self._chain() as chain, torch.no_grad(), _LiveBytes(self._shapes) as live:
            chain(self._noise(_COUNTED))
        return self._peak(live)

    @contextmanager
    def _chain(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Yield all that is computed on a tile, in full precision."""
        deblur_net, reblur_net = self._networks

        def chain(image: Tensor) -> Tensor:
            deblurred = image_from(deblur_net, image, "deblur_net")
            return image_from(reblur_net, deblurred, "reblur_net") if self._config.steps else deblurred

        with borrowed(deblur_net, reblur_net, None, self._config.channels_last), full_precision():
            yield chain

    @cached_property
    def _fixed(self) -> int:
        return self._live(Plan()).weights + _SLACK

    def _cost(self, plan: Plan) -> PixelCost:
        size = self._bytes(plan)  # a first run, which also loads what PyTorch loads late
        held = self._held + self._fixed
        side = _TIMED if self._bound is None or held + size * _TIMED**2 <= self._bound else _COUNTED
        if self._like.device.type == "cuda":
            self._run(plan, side)  # kernels of that size are chosen and loaded
        steps = self._run(plan, side).steps
        seconds = [step.seconds / side**2 for step in steps]
        return PixelCost(plan, size, seconds[0] if len(steps) > 1 else 0.0, seconds[-1])

    def _bytes(self, plan: Plan) -> float:
        """Return bytes a pixel at the peak; infinite, if a network can't be checkpointed so."""
        try:
            live = self._live(plan)
        except ReblurError:
            if plan == Plan():
                raise
            return float("inf")
        return self._peak(live)

    def _peak(self, live: _LiveBytes) -> float:
        """Return the bytes a pixel of what was counted on a crop."""
        scratch = _SCRATCH_CHANNELS_LAST if self._config.channels_last else _SCRATCH
        return (live.activations + scratch * live.widest) / _COUNTED**2

    def _live(self, plan: Plan) -> _LiveBytes:
        with _LiveBytes(self._shapes) as live:
            self._run(plan, _COUNTED)
        return live

    @property
    def _shapes(self) -> set[torch.Size]:
        return {parameter.shape for network in self._networks for parameter in network.parameters()}

    def _run(self, plan: Plan, size: int) -> Adaptation:
        return algorithm1(*self._networks, self._noise(size), self._single, plan)[0]

    def _noise(self, size: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.rand(1, self._like.shape[1], size, size, generator=generator).to(self._like)


def _tilings(height: int, width: int, halo: int) -> list[Tiling]:
    rows, columns = (range(1, max(1, length // _OWN) + 1) for length in (height, width))
    return [Tiling(row, column, halo) for row in rows for column in columns]


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are alive at once.

    Attributes:
        weights: the peak of those of the given shapes: weights, their gradients, the optimiser's state.
        activations: the peak of all others.
        widest: the most that a single operation reads and writes, in at least 4 bytes a number, but for weights.
    """

    def __init__(self, shapes: set[torch.Size]) -> None:
        super().__init__()
        self.weights = self.activations = self.widest = 0
        self._shapes = shapes
        self._alive: dict[int, tuple[bool, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        read = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
        touched = [value for value in (*read, *made) if value.shape not in self._shapes]
        self.widest = max(self.widest, sum(value.numel() * max(4, value.element_size()) for value in touched))
        for tensor in made:
            self._see(tensor)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._alive:
            return
        self._alive[storage._cdata] = tensor.shape in self._shapes, storage.nbytes()
        weakref.finalize(storage, self._alive.pop, storage._cdata)
        weights = sum(size for is_weight, size in self._alive.values() if is_weight)
        self.weights = max(self.weights, weights)
        self.activations = max(self.activations, sum(size for _, size in self._alive.values()) - weights)
