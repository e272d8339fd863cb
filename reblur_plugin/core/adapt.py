"""Test-time adaptation, Algorithm 1: M_D is optimised on one photograph until its result is hard to reblur.

    result = adapt(deblur_net, reblur_net, blurry)      # blurry: (1, 3, H, W) in [0, 1]
    result.image                                        # L_Adapted^N, unclamped
    result.initial                                      # L^0, the plain deblurred image
    result.fallback                                     # None, or why `image` is L^0
    for step in result.steps:                           # L^0 ... L^N before histogram matching
        print(step.number, step.loss, step.change, step.seconds)

The caller's networks come back bit for bit as they were: weights, gradients, requires_grad, train/eval mode, buffers.
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reblur_plugin.core.available import give_back
from reblur_plugin.core.borrow import bare, borrowed
from reblur_plugin.core.checkpointing import checkpointed
from reblur_plugin.core.choices import AdaptConfig, AdaptError, Amp
from reblur_plugin.core.device import has_fast_bf16
from reblur_plugin.core.fused import FusedAdam
from reblur_plugin.core.histogram import match_histogram
from reblur_plugin.core.passes import Passes, change
from reblur_plugin.core.plan import Plan


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
    """What `adapt` found; images are `(1, C, H, W)`, unclamped.

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
        return _result(deblurred, self.initial, self.steps[: number + 1], self.config)


def adapt(
    deblur_net: nn.Module,
    reblur_net: nn.Module,
    blurry: Tensor,
    config: AdaptConfig | None = None,
    *,
    plan: Plan | None = None,
    tick: Callable[[], None] | None = None,
    **choices: Any,
) -> Adaptation:
    """Return Algorithm 1's result for one blurry image: theta_D follows the gradient of Eq. 7 for N steps.

    N steps cost N + 1 forward passes of M_D and N of M_R: L^i of line 6 serves as L* and as M_R's input, and L^0 is
    the first of them. Both networks run in eval mode; of a network with several scales the finest is adapted (D6).
    Works inside `no_grad` and `inference_mode`.

    Args:
        deblur_net: M_D, any module that maps `(1, C, H, W)` to an image of that size (or to several scales of it).
        reblur_net: M_R, any module that maps an image to an image of the same size.
        blurry: B, float `(1, C, H, W)` in [0, 1] on the networks' device.
        config: the choices; or give them by name: `adapt(..., steps=3, lr=1e-6)`.
        plan: from `memory.Costs.plan`, to have it measured once for many photographs; by default the whole photograph
            at once, or whatever fits into `max_memory`.
        tick: called after each pass over a tile, of which there are N + 1 for each.

    Raises:
        AdaptError: if the input is no single float image, a network has no float32/float64 weights to adapt or cuts
            the gradient, sizes don't agree, or nothing fits into `max_memory`.
    """
    if config is None:
        config = AdaptConfig(**choices)
    elif choices:
        raise AdaptError(f"adapt: give either config or single choices, got both ({', '.join(choices)})")
    return adapted_from(None, deblur_net, reblur_net, blurry, config, plan, tick)[0]


def adapted_from(
    start: Sequence[Tensor] | None,
    deblur_net: nn.Module,
    reblur_net: nn.Module,
    blurry: Tensor,
    config: AdaptConfig,
    plan: Plan | None = None,
    tick: Callable[[], None] | None = None,
) -> tuple[Adaptation, list[Tensor]]:
    """Return what `adapt` does and the weights after the last update, which begin at `start` instead of M_D's own."""
    _check_image(blurry)
    deblur_net, reblur_net = (_network(*given) for given in (("deblur_net", deblur_net), ("reblur_net", reblur_net)))
    names = chosen_names(deblur_net, config.parameters)
    if plan is None and config.max_memory is not None:
        from reblur_plugin.core import memory  # which measures by calling this

        height, width = blurry.shape[-2:]
        plan = memory.Costs(deblur_net, reblur_net, blurry, config).plan(height, width, config.max_memory)
    plan = plan or Plan()

    with torch.inference_mode(False), torch.enable_grad():
        if blurry.is_inference():
            blurry = blurry.clone()
        blurry = blurry.detach()
        with (
            borrowed(deblur_net, reblur_net, names, config.channels_last) as parameters,
            checkpointed(deblur_net, plan.deblur_depth),
            checkpointed(reblur_net, plan.reblur_depth),
        ):
            for parameter, value in zip(parameters, start or (), strict=start is not None):
                parameter.data.copy_(value)
            tiles = plan.tiles(*blurry.shape[-2:])
            dtype = _autocast(config.amp, blurry.device)
            passes = Passes(deblur_net, reblur_net, blurry, tiles, dtype, tick or (lambda: None))
            initial, final, steps = _optimise(passes, parameters, config)
            weights = [parameter.data for parameter in parameters]
    if config.max_memory is not None:
        give_back()  # before histogram matching takes its own
    return Adaptation(_result(final, initial, steps, config), initial, steps, config, plan), weights


