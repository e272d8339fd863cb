"""The rule of docs/reproduction.md, on numbers whose intervals are known from tables."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest

from reproduction import verdicts
from reproduction.verdicts import Values, together

Better = Literal["higher", "lower"]


def of(*seeds: list[float]) -> dict[int, dict[str, float]]:
    """Return values by seed of one image in each of the sequences A, B, ..."""
    return {number: {f"{chr(65 + at)}/0": value for at, value in enumerate(seed)} for number, seed in enumerate(seeds)}


def judge(before: Values, after: Values, better: Better, margin: float = 0.0) -> Any:
    return verdicts.judge(before, after, better, margin)


T_DIGITS = 5e-5  # of the tabulated 4.3027
ZERO = of(*[[0.0] * 3] * 3)


class TestEffect:
    def test_the_interval_over_seeds_is_students(self) -> None:
        # t for 95 % and 2 degrees of freedom is 4.3027; effects 1, 2, 3 have the standard deviation 1
        found = judge(ZERO, of([1.0] * 3, [2.0] * 3, [3.0] * 3), "higher")
        half = 4.3027 / math.sqrt(3)
        assert found.effect == pytest.approx(2)
        assert found.over_seeds == pytest.approx((2 - half, 2 + half), abs=T_DIGITS)

    def test_it_is_paired_by_seed_and_image(self) -> None:
        before = of([10.0, 20.0, 30.0], [110.0, 120.0, 130.0], [210.0, 220.0, 230.0])
        after = {seed: {name: value + 1 + 0.01 * seed for name, value in one.items()} for seed, one in before.items()}
        found = judge(before, after, "higher")
        assert found.effect == pytest.approx(1.01)
        assert found.verdict == "shown"
        assert found.spread == pytest.approx(100)  # of the first arm's own level: 20, 120, 220

    def test_a_sequence_counts_once_however_many_frames_it_has(self) -> None:
        before = {seed: {"A/0": 0.0, "A/1": 0.0, "A/2": 0.0, "B/0": 0.0} for seed in range(3)}
        after = {seed: {"A/0": 1.0, "A/1": 1.0, "A/2": 1.0, "B/0": 3.0} for seed in range(3)}
        found = judge(before, after, "higher")
        assert (found.effect, found.sequences, found.images) == (2.0, 2, 4)

    def test_an_image_without_a_value_in_one_training_is_left_out_of_all(self) -> None:
        before = {seed: {"A/0": 0.0, "B/0": 0.0} for seed in range(3)}
        after = {seed: {"A/0": 1.0 + seed, "B/0": math.nan if seed == 1 else 50.0} for seed in range(3)}
        found = judge(before, after, "higher")
        assert (found.before, found.after, found.effect, found.images) == (0.0, 2.0, 2.0, 1)

    def test_nothing_in_common_is_no_comparison(self) -> None:
        assert judge({0: {"A/0": 1.0}}, {1: {"A/0": 1.0}}, "higher") is None
        assert judge({0: {"A/0": math.nan}}, {0: {"A/0": 1.0}}, "higher") is None
        assert judge({}, {}, "higher") is None

    def test_images_and_seeds_of_one_arm_alone_are_left_out(self) -> None:
        before = {0: {"A/0": 0.0, "B/0": 0.0}, 1: {"A/0": 0.0, "B/0": 0.0}}
        after = {0: {"A/0": 1.0, "B/0": math.inf}, 2: {"A/0": 9.0}}
        found = judge(before, after, "higher")
        assert (found.effect, found.seeds, found.images) == (1.0, 1, 1)


class TestVerdict:
    @pytest.mark.parametrize(
        ("after", "better", "verdict"),
        [
            (of([1.0, 1.1, 0.9], [1.1, 1.0, 0.9], [1.0, 1.0, 1.1]), "higher", "shown"),
            (of([1.0, 1.1, 0.9], [1.1, 1.0, 0.9], [1.0, 1.0, 1.1]), "lower", "contradicted"),
            (of([-1.0, -1.1, -0.9], [-1.1, -1.0, -0.9], [-1.0, -1.0, -1.1]), "lower", "shown"),
            # two seeds agree, the third doesn't: an effect of single trainings
            (of([1.0, 1.1, 0.9], [1.1, 1.0, 0.9], [-0.1, -0.1, -0.1]), "higher", "not shown"),
            # all seeds agree, but by amounts that leave zero within what trainings vary by
            (of([0.1, 0.1, 0.1], [1.0, 1.1, 0.9], [2.0, 2.1, 1.9]), "higher", "not shown"),
            # all seeds agree, but one of three sequences doesn't
            (of([2.0, 2.0, -0.5], [2.1, 2.0, -0.5], [2.0, 2.1, -0.5]), "higher", "not shown"),
            (ZERO, "higher", "not shown"),
        ],
    )
    def test_both_intervals_and_all_seeds_decide(
        self, after: dict[int, dict[str, float]], better: Better, verdict: str
    ) -> None:
        assert judge(ZERO, after, better).verdict == verdict

    def test_of_five_seeds_all_must_agree_though_their_interval_excludes_zero(self) -> None:
        zero, most = of(*[[0.0] * 3] * 5), of(*[[1.0] * 3] * 4, [-0.01] * 3)
        found = judge(zero, most, "higher")
        assert found.over_seeds[0] > 0
        assert (found.agree, found.verdict) == (4, "not shown")

    @pytest.mark.parametrize(("change", "verdict"), [(-0.2, "shown"), (-0.4, "contradicted"), (0.1, "shown")])
    def test_a_price_may_go_against_the_claim_by_its_margin(self, change: float, verdict: str) -> None:
        after = of(*[[change, change + 0.01 * seed, change - 0.01] for seed in range(3)])
        assert judge(ZERO, after, "higher", margin=0.3).verdict == verdict

    def test_a_price_of_a_metric_that_falls_has_its_margin_on_the_other_side(self) -> None:
        after = of(*[[0.2, 0.21, 0.19]] * 3)
        assert judge(ZERO, after, "lower").verdict == "contradicted"
        assert judge(ZERO, after, "lower", margin=0.3).verdict == "shown"

    def test_one_training_is_judged_over_its_sequences(self) -> None:
        found = judge(of([0.0, 0.0, 0.0]), of([1.0, 2.0, 3.0]), "higher")
        assert found.verdict == "shown"
        assert all(map(math.isnan, found.over_seeds))
        assert judge(of([0.0, 0.0, 0.0]), of([1.0, 2.0, -3.0]), "higher").verdict == "not shown"

    def test_equal_values_of_all_seeds_are_one_training(self) -> None:
        """Weights that are there are tested once for each seed of something else."""
        found = judge(ZERO, of(*[[1.0, 2.0, 3.0]] * 3), "higher")
        assert (found.seeds, found.verdict) == (1, "shown")
        assert all(map(math.isnan, found.over_seeds))

    def test_photographs_outside_of_folders_are_one_each(self) -> None:
        before, after = ({0: dict.fromkeys(("a", "b", "c"), value)} for value in (0.0, 1.0))
        found = judge(before, after, "higher")
        assert (found.sequences, found.verdict) == (3, "shown")

    def test_two_trainings_have_an_interval(self) -> None:
        # t for 1 degree of freedom is 12.71: two seeds that differ at all show little
        assert judge(of([0.0] * 3, [0.0] * 3), of([1.0] * 3, [2.0] * 3), "higher").verdict == "not shown"


class TestTogether:
    def test_one_that_is_contradicted_contradicts_all(self) -> None:
        assert together(["shown", "contradicted", "not shown"]) == "contradicted"

    def test_all_must_be_shown(self) -> None:
        assert together(["shown", "shown"]) == "shown"
        assert together(["shown", "not shown"]) == "not shown"
        assert together([]) == "not shown"
