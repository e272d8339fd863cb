"""Numbers that change with the iteration: the learning rate (section S1) and the weight of L_Sharp (D10)."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

SharpWeight = float | Sequence[Sequence[float]]


@dataclass(frozen=True)
class LearningRate:
    """mu by iteration: `base` times `gamma` for each milestone passed (section S1: halved at 50, 75 and 90 %).

    A function of the iteration alone, so that neither warm-up nor a resumed run leaves a trace behind.

    Attributes:
        base: rate before the first milestone.
        milestones: iterations after which the rate falls.
        gamma: factor at each of them.
    """

    base: float
    milestones: Sequence[int] = ()
    gamma: float = 0.5

    def __call__(self, iteration: int, warm_up: int = -1) -> float:
        """Return the rate of update number `iteration`, counted from 1; it rises linearly up to update `warm_up`."""
        if iteration < warm_up:
            return self.base / warm_up * iteration
        return self.base * self.gamma ** sum(milestone < iteration for milestone in self.milestones)

    def changes(self) -> list[tuple[int, float]]:
        """Return each milestone with the rate that holds after it."""
        return [(milestone, self(milestone + 1)) for milestone in sorted(self.milestones)]


@dataclass(frozen=True)
class PiecewiseLinear:
    """A weight that runs in straight lines through `(iteration, weight)` knots and is constant outside them (D10)."""

    knots: tuple[tuple[float, float], ...]

    @classmethod
    def parse(cls, value: SharpWeight) -> PiecewiseLinear:
        """Return the schedule that an option file writes as a number or as a list of [iteration, weight].

        Raises:
            ValueError: if a knot isn't a pair, a weight is negative, or iterations don't increase.
        """
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            knots: tuple[tuple[float, float], ...] = ((0.0, float(value)),)
        else:
            try:
                knots = tuple((float(iteration), float(weight)) for iteration, weight in value)  # type: ignore[union-attr]
            except (TypeError, ValueError):
                raise ValueError(f"expected a number or a list of [iteration, weight], got {value!r}") from None
        iterations = [iteration for iteration, _ in knots]
        if not knots or not all(0 <= weight < math.inf for _, weight in knots) or sorted(set(iterations)) != iterations:
            raise ValueError(f"expected weights >= 0 at increasing iterations, got {value!r}")
        return cls(knots)

    def __call__(self, iteration: int) -> float:
        """Return the weight at `iteration`."""
        after = bisect.bisect_right([knot[0] for knot in self.knots], iteration)
        if after == 0:
            return self.knots[0][1]
        if after == len(self.knots):
            return self.knots[-1][1]
        (start, low), (end, high) = self.knots[after - 1], self.knots[after]
        return low + (high - low) * (iteration - start) / (end - start)
