"""Means with their intervals, and differences image by image: values by hand, intervals by SciPy and normal theory."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from reblur_plugin.report import statistics
from reblur_plugin.report.statistics import Difference, Estimate, difference, estimate

# In standard errors of the mean: the 2.5 % quantile of 10,000 resamples has a standard error of
# sqrt(0.025 * 0.975 / 10000) / 0.0584 = 0.027, where 0.0584 is the normal density at 1.96; two programs that draw other
# resamples differ by 0.038. Four times this:
OTHER_DRAWS = 0.15


@pytest.fixture
def skewed(rng: np.random.Generator) -> NDArray[np.float64]:
    """Values of 40 images with a long tail: here the percentile interval isn't symmetric about the mean."""
    return rng.gamma(1.0, 2.0, 40)


def error_of_mean(values: NDArray[np.float64]) -> float:
    """Return the standard deviation of resampled means: that of the values over the root of their number."""
    return float(np.sqrt(((values - values.mean()) ** 2).mean() / len(values)))


def by_scipy(values: NDArray[np.float64]) -> tuple[float, float]:
    found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(7))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


class TestEstimate:
    def test_the_mean_is_over_finite_values(self) -> None:
        # (1 + 2 + 6) / 3
        found = estimate([1.0, math.nan, 2.0, math.inf, 6.0, -math.inf])
        assert (found.mean, found.images) == (3.0, 3)

    def test_the_interval_is_over_finite_values(self) -> None:
        # a mean of three draws is 1 or 6 with a chance of 1/27 each, above 2.5 %: the ends are the extreme values
        found = estimate([1.0, math.nan, 2.0, math.inf, 6.0, -math.inf])
        assert (found.low, found.high) == (1.0, 6.0)

    def test_two_images_are_the_ends_of_their_interval(self) -> None:
        # means of two draws: 30 and 31 with a chance of 1/4 each, 30.5 with 1/2
        assert estimate([31.0, 30.0]) == Estimate(30.5, 30.0, 31.0, 2)

    def test_one_image_has_no_interval(self) -> None:
        found = estimate([math.inf, 30.25])
        assert (found.mean, found.images) == (30.25, 1)
        assert math.isnan(found.low)
        assert math.isnan(found.high)

    @pytest.mark.parametrize("values", [[], [math.nan, math.inf]])
    def test_no_finite_value_has_no_mean(self, values: list[float]) -> None:
        found = estimate(values)
        assert found.images == 0
        assert all(math.isnan(number) for number in (found.mean, found.low, found.high))

    def test_the_mean_is_the_true_sum_rounded_once(self) -> None:
        # added one after another, 1 is lost beside 1e16
        assert estimate([1e16, 1.0, -1e16, 3.0]).mean == 1.0

    def test_the_interval_is_scipys_percentile_bootstrap(self, skewed: NDArray[np.float64]) -> None:
        found = estimate(list(skewed))
        assert (found.low, found.high) == pytest.approx(
            by_scipy(skewed), rel=0, abs=OTHER_DRAWS * error_of_mean(skewed)
        )
        # and not the mean +- one width: the tail is on the right
        assert found.high - found.mean > found.mean - found.low + OTHER_DRAWS * error_of_mean(skewed)

    def test_of_many_images_the_interval_is_the_normal_one(self, rng: np.random.Generator) -> None:
        values = rng.uniform(20, 30, 400)
        error = error_of_mean(values)
        expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
        found = estimate(list(values))
        assert (found.low, found.high) == pytest.approx(expected, rel=0, abs=OTHER_DRAWS * error)

    def test_the_same_values_have_the_same_interval(self, skewed: NDArray[np.float64]) -> None:
        first = estimate(list(skewed))
        assert estimate(list(skewed)) == first

    def test_another_seed_draws_others(self, skewed: NDArray[np.float64]) -> None:
        first, second = estimate(list(skewed), seed=0), estimate(list(skewed), seed=1)
        assert first.mean == second.mean
        assert (first.low, first.high) != (second.low, second.high)


class TestMemory:
    def test_many_images_have_the_normal_interval_within_bounded_memory(self, rng: np.random.Generator) -> None:
        values = rng.normal(30, 2, 2000)
        error = error_of_mean(values)
        expected = (values.mean() - 1.96 * error, values.mean() + 1.96 * error)
        given = list(values)
        tracemalloc.start()
        found = estimate(given)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (found.low, found.high) == pytest.approx(expected, rel=0, abs=OTHER_DRAWS * error)
        # 10,000 * 2000 numbers of 8 bytes are 160 MB for the places and as much for the values; 2**22 of each are 67 MB
        assert peak < 100e6

    @pytest.mark.parametrize("at_once", [1, 130, 10**9])
    def test_the_size_of_chunks_changes_no_interval(
        self, skewed: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch, at_once: int
    ) -> None:
        # 40 images: 10,000 chunks of a resample (less than one fits), 3333 of three and one of one, a single chunk
        monkeypatch.setattr(statistics, "_AT_ONCE", at_once)
        found = estimate(list(skewed))
        assert (found.low, found.high) == pytest.approx(
            by_scipy(skewed), rel=0, abs=OTHER_DRAWS * error_of_mean(skewed)
        )


class TestDifference:
    BEFORE, AFTER = (30.0, 20.0, 25.0, 28.0), (31.0, 20.0, 24.0, 30.0)  # changes 1, 0, -1, 2

    @pytest.mark.parametrize(("better", "count"), [("higher", 2), ("lower", 1)])
    def test_it_is_after_less_before_and_ties_are_no_better(self, better: str, count: int) -> None:
        found = difference(self.BEFORE, self.AFTER, better)
        # (1 + 0 - 1 + 2) / 4
        assert (found.estimate.mean, found.estimate.images, found.better) == (0.5, 4, count)

    def test_its_interval_is_of_the_changes(self) -> None:
        # changes 1 and 3, though the values are far apart
        found = difference([10.0, 40.0], [11.0, 43.0], "higher")
        assert found == Difference(Estimate(2.0, 1.0, 3.0, 2), 2)

    def test_what_is_not_finite_counts_in_neither(self) -> None:
        found = difference([math.inf, 30.0, math.nan, 30.0], [math.inf, math.inf, 31.0, 32.0], "higher")
        assert (found.estimate.mean, found.estimate.images, found.better) == (2.0, 1, 1)

    def test_other_numbers_of_images_are_refused(self) -> None:
        with pytest.raises(ValueError, match="argument 2 is shorter than argument 1"):
            difference([30.0, 31.0], [30.0], "higher")

    @pytest.mark.parametrize(
        ("low", "high", "clear"),
        [
            (0.1, 0.5, True),
            (-0.5, -0.1, True),
            (-0.1, 0.5, False),
            (0.0, 0.5, False),
            (-0.5, 0.0, False),
            (math.nan, math.nan, False),
        ],
    )
    def test_it_is_clear_if_its_interval_leaves_zero_out(self, low: float, high: float, clear: bool) -> None:
        assert Difference(Estimate(0.2, low, high, 5), 3).is_clear is clear
