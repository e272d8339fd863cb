"""Means with intervals, and paired differences: what the tables of a report are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_AT_ONCE = 2**22  # drawn numbers, which bounds the memory
_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its 95 % bootstrap interval (percentiles of resampled means).

    Attributes:
        mean: over the images where the value is finite; nan if there are none.
        low, high: ends of the interval; nan with fewer than two images.
        images: how many count.
    """

    mean: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Difference:
    """The mean difference of two methods over the images that both have; on how many the second is better."""

    estimate: Estimate
    better: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.estimate.low > 0 or self.estimate.high < 0


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of the finite values, nan if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean of the finite values with its interval; the same for the same values and seed."""
    finite = np.array([value for value in values if math.isfinite(value)])
    mean = mean_of(values)
    if len(finite) < 2:
        return Estimate(mean, math.nan, math.nan, len(finite))
    rng = np.random.default_rng(seed)
    size = max(1, min(_RESAMPLES, _AT_ONCE // len(finite)))
    counts = [min(size, _RESAMPLES - start) for start in range(0, _RESAMPLES, size)]
    means = np.concatenate([finite[rng.integers(0, len(finite), (count, len(finite)))].mean(1) for count in counts])
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Estimate(mean, float(low), float(high), len(finite))


def difference(before: Sequence[float], after: Sequence[float], better: str) -> Difference:
    """Return `after` - `before`, image by image.

    Args:
        before, after: values of the same images in the same order.
        better: "higher" or "lower".
    """
    changes = [b - a for a, b in zip(before, after, strict=True)]
    sign = 1 if better == "higher" else -1
    return Difference(estimate(changes), sum(change * sign > 0 for change in changes if math.isfinite(change)))
