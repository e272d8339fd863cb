"""Test-time adaptation, the front door of Algorithm 1: M_D is optimised on a photograph until it is hard to reblur.

    result = adapt(deblur_net, reblur_net, blurry)      # blurry: (1, 3, H, W) in [0, 1]
    result.image                                        # L_Adapted^N, unclamped
    result.initial                                      # L^0, the plain deblurred image
    result.fallback                                     # None, or why `image` is L^0
    for step in result.steps:                           # L^0 ... L^N before histogram matching
        print(step.number, step.loss, step.change, step.seconds)

    adapter = Adapter(deblur_net, reblur_net, steps=1, decay=0.9)   # many photographs, or a video
    for blurry in frames:
        image = adapter(blurry).image

Afterwards the caller's networks are as before, bit for bit: weights, gradients, requires_grad, modes, buffers. Threads
may adapt with the same networks at once: one waits for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin.core.algorithm1 import Adaptation, AdaptStep, algorithm1
from reblur_plugin.core.borrow import alone_with, chosen_names
from reblur_plugin.core.boundary import bare, check_range
from reblur_plugin.core.budget import Costs
from reblur_plugin.core.choices import AdaptConfig, AdaptError
from reblur_plugin.core.device import give_back
from reblur_plugin.core.parts import WHOLE, Plan

__all__ = ["AdaptConfig", "AdaptError", "AdaptStep", "Adaptation", "Adapter", "adapt"]


def adapt(
    deblur_net: nn.Module,
    reblur_net: nn.Module,
    blurry: Tensor,
    config: AdaptConfig | None = None,
    *,
    plan: Plan | None = None,
    tick: Callable[[], None] | None = None,
    seen: Callable[[int, Tensor], None] | None = None,
    **choices: Any,
) -> Adaptation:
    """Return Algorithm 1's result for one blurry image: an `Adapter` used once.

    Both networks run in eval mode; of a network with several scales the finest is adapted (D6). Works inside `no_grad`
    and `inference_mode`.

    Args:
        deblur_net: M_D, any module that maps `(1, C, H, W)` to an image of that size (or to several scales of it).
            Weights with `requires_grad=False` are held, unless all are.
        reblur_net: M_R, any module that maps an image to an image of the same size.
        blurry: B, float `(1, C, H, W)` in [0, 1] on the networks' device.
        config: the choices; or give them by name: `adapt(..., steps=3, lr=1e-6)`.
        plan: how to compute it; by default the whole photograph at once, or whatever fits into `max_memory`.
        tick: called after each pass over a tile, of which there are N + 1 for each.
        seen: called with i and L^i, before histogram matching, as soon as it is there: i from 0 to N. Its time counts
            as that of the next pass.

    Raises:
        AdaptError: if the input is no single float image, a network is on another device or of another type, has no
            float32/float64 weights to adapt or cuts the gradient, or nothing fits into `max_memory`.
        NetworkError: if a network doesn't give an image of its input's size, or several that could be meant.
    """
    if config is not None and choices:
        raise AdaptError(f"adapt: give either config or single choices, got both ({', '.join(choices)})")
    return Adapter(deblur_net, reblur_net, config or AdaptConfig(**choices))(blurry, plan, tick, seen)


class Adapter:
    """Adapts photograph after photograph; owns the plan of each size and the costs by which it is made.

    In a video a frame begins near where the one before it ended (not in the paper). M_D itself is never changed:
    what is carried along is held here.

    Args:
        deblur_net, reblur_net: M_D and M_R, as for `adapt`.
        config: the choices of each adaptation, or give them by name.
        decay: how much of a frame's adaptation the next one begins with: theta + decay (theta_N - theta). 0 begins
            at theta each time, as the paper does; 1 forgets nothing.

    Raises:
        AdaptError: if `decay` is no number from 0 to 1.
    """

    def __init__(
        self,
        deblur_net: nn.Module,
        reblur_net: nn.Module,
        config: AdaptConfig | None = None,
        *,
        decay: float = 0.9,
        **choices: Any,
    ) -> None:
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay <= 1:
            raise AdaptError(f"decay: expected a number from 0 to 1, got {decay!r}")
        if config is not None and choices:
            raise AdaptError(f"Adapter: give either config or single choices, got both ({', '.join(choices)})")
        self.deblur_net = deblur_net
        self.reblur_net = reblur_net
        self.config = config or AdaptConfig(**choices)
        self.decay = decay
        self._adapted: list[Tensor] | None = None
        self._costs: dict[tuple[int, torch.dtype, torch.device], Costs] = {}  # by channels, type and device

    def __call__(
        self,
        blurry: Tensor,
        plan: Plan | None = None,
        tick: Callable[[], None] | None = None,
        seen: Callable[[int, Tensor], None] | None = None,
    ) -> Adaptation:
        """Return `adapt`'s result for the next photograph. After one that went astray the next begins at theta.

        Arguments and errors as for `adapt`.
        """
        _check_image(blurry)
        deblur_net, reblur_net = self._networks()
        with alone_with(deblur_net, reblur_net):
            return self._adapt(deblur_net, reblur_net, blurry, plan, tick or _nothing, seen or _nothing)

    def _adapt(
        self,
        deblur_net: nn.Module,
        reblur_net: nn.Module,
        blurry: Tensor,
        plan: Plan | None,
        tick: Callable[[], None],
        seen: Callable[[int, Tensor], None],
    ) -> Adaptation:
        names = chosen_names(deblur_net, self.config.parameters)
        self._check_fit(blurry, deblur_net, reblur_net)
        is_bounded = self.config.max_memory is not None
        if is_bounded:
            plan = plan or self.plan(blurry)
        start = None
        if self._adapted is not None:
            weights = dict(deblur_net.named_parameters())
            pairs = zip(names, self._adapted, strict=True)
            start = [weights[name].detach().lerp(adapted, self.decay) for name, adapted in pairs]
        release = give_back if is_bounded else _nothing  # before histogram matching takes its own
        plan = plan or WHOLE
        passed = partial(_between_tiles, tick) if plan.tiling else tick
        given = (deblur_net, reblur_net, blurry, self.config, plan, start, passed, release, seen)
        result, adapted = algorithm1(*given)
        self._adapted = None if result.fallback or not self.decay else adapted
        return result

    def plan(self, blurry: Tensor, max_memory: int | None = None) -> Plan:
        """Return how a photograph is adapted within a bound of memory, with an estimate of memory and time.

        Costs are measured once, by small crops, when they must be known; a size has one plan.

        Args:
            blurry: B; its size, channels, type and device count.
            max_memory: bytes that the process (on a GPU: PyTorch) may hold; None: the configured bound, if any.

        Raises:
            AdaptError: if nothing fits, or if the networks are on another device than the image or of another type.
        """
        kind = blurry.shape[1], blurry.dtype, blurry.device
        if kind not in self._costs:
            like = torch.zeros((1, blurry.shape[1], 1, 1), dtype=blurry.dtype, device=blurry.device)
            networks = self._networks()
            self._check_fit(blurry, *networks)
            self._costs[kind] = Costs(*networks, like, self.config)
        height, width = blurry.shape[-2:]
        return self._costs[kind].plan(height, width, max_memory or self.config.max_memory)

    def reset(self) -> None:
        """Begin at theta with the next frame, as at a cut."""
        self._adapted = None

    def _networks(self) -> tuple[nn.Module, nn.Module]:
        return _network("deblur_net", self.deblur_net), _network("reblur_net", self.reblur_net)

    def _check_fit(self, blurry: Tensor, deblur_net: nn.Module, reblur_net: nn.Module) -> None:
        for name, network in (("deblur_net", deblur_net), ("reblur_net", reblur_net)):
            if others := {str(weight.device) for weight in network.parameters()} - {str(blurry.device)}:
                raise AdaptError(
                    f"{name}: expected its weights on the image's device {blurry.device}, "
                    f"got {', '.join(sorted(others))}; "
                    f"move the image or the network by .to({blurry.device.type!r})"
                )
            kinds = {weight.dtype for weight in network.parameters() if weight.is_floating_point()}
            casts = self.config.amp != "none" or torch.is_autocast_enabled(blurry.device.type)
            if kinds and blurry.dtype not in kinds and not casts:
                raise AdaptError(
                    f"{name}: expected weights of the image's type {blurry.dtype}, "
                    f"got {', '.join(sorted(map(str, kinds)))}; convert the image or the network by .to({blurry.dtype})"
                )


def _nothing(*_: object) -> None:
    pass


def _between_tiles(tick: Callable[[], None]) -> None:
    """Give back what the last tile has left: the next one is of another size."""
    give_back()
    tick()


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
    check_range("blurry", blurry)


def _network(name: str, network: nn.Module) -> nn.Module:
    """Return the network inside its wrapper, if gradient can reach its weights."""
    if not isinstance(network, nn.Module):
        raise AdaptError(f"{name}: expected a network (torch.nn.Module), got {type(network).__name__}")
    network = bare(network)
    if any(parameter.is_inference() for parameter in network.parameters()):
        raise AdaptError(f"{name}: built inside inference_mode, which forbids gradient; build or load it outside")
    return network