def _optimise(
    passes: Passes, parameters: list[nn.Parameter], config: AdaptConfig
) -> tuple[Tensor, Tensor, tuple[AdaptStep, ...]]:
    """Run lines 3-9 of Algorithm 1 on parameters that are free to change; return L^0, L^N and all steps."""
    optimizer = _optimizer(parameters, config)
    clock = _Clock(passes.blurry.device)
    initial: Tensor | None = None
    images: list[Tensor | None] = []
    losses: list[Tensor] = []
    changes: list[Tensor] = []

    def remember(deblurred: Tensor) -> Tensor:
        first = deblurred if initial is None else initial  # line 4: the first pass is L^0
        images.append(deblurred if config.keeps(len(images)) else None)
        changes.append(change(deblurred, first))
        clock.mark()
        return first

    for _ in range(config.steps):
        optimizer.zero_grad(set_to_none=True)
        deblurred, loss = passes.gradient(initial if config.target == "initial" else None)  # lines 6, 7
        if all(parameter.grad is None for parameter in parameters):
            raise AdaptError("deblur_net: no weight received a gradient; its forward pass must not detach its output")
        optimizer.step()  # line 8
        losses.append(loss)
        initial = remember(deblurred)
        del deblurred
    final = passes.deblur()  # line 9
    initial = remember(final)
    # Numbers are read once, here: reading them in the loop would make a GPU wait in every step.
    numbers = torch.stack([*changes, *losses]).tolist()
    values = [*numbers[len(changes) :], None]
    seconds = clock.seconds()
    steps = tuple(AdaptStep(i, image, values[i], numbers[i], seconds[i]) for i, image in enumerate(images))
    return initial, final, steps


class _Clock:
    """Times between marks, on a GPU its own times, without making anybody wait."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[Any] = []
        self.mark()

    def mark(self) -> None:
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        self._marks.append(event if self._on_gpu else time.perf_counter())

    def seconds(self) -> list[float]:
        """Return the time between each two marks; the device must have passed them all."""
        pairs = pairwise(self._marks)
        return [first.elapsed_time(last) / 1000 if self._on_gpu else last - first for first, last in pairs]


def _optimizer(parameters: list[nn.Parameter], config: AdaptConfig) -> torch.optim.Optimizer:
    adam = FusedAdam if config.fused and parameters[0].device.type == "cpu" else torch.optim.Adam
    kind: Callable[..., torch.optim.Optimizer] = {"adam": adam, "sgd": torch.optim.SGD}[config.optimizer]
    return kind(parameters, lr=config.lr, **({"fused": True} if config.fused else {}))


def _autocast(amp: Amp, device: torch.device) -> torch.dtype | None:
    is_low = amp == "bf16" or (amp == "auto" and has_fast_bf16(device))
    return torch.bfloat16 if is_low else None


def _result(deblurred: Tensor, initial: Tensor, steps: Sequence[AdaptStep], config: AdaptConfig) -> Tensor:
    """Apply line 10 to the image of the last of `steps`, or return L^0 if they went astray."""
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


def _check_image(blurry: Tensor) -> None:
    if not isinstance(blurry, Tensor):
        raise AdaptError(f"blurry: expected a torch.Tensor (1, C, H, W), got {type(blurry).__name__}")
    if blurry.ndim != 4 or blurry.shape[0] != 1:
        raise AdaptError(
            f"blurry: expected one image (1, C, H, W), got {tuple(blurry.shape)}; "
            "weights are adapted to a single image, so call adapt once for each"
        )
    if not blurry.is_floating_point():
        raise AdaptError(f"blurry: expected floats in [0, 1], got {blurry.dtype}; divide 8-bit values by 255")
    if not blurry.numel():
        raise AdaptError(f"blurry: expected at least one pixel, got {tuple(blurry.shape)}")
    if not torch.isfinite(blurry).all():
        raise AdaptError("blurry: expected finite values, got nan or infinity")


def _network(name: str, network: nn.Module) -> nn.Module:
    """Return the network inside its wrapper, if gradient can reach its weights."""
    if not isinstance(network, nn.Module):
        raise AdaptError(f"{name}: expected a network (torch.nn.Module), got {type(network).__name__}")
    network = bare(network)
    if any(parameter.is_inference() for parameter in network.parameters()):
        raise AdaptError(f"{name}: built inside inference_mode, which forbids gradient; build or load it outside")
    return network


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
