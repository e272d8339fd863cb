"""Test-time adaptation, Algorithm 1: M_D is optimised on one photograph until its result is hard to reblur.

    result = adapt(deblur_net, reblur_net, blurry)      # blurry: (1, 3, H, W) in [0, 1]
    result.image                                        # L_Adapted^N, unclamped
    result.initial                                      # L^0, the plain deblurred image
    for step in result.steps:                           # L^0 ... L^N before histogram matching
        print(step.number, step.loss, step.change)

The caller's networks come back bit for bit as they were: weights, gradients, requires_grad, train/eval mode, buffers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from reblur_plugin.core.borrow import bare, eval_mode, fresh_casts, kept_buffers, lent_parameters
from reblur_plugin.core.histogram import match_histogram
from reblur_plugin.core.objectives import finest, frozen, l1, self_reblur_loss
from reblur_plugin.errors import ReblurError

Optimizer = Literal["adam", "sgd"]
Target = Literal["current", "initial"]
HistogramMatching = Literal["skimage", "none"]


class AdaptError(ReblurError):
    """What was given can't be adapted; the message says why and what to do."""


@dataclass(frozen=True)
class AdaptConfig:
    """The choices of Algorithm 1; the defaults are the paper's (D5, D9).

    Attributes:
        steps: N, number of updates of theta_D; 0 gives the plain deblurred image.
        lr: mu, the test-time learning rate.
        optimizer: "adam" (section S1: Adam in all cases) or "sgd" (no momentum); a fresh one for each image.
        target: L* of Eq. 7: the "current" L^i (line 6) or the "initial" L^0.
        histogram: "skimage" matches L^N's colours to L^0's (line 10); "none" returns L^N.
    """

    steps: int = 5
    lr: float = 3e-6
    optimizer: Optimizer = "adam"
    target: Target = "current"
    histogram: HistogramMatching = "skimage"

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise AdaptError(f"steps: expected a whole number of updates >= 0, got {self.steps!r}")
        if isinstance(self.lr, bool) or not isinstance(self.lr, (int, float)) or not 0 < self.lr < math.inf:
            raise AdaptError(f"lr: expected a learning rate > 0 such as 3e-6, got {self.lr!r}")
        for name, choices in (("optimizer", Optimizer), ("target", Target), ("histogram", HistogramMatching)):
            value = getattr(self, name)
            if value not in get_args(choices):
                raise AdaptError(f"{name}: expected one of {', '.join(get_args(choices))}, got {value!r}")


@dataclass(frozen=True)
class AdaptStep:
    """State of the adaptation after `number` updates.

    Attributes:
        number: i, how many updates theta_D has had; 0 is the plain deblurred image.
        deblurred: L^i = M_D(B) before histogram matching, `(1, C, H, W)`, unclamped.
        loss: L_self at L^i (Eq. 7); None after the last update, where the algorithm doesn't compute it.
            It may rise while the image gets sharper (its target moves along): no measure of success.
        change: mean |L^i - L^0|.
    """

    number: int
    deblurred: Tensor
    loss: float | None
    change: float


@dataclass(frozen=True)
class Adaptation:
    """What `adapt` found: `image` is L_Adapted^N, `initial` L^0, `steps` L^0 ... L^N; all `(1, C, H, W)`, unclamped."""

    image: Tensor
    steps: tuple[AdaptStep, ...]
    config: AdaptConfig = field(default_factory=AdaptConfig)

    @property
    def initial(self) -> Tensor:
        """Return L^0 = M_D(B), the image without adaptation."""
        return self.steps[0].deblurred

    def after(self, number: int) -> Tensor:
        """Return what Algorithm 1 gives with N = `number` updates: L^number, its histogram matched to L^0's.

        Raises:
            AdaptError: if the adaptation stopped before that update.
        """
        if not 0 <= number < len(self.steps):
            raise AdaptError(f"after({number}): expected a step from 0 to {len(self.steps) - 1}")
        return _match(self.steps[number].deblurred, self.initial, number, self.config)


