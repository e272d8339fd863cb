"""Schedules at, between and beyond their knots."""

from __future__ import annotations

import re

import pytest
import torch

from reblur_plugin.core.schedule import LearningRate, PiecewiseLinear, SharpWeight


class TestPiecewiseLinear:
    # D10's schedule: 0 until 400, then up to 0.25 in 100 iterations and up to 1 in 1000
    @pytest.mark.parametrize(
        ("iteration", "weight"),
        [(0, 0), (399, 0), (400, 0), (440, 0.1), (500, 0.25), (600, 0.325), (1000, 0.625), (1500, 1), (10**6, 1)],
    )
    def test_it_runs_straight_between_knots_and_is_constant_outside(self, iteration: int, weight: float) -> None:
        schedule = PiecewiseLinear.parse([[400, 0.0], [500, 0.25], [1500, 1.0]])
        assert schedule(iteration) == pytest.approx(weight, rel=1e-15, abs=0)

    @pytest.mark.parametrize("value", [1, 0, 0.25])
    @pytest.mark.parametrize("iteration", [0, 1, 10**6])
    def test_a_number_is_constant(self, value: float, iteration: int) -> None:
        assert PiecewiseLinear.parse(value)(iteration) == value

    def test_one_knot_is_constant(self) -> None:
        schedule = PiecewiseLinear.parse([[100, 0.5]])
        assert [schedule(iteration) for iteration in (0, 100, 200)] == [0.5, 0.5, 0.5]

    def test_it_may_fall(self) -> None:
        assert PiecewiseLinear.parse([[0, 1.0], [10, 0.5]])(4) == pytest.approx(0.8, rel=1e-15, abs=0)

    @pytest.mark.parametrize(
        "value", ["1.0", None, True, {"at": 1}, [1, 2], [[1]], [[1, 2, 3]], [["late", 1.0]], [[0, None]], "late"]
    )
    def test_what_is_no_schedule_is_refused(self, value: SharpWeight) -> None:
        message = f"expected a number or a list of [iteration, weight], got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            PiecewiseLinear.parse(value)

    @pytest.mark.parametrize(
        "value",
        [[], -1, -0.1, [[0, 1.0], [10, -0.5]], [[10, 0.0], [5, 1.0]], [[10, 0.0], [10, 1.0]], float("nan")],
        ids=str,
    )
    def test_negative_weights_and_iterations_that_go_back_are_refused(self, value: SharpWeight) -> None:
        message = f"expected weights >= 0 at increasing iterations, got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            PiecewiseLinear.parse(value)


class TestLearningRate:
    # Section S1: halved at 50, 75 and 90 % of 524000 iterations; they are counted from 1
    def test_the_papers_rate_is_halved_three_times(self) -> None:
        rate = LearningRate(1.0, (262000, 393000, 471600))
        expected = {1: 1, 262000: 1, 262001: 0.5, 393000: 0.5, 393001: 0.25, 471600: 0.25, 471601: 0.125, 524000: 0.125}
        assert {iteration: rate(iteration) for iteration in expected} == expected

    def test_it_rises_to_its_base_up_to_the_last_iteration_of_the_warm_up(self) -> None:
        # a quarter more in each of the first four; a milestone on the way up shows when the top is reached
        rate = LearningRate(0.1, (5,))
        assert [rate(iteration, warm_up=4) for iteration in range(1, 8)] == pytest.approx(
            [0.025, 0.05, 0.075, 0.1, 0.1, 0.05, 0.05], rel=1e-15, abs=0
        )
        assert LearningRate(0.1, (2,))(3, warm_up=4) == pytest.approx(0.075, rel=1e-15, abs=0)
        assert LearningRate(0.1, (2,))(4, warm_up=4) == 0.05

    def test_it_is_pytorchs_multi_step_schedule(self) -> None:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.7)
        reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 3, 7], gamma=0.3)
        rate = LearningRate(0.7, (2, 3, 7), 0.3)
        for iteration in range(1, 11):
            assert rate(iteration) == pytest.approx(reference.get_last_lr()[0], rel=1e-15, abs=0)
            optimizer.step()
            reference.step()

    def test_milestones_of_one_iteration_add_up(self) -> None:
        assert LearningRate(1.0, (5, 5))(6) == 0.25

    def test_without_milestones_nothing_changes(self) -> None:
        assert LearningRate(0.3)(10**6) == 0.3

    def test_its_changes_are_told_with_the_rate_that_follows(self) -> None:
        assert LearningRate(0.4, (3, 9), 0.5).changes() == [(3, 0.2), (9, 0.1)]
