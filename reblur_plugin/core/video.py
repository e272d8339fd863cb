"""Adaptation carried along a video: a frame begins near where the one before it ended (D36; not in the paper).

adapter = Adapter(deblur_net, reblur_net, steps=1, decay=0.9)
for blurry in frames:
    image = adapter(blurry).image
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from reblur_plugin.core.adapt import Adaptation, adapted_from, chosen_names
from reblur_plugin.core.borrow import bare
from reblur_plugin.core.choices import AdaptConfig, AdaptError
from reblur_plugin.core.memory import Costs
from reblur_plugin.core.plan import Plan


class Adapter:
    """Adapts frame after frame. M_D itself is never changed: what is carried along is held here.

    Args:
        deblur_net, reblur_net: M_D and M_R.
        config: the choices of each frame's adaptation, or give them by name.
        decay: how much of a frame's adaptation the next one begins with: theta + decay (theta_N - theta). 0 begins
            anew, as the paper does for each image; 1 forgets nothing.

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
        self._costs: Costs | None = None  # of frames within a bound of memory, measured once

    def __call__(self, blurry: Tensor, plan: Plan | None = None, tick: Callable[[], None] | None = None) -> Adaptation:
        """Return `adapt`'s result for the next frame. After one that went astray the next begins anew."""
        if plan is None and self.config.max_memory is not None:
            self._costs = self._costs or Costs(self.deblur_net, self.reblur_net, blurry, self.config)
            height, width = blurry.shape[-2:]
            plan = self._costs.plan(height, width, self.config.max_memory)
        start = None
        if self._adapted is not None:
            weights = dict(bare(self.deblur_net).named_parameters())
            names = chosen_names(bare(self.deblur_net), self.config.parameters)
            pairs = zip(names, self._adapted, strict=True)
            start = [weights[name].detach().lerp(adapted, self.decay) for name, adapted in pairs]
        given = (self.deblur_net, self.reblur_net, blurry, self.config, plan, tick)
        result, self._adapted = adapted_from(start, *given)
        if result.fallback:
            self._adapted = None
        return result

    def reset(self) -> None:
        """Begin anew with the next frame, as at a cut."""
        self._adapted = None
