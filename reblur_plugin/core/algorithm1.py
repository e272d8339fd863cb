"""Algorithm 1, lines 3-10: theta_D follows the gradient of L_self (Eq. 7) for N steps on one photograph.

`algorithm1` is the loop. Its passes run on the whole photograph or, where memory is short, tile by tile: the loss is a
mean over pixels, so its gradient is the sum of what the tiles' own pixels give, and one update follows all of them.
`adapt` and `Adapter` (core/adapt.py) are the front door: they check what is given and plan within a bound of memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin.core.borrow import borrowed
from reblur_plugin.core.boundary import image_from
from reblur_plugin.core.choices import AdaptConfig, AdaptError
from reblur_plugin.core.device import has_fast_bf16
from reblur_plugin.core.histogram import match_histogram
from reblur_plugin.core.objectives import l1, self_reblur_loss
from reblur_plugin.core.parts import WHOLE, Mosaic, Plan, Tile, checkpointed


@dataclass(frozen=True)
class AdaptStep:
    """State of the adaptation after `number` updates.

    Attributes:
        number: i, how many updates theta_D has had; 0 is the plain deblurred image.
        deblurred: L^i = M_D(B) before histogram matching, `(1, C, H, W)`, unclamped; None, if it isn't kept.
        loss: L_self at L^i (Eq. 7); None after the last update, where the algorithm doesn't compute it.
            It may rise while the image gets sharper (its target moves along): no measure of success.
        change: mean |L^i - L^0|.
        seconds: that the pass which made L^i took, the update behind it included.
    """

    number: int
    deblurred: Tensor | None
    loss: float | None
    change: float
    seconds: float


@dataclass(frozen=True)
class Adaptation:
    """What Algorithm 1 found; images are `(1, C, H, W)`, unclamped.

    Attributes:
        image: L_Adapted^N; L^0, if the adaptation went astray.
        initial: L^0 = M_D(B), the image without adaptation.
        steps: L^0 ... L^N.
        plan: how it was computed.
    """

    image: Tensor
    initial: Tensor
    steps: tuple[AdaptStep, ...]
    config: AdaptConfig = field(default_factory=AdaptConfig)
    plan: Plan = field(default_factory=Plan)

    @property
    def fallback(self) -> str | None:
        """Return why `image` is the unadapted one; None, if it isn't."""
        return _astray(self.steps, self.config)

    @property
    def seconds(self) -> float:
        """Return the time of all passes."""
        return sum(step.seconds for step in self.steps)

    def after(self, number: int) -> Tensor:
        """Return what Algorithm 1 gives with N = `number` updates: L^number, its histogram matched to L^0's.

        Raises:
            AdaptError: if the adaptation stopped before that update, or its image wasn't kept.
        """
        if not 0 <= number < len(self.steps):
            raise AdaptError(f"after({number}): expected a step from 0 to {len(self.steps) - 1}")
        deblurred = self.steps[number].deblurred
        if deblurred is None:
            raise AdaptError(f"after({number}): that image wasn't kept; add {number} to keep")
        return _line_10(deblurred, self.initial, self.steps[: number + 1], self.config)


