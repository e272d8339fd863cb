"""Watches over a running training: numbers that aren't finite, and M_R's identity trap (D10)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from reblur_plugin.errors import ReblurError

_WINDOW = 500  # iterations that rho must stay at 1; a fresh M_R with a global skip is the identity for some hundred
_TOLERANCE = 0.01


class CollapseWatch:
    """Collects rho = L_Blur / ||L - B|| and says when M_R has stayed the identity. Never waits for the device."""

    def __init__(self, window: int = _WINDOW) -> None:
        self.window = window
        self.total: Tensor | None = None
        self.count = 0

    def add(self, rho: Tensor) -> None:
        """Take the indicator (`objectives.collapse_indicator`) of one iteration."""
        self.total = rho if self.total is None else self.total + rho
        self.count += 1

    def warning(self) -> str | None:
        """Return a sentence if rho's mean over the last `window` iterations is 1, else None. Reads the device."""
        if self.total is None or self.count < self.window:
            return None
        count, mean = self.count, float(self.total) / self.count
        self.total, self.count = None, 0
        if abs(mean - 1) > _TOLERANCE:
            return None
        return (
            f"rho = L_Blur / L1(L, B) has been {mean:.3f} for {count} iterations: M_R is the identity, so "
            "L_Reblur is nothing but a second L1 and adaptation will do nothing. Start with a small L_Sharp, e.g. "
            "reblur_opt: sharp_weight: [[400, 0.0], [500, 0.25], [1500, 1.0]]"
        )


class FiniteWatch:
    """Remembers the first iteration with a nan or infinite loss. Never waits for the device, but in `first`."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, dtype=torch.int64, device=device)

    def add(self, losses: Mapping[str, Tensor], iteration: int) -> None:
        """Take the losses of one iteration."""
        if losses:
            bad = ~torch.stack(list(losses.values())).isfinite().all() & (self._first < 0)
            self._first = torch.where(bad, iteration, self._first)

    def check(self) -> None:
        """Stop a training whose losses are no numbers any more.

        Raises:
            ReblurError: with the iteration where it began.
        """
        first = self.first()
        if first is not None:
            raise ReblurError(
                f"loss: expected finite numbers, got nan or infinity since iteration {first}; "
                "use a smaller lr or grad_clip"
            )

    def first(self) -> int | None:
        """Return that iteration, or None while all is well. Reads the device."""
        first = int(self._first)
        return None if first < 0 else first
