"""The watches: rho's mean over a window, 1 within a hundredth; the first loss that isn't finite."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from reblur_plugin.models.watch import CollapseWatch, FiniteWatch


def watched(values: Iterable[float], window: int = 4) -> CollapseWatch:
    watch = CollapseWatch(window)
    for value in values:
        watch.add(torch.tensor(value, dtype=torch.float64))
    return watch


class TestCollapseWatch:
    def test_rho_of_one_over_the_window_warns_with_the_remedy(self) -> None:
        warning = watched([1.0, 1.0, 1.0, 1.0]).warning()
        assert warning is not None
        assert warning.startswith("rho = L_Blur / L1(L, B) has been 1.000 for 4 iterations: M_R is the identity, so ")
        assert warning.endswith("reblur_opt: sharp_weight: [[400, 0.0], [500, 0.25], [1500, 1.0]]")

    # means of 0.992 and 1.008 lie within a hundredth of 1, those of 0.988 and 1.012 don't
    @pytest.mark.parametrize(
        ("values", "collapsed"),
        [
            ((0.96, 1.0, 1.0, 1.008), True),
            ((1.04, 1.0, 1.0, 0.992), True),
            ((0.952, 1.0, 1.0, 1.0), False),
            ((1.048, 1.0, 1.0, 1.0), False),
            ((0.0, 2.0, 1.0, 1.0), True),
            ((0.7, 0.7, 0.7, 0.7), False),
        ],
    )
    def test_the_mean_decides(self, values: tuple[float, ...], collapsed: bool) -> None:
        assert (watched(values).warning() is not None) is collapsed

    def test_before_the_window_is_full_nothing_is_said(self) -> None:
        watch = watched([1.0, 1.0, 1.0])
        assert watch.warning() is None
        watch.add(torch.tensor(1.0))
        assert watch.warning() is not None

    def test_without_any_iteration_nothing_is_said(self) -> None:
        assert CollapseWatch().warning() is None

    @pytest.mark.parametrize("first", [0.5, 1.0])
    def test_each_window_is_judged_by_itself(self, first: float) -> None:
        watch = watched([first] * 4)
        watch.warning()
        assert watch.warning() is None
        for _ in range(4):
            watch.add(torch.tensor(1.0))
        assert watch.warning() is not None

    def test_the_usual_window_is_500_iterations(self) -> None:
        # a fresh M_R with a global skip is the identity for some hundred
        assert watched([1.0] * 499, window=CollapseWatch().window).warning() is None
        assert watched([1.0] * 500, window=CollapseWatch().window).warning() is not None


class TestFiniteWatch:
    def watched(self, *losses: float) -> FiniteWatch:
        watch = FiniteWatch(torch.device("cpu"))
        for iteration, loss in enumerate(losses, start=1):
            watch.add({"l_1": torch.tensor(0.5), "l_blur": torch.tensor(loss)}, iteration)
        return watch

    def test_finite_losses_are_well(self) -> None:
        assert self.watched(0.5, -1.0, 3e38).first() is None

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
    def test_the_first_bad_iteration_is_remembered(self, bad: float) -> None:
        watch = self.watched(1.0, bad, 1.0, bad)
        assert watch.first() == 2
        assert watch.first() == 2

    def test_an_iteration_without_losses_is_well(self) -> None:
        watch = FiniteWatch(torch.device("cpu"))
        watch.add({}, 1)
        assert watch.first() is None