def adapt(
    deblur_net: nn.Module,
    reblur_net: nn.Module,
    blurry: Tensor,
    config: AdaptConfig | None = None,
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

    Raises:
        AdaptError: if the input is no single float image, a network has no float32/float64 weights to adapt or cuts
            the gradient, or sizes don't agree.
    """
    if config is None:
        config = AdaptConfig(**choices)
    elif choices:
        raise AdaptError(f"adapt: give either config or single choices, got both ({', '.join(choices)})")
    deblur_net, reblur_net = bare(deblur_net), bare(reblur_net)
    _check_image(blurry)
    _check_networks(deblur_net, reblur_net)

    with torch.inference_mode(False), torch.enable_grad(), ExitStack() as borrowed:
        if blurry.is_inference():
            blurry = blurry.clone()
        blurry = blurry.detach()
        for network in (deblur_net, reblur_net):
            borrowed.enter_context(eval_mode(network))
            borrowed.enter_context(kept_buffers(network))
        borrowed.enter_context(frozen(reblur_net))
        borrowed.enter_context(fresh_casts())
        parameters = borrowed.enter_context(lent_parameters(deblur_net))
        steps = _optimise(deblur_net, reblur_net, blurry, parameters, config)
    final = _match(steps[-1].deblurred, steps[0].deblurred, config.steps, config)
    return Adaptation(final, steps, config)


def _optimise(
    deblur_net: nn.Module, reblur_net: nn.Module, blurry: Tensor, parameters: list[nn.Parameter], config: AdaptConfig
) -> tuple[AdaptStep, ...]:
    """Run lines 3-9 of Algorithm 1 on parameters that are free to change."""
    optimizer = _optimizer(parameters, config)
    images: list[Tensor] = []
    losses: list[Tensor] = []
    for _ in range(config.steps):
        deblurred = _deblur(deblur_net, blurry)  # line 6; the first pass is line 4 as well
        images.append(deblurred.detach().clone())  # a copy, for networks that work in place
        target = images[0] if config.target == "initial" else None
        loss = _self_loss(reblur_net, deblurred, target)  # line 7
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if all(parameter.grad is None for parameter in parameters):
            raise AdaptError("deblur_net: no weight received a gradient; its forward pass must not detach its output")
        optimizer.step()  # line 8
        losses.append(loss.detach())
    with torch.no_grad():
        images.append(_deblur(deblur_net, blurry))  # line 9
    # Numbers are read once, here: reading them in the loop would make a GPU wait in every step.
    changes = torch.stack([l1(_at_least_float(image), _at_least_float(images[0])) for image in images]).tolist()
    values: list[float | None] = [*torch.stack(losses).tolist(), None] if losses else [None]
    return tuple(AdaptStep(i, image, values[i], changes[i]) for i, image in enumerate(images))


def _optimizer(parameters: list[nn.Parameter], config: AdaptConfig) -> torch.optim.Optimizer:
    kind: Callable[..., torch.optim.Optimizer] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimizer]
    return kind(parameters, lr=config.lr)


def _deblur(deblur_net: nn.Module, blurry: Tensor) -> Tensor:
    deblurred = finest(deblur_net(blurry.clone()))  # a copy, for networks that work in place
    if deblurred.shape != blurry.shape:
        raise AdaptError(
            f"deblur_net: expected an image of the input's shape {tuple(blurry.shape)}, got {tuple(deblurred.shape)}"
        )
    return deblurred


def _self_loss(reblur_net: nn.Module, deblurred: Tensor, target: Tensor | None) -> Tensor:
    if not deblurred.requires_grad:
        raise AdaptError("deblur_net: its output carries no gradient; its forward pass must not run under no_grad")
    try:
        loss = self_reblur_loss(reblur_net, deblurred, target)
    except ReblurError as error:
        raise AdaptError(f"reblur_net: expected an image of its input's shape; {error}") from error
    if not loss.requires_grad:
        raise AdaptError("reblur_net: its output carries no gradient to its input; it must not detach it")
    return loss


def _match(image: Tensor, initial: Tensor, number: int, config: AdaptConfig) -> Tensor:
    """Apply line 10; before the first update there is nothing to match."""
    if not torch.isfinite(image).all():
        raise AdaptError(f"adapt: nan or infinity after {number} steps with lr {config.lr}; use a smaller lr")
    return image if number == 0 or config.histogram == "none" else match_histogram(image, initial)


def _at_least_float(image: Tensor) -> Tensor:
    """Return a half-precision image as float32: means of small differences need it."""
    return image.float() if image.dtype in (torch.float16, torch.bfloat16) else image


def _check_image(blurry: Tensor) -> None:
    if blurry.ndim != 4 or blurry.shape[0] != 1:
        raise AdaptError(
            f"blurry: expected one image (1, C, H, W), got {tuple(blurry.shape)}; "
            "weights are adapted to a single image, so call adapt once for each"
        )
    if not blurry.is_floating_point():
        raise AdaptError(f"blurry: expected floats in [0, 1], got {blurry.dtype}; divide 8-bit values by 255")
    if not torch.isfinite(blurry).all():
        raise AdaptError("blurry: expected finite values, got nan or infinity")


def _check_networks(deblur_net: nn.Module, reblur_net: nn.Module) -> None:
    parameters = list(deblur_net.parameters())
    if not any(parameter.is_floating_point() for parameter in parameters):
        raise AdaptError(f"deblur_net: {type(deblur_net).__name__} has no floating-point weights to adapt")
    for name, network in (("deblur_net", deblur_net), ("reblur_net", reblur_net)):
        if any(parameter.is_inference() for parameter in network.parameters()):
            raise AdaptError(f"{name}: built inside inference_mode, which forbids gradient; build or load it outside")
    for parameter in parameters:
        if parameter.dtype in (torch.float16, torch.bfloat16):
            raise AdaptError(
                f"deblur_net: expected float32 weights, got {parameter.dtype}, where steps of 3e-6 are rounded away; "
                "call .float() and use autocast for speed"
            )