def algorithm1(
    deblur_net: nn.Module,
    reblur_net: nn.Module,
    blurry: Tensor,
    config: AdaptConfig,
    plan: Plan = WHOLE,
    start: Sequence[Tensor] | None = None,
    tick: Callable[[], None] = lambda: None,
    release: Callable[[], None] = lambda: None,
    seen: Callable[[int, Tensor], None] = lambda number, deblurred: None,
) -> tuple[Adaptation, list[Tensor]]:
    """Return Algorithm 1's result for one photograph, and the weights after the last update.

    N steps cost N + 1 passes of M_D and N of M_R: L^i of line 6 serves as L* and as M_R's input, and the first as L^0.

    Args:
        deblur_net, reblur_net: M_D and M_R; both run in eval mode and are unchanged afterwards.
        blurry: B, float `(1, C, H, W)` in [0, 1] on their device.
        config: N, mu and all other choices.
        plan: what is computed in which parts.
        start: the weights to begin at; None: theta_D.
        tick: called after each pass over a tile.
        release: called before line 10, when graphs and the optimiser are gone.
        seen: called with i and L^i, before histogram matching, as soon as it is there.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        borrowed(deblur_net, reblur_net, config.parameters, config.channels_last) as weights,  # line 3: theta_D
        checkpointed(deblur_net, plan.deblur_depth),
        checkpointed(reblur_net, plan.reblur_depth),
    ):
        for weight, value in zip(weights, start or (), strict=start is not None):
            weight.data.copy_(value)
        blurry = (blurry.clone() if blurry.is_inference() else blurry).detach()
        passes = _Passes(deblur_net, reblur_net, blurry, plan, config, tick)
        trace = _Trace(blurry.device, config)
        optimizer = _optimizer(weights, config)
        for number in range(config.steps):  # line 5
            optimizer.zero_grad(set_to_none=True)
            deblurred, loss = passes.gradient(trace.initial)  # lines 6 and 7; the first L^i is line 4's
            _check_reached(weights)
            optimizer.step()  # line 8
            trace.add(deblurred, loss)
            seen(number, deblurred)
            del deblurred
        final = passes.deblur()  # line 9
        trace.add(final)
        seen(config.steps, final)
        adapted = [weight.data for weight in weights]
    steps = trace.steps()
    del optimizer  # its moments are as large as theta_D
    release()
    return Adaptation(_line_10(final, trace.first, steps, config), trace.first, steps, config, plan), adapted


def _line_10(deblurred: Tensor, initial: Tensor, steps: Sequence[AdaptStep], config: AdaptConfig) -> Tensor:
    """Return L^i of the last of `steps` with the histogram of L^0, or L^0 itself if they went astray."""
    if _astray(steps, config) or len(steps) == 1:
        return initial
    return deblurred if config.histogram == "none" else match_histogram(deblurred, initial, config.histogram)


def _astray(steps: Sequence[AdaptStep], config: AdaptConfig) -> str | None:
    """Return what went wrong first; None, if nothing did. The loss has no say: it may rise on the right way."""
    for step in steps:
        if not math.isfinite(step.change):
            if step.number == 0:
                raise AdaptError("adapt: nan or infinity without any update; check the weights of deblur_net")
            return f"nan or infinity after step {step.number} with lr {config.lr}; use a smaller lr"
        if config.max_change is not None and step.change > config.max_change:
            return (
                f"mean change {step.change:.3g} after step {step.number} is beyond max_change {config.max_change:g}; "
                "use a smaller lr"
            )
    return None


def _check_reached(weights: Sequence[nn.Parameter]) -> None:
    if all(weight.grad is None for weight in weights):
        raise AdaptError("deblur_net: no weight received a gradient; its forward pass must not detach its output")


def _optimizer(weights: list[nn.Parameter], config: AdaptConfig) -> torch.optim.Optimizer:
    """Return a fresh optimiser, as each photograph has its own (D9)."""
    kind: Callable[..., torch.optim.Optimizer] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimizer]
    return kind(weights, lr=config.lr, **({"fused": True} if config.fused else {}))


@dataclass(frozen=True)
class _Passes:
    """M_D and M_R on the tiles of one photograph; a single tile is the whole of it."""

    deblur_net: nn.Module
    reblur_net: nn.Module
    blurry: Tensor
    plan: Plan
    config: AdaptConfig
    tick: Callable[[], None]

    def gradient(self, initial: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return L^i and L_self at it, whose gradient is added to theta_D's: lines 6 and 7."""
        target = initial if self.config.target == "initial" else None  # L*: L^0 or L^i itself
        tiles = self.plan.tiles(*self.blurry.shape[-2:])
        image, total = Mosaic(tiles), self.blurry.new_zeros(())
        for tile in tiles:
            with self._precision():
                deblurred = image_from(self.deblur_net, tile.crop(self.blurry), "deblur_net")
                image.put(tile, deblurred.detach())
                loss = self._self_loss(tile, deblurred, target)
            loss.backward()
            total = total + loss.detach()
            del deblurred, loss  # what the graph still holds goes before the next tile
            self.tick()
        return image.image(), total

    @torch.no_grad()
    def deblur(self) -> Tensor:
        """Return M_D(B), line 9."""
        tiles = self.plan.tiles(*self.blurry.shape[-2:])
        image = Mosaic(tiles)
        for tile in tiles:
            with self._precision():
                image.put(tile, image_from(self.deblur_net, tile.crop(self.blurry), "deblur_net"))
            self.tick()
        return image.image()

    def _precision(self) -> AbstractContextManager[object]:
        device, amp = self.blurry.device, self.config.amp
        is_low = amp == "bf16" or (amp == "auto" and has_fast_bf16(device))
        return torch.autocast(device.type, torch.bfloat16) if is_low else nullcontext()

    def _self_loss(self, tile: Tile, deblurred: Tensor, target: Tensor | None) -> Tensor:
        """Return the tile's part of Eq. 7: the mean over its own pixels, by its share of the photograph."""
        if not deblurred.requires_grad:
            raise AdaptError("deblur_net: its output carries no gradient; its forward pass must not run under no_grad")

        def own(image: Tensor) -> Tensor:
            return _at_least_float(tile.own(image))

        aim = None if target is None else tile.crop(target)
        loss = self_reblur_loss(self.reblur_net, deblurred, aim, own) * tile.share
        if not loss.requires_grad:
            raise AdaptError("reblur_net: its output carries no gradient to its input; it must not detach it")
        return loss


class _Trace:
    """What is kept of the passes: L^0, the other images asked for, losses, changes and times.

    Numbers stay on the device until the end: reading them in the loop would make a GPU wait in every step.
    """

    def __init__(self, device: torch.device, config: AdaptConfig) -> None:
        self.initial: Tensor | None = None
        self._config = config
        self._on_gpu, self._device = device.type == "cuda", device
        self._images: list[Tensor | None] = []
        self._losses: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._marks: list[Any] = [self._now()]

    def add(self, deblurred: Tensor, loss: Tensor | None = None) -> None:
        """Take L^i and, but for the last, L_self at it."""
        if self.initial is None:
            self.initial = deblurred
        self._losses += [] if loss is None else [loss]
        self._images.append(deblurred if self._config.keeps(len(self._images)) else None)
        self._changes.append(l1(_at_least_float(deblurred), _at_least_float(self.initial)))
        self._marks.append(self._now())

    @property
    def first(self) -> Tensor:
        """L^0, once there is one."""
        assert self.initial is not None
        return self.initial

    def steps(self) -> tuple[AdaptStep, ...]:
        """Return all steps; waits for the device."""
        numbers = torch.stack([*self._changes, *self._losses]).tolist()
        losses = [*numbers[len(self._changes) :], None]
        seconds = [a.elapsed_time(b) / 1000 if self._on_gpu else b - a for a, b in pairwise(self._marks)]
        return tuple(AdaptStep(i, image, losses[i], numbers[i], seconds[i]) for i, image in enumerate(self._images))

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))  # not the current device's
        return event


def _at_least_float(image: Tensor) -> Tensor:
    """Return a half-precision image as float32: means of small differences need it."""
    return image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
