"""Runs side by side: what they share, what can't be compared, and what each is called."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin.evaluation.records import Record, Run, Score
from reblur_plugin.evaluation.variants import Variant
from reblur_plugin.report.study import Method, Study, study_of

LPIPS = Variant("LPIPS", "AlexNet, v0.1", "lower")
NIQE = Variant("NIQE", "original parameters, luma", "lower")
PSNR = Variant("PSNR", "RGB, 8 bits", "higher")
SSIM = Variant("SSIM", "Gaussian 11x11, each channel", "higher")
OF_LUMA = Variant("PSNR", "Y, 8 bits", "higher")
REBLURABILITY = Variant("reblurability", "M_R 0123456789abcdef, grey levels", "lower")
OTHER = Variant("musiq", "", "higher")


def record(image: str, stage: str, scores: dict[Variant, float] | None = None, **others: Any) -> Record:
    found = {variant.label: Score(value, variant) for variant, value in (scores or {PSNR: 30.0}).items()}
    return Record("any", "set", image, stage, found, **others)


def run_of(name: str, *records: Record, **others: Any) -> Run:
    run = Run(Path("results") / name, name, [replace(one, run=name) for one in records], {}, True)
    return replace(run, **others)


def plain(name: str, images: str, stage: str = "deblurred", **pixels: str) -> Run:
    """Return a run with a record for each letter of `images`."""
    return run_of(name, *(record(image, stage, pixels=pixels) for image in images))


def of_other_data(study: Study) -> list[str]:
    return [problem for problem in study.problems if "differ under one name" in problem]


class TestMethods:
    def test_the_blurry_stage_is_shared_and_first(self) -> None:
        first = run_of("a", record("1", "deblurred"), record("1", "blurry", {PSNR: 20.0}))
        second = run_of("b", record("2", "blurry", {PSNR: 21.0}), record("2", "deblurred"))
        study = study_of([first, second])
        blurry = Method("", "blurry")
        assert study.methods == [blurry, Method("a", "deblurred"), Method("b", "deblurred")]
        assert study.values[blurry, PSNR] == {"1": 20.0, "2": 21.0}

    def test_they_are_in_the_order_of_runs_and_stages_with_their_steps(self) -> None:
        stages = [record("1", "deblurred", step=0), record("1", "adapted_1", step=1), record("1", "adapted", step=5)]
        study = study_of([run_of("b", *stages), run_of("a", stages[0])])
        assert study.methods == [
            Method("b", "deblurred", 0),
            Method("b", "adapted_1", 1),
            Method("b", "adapted", 5),
            Method("a", "deblurred", 0),
        ]

    def test_a_stage_is_one_method_whatever_steps_its_images_took(self) -> None:
        study = study_of([run_of("a", record("1", "adapted", step=5), record("2", "adapted", step=4))])
        assert study.methods == [Method("a", "adapted", 5)]
        assert set(study.records[study.methods[0]]) == {"1", "2"}

    def test_results_leave_out_what_is_reblurred(self) -> None:
        stages = ("blurry", "deblurred", "reblurred", "unchanged", "adapted")
        study = study_of([run_of("a", *(record("1", stage) for stage in stages)), plain("b", "1")])
        assert [one.stage for one in study.of_run("a")] == ["deblurred", "adapted"]
        assert [(one.run, one.stage) for one in study.results()] == [
            ("", "blurry"),
            ("a", "deblurred"),
            ("a", "adapted"),
            ("b", "deblurred"),
        ]


class TestImages:
    def test_they_are_in_the_order_of_their_numbers(self) -> None:
        study = study_of([run_of("a", *(record(name, "deblurred") for name in ("10", "9", "2", "b/1", "100")))])
        assert study.images == ["2", "9", "10", "100", "b/1"]

    def test_files_are_those_of_the_runs_folder_and_of_the_first_run_with_the_data(self) -> None:
        first = record("1", "deblurred", picture="images/1.png", sharp="/data/sharp/1.png")
        second = record("1", "deblurred", picture="1.png", sharp="/copy/1.png", blurry="/copy/blur/1.png")
        study = study_of([run_of("a", first, record("2", "deblurred")), run_of("b", second)])
        assert study.pictures[Method("a", "deblurred")] == {"1": Path("results/a/images/1.png")}
        assert study.pictures[Method("b", "deblurred")] == {"1": Path("results/b/1.png")}
        assert study.sharp == {"1": Path("/data/sharp/1.png")}
        assert study.blurry == {"1": Path("/copy/blur/1.png")}

    def test_common_ones_have_a_finite_value_in_all_methods(self) -> None:
        values = {"1": 30.0, "2": math.inf, "3": 31.0, "10": 32.0}
        others = {"10": 30.0, "1": 31.0, "2": 30.0, "3": math.nan, "4": 30.0}
        first, second = (
            run_of(name, *(record(image, "deblurred", {PSNR: value}) for image, value in found.items()))
            for name, found in (("a", values), ("b", others))
        )
        study = study_of([first, second])
        assert study.common(study.methods, PSNR) == ["1", "10"]
        assert study.common(study.methods[:1], PSNR) == ["1", "3", "10"]
        assert study.common(study.methods, SSIM) == []
        assert study.common([*study.methods, Method("c", "deblurred")], PSNR) == []

    def test_values_are_in_the_order_of_the_images_asked_for(self) -> None:
        found = [record(name, "deblurred", {PSNR: float(name)}) for name in ("1", "2", "10")]
        study = study_of([run_of("a", *found)])
        assert study.on(Method("a", "deblurred"), PSNR, ["10", "1"]) == [10.0, 1.0]


class TestMetrics:
    def test_the_papers_are_first_in_its_order_then_ours_then_others(self) -> None:
        found = dict.fromkeys((OTHER, REBLURABILITY, SSIM, PSNR, NIQE, LPIPS), 1.0)
        assert study_of([run_of("a", record("1", "deblurred", found))]).variants == [
            LPIPS,
            NIQE,
            PSNR,
            SSIM,
            REBLURABILITY,
            OTHER,
        ]

    def test_the_papers_form_is_before_others(self) -> None:
        runs = [run_of("a", record("1", "deblurred", {OF_LUMA: 31.0})), run_of("b", record("1", "deblurred"))]
        study = study_of(runs)
        assert study.variants == [PSNR, OF_LUMA]
        assert study.metric("PSNR") == PSNR

    def test_without_the_papers_form_a_metric_is_the_first_one_found(self) -> None:
        cropped = Variant("PSNR", "Y, 8 bits, without 4 pixels at the edges", "higher")
        study = study_of([run_of("a", record("1", "deblurred", {OF_LUMA: 31.0, cropped: 32.0}))])
        assert study.metric("PSNR") == OF_LUMA
        assert study.metric("LPIPS") is None

    def test_forms_of_a_metric_have_values_of_their_own(self) -> None:
        study = study_of([run_of("a", record("1", "deblurred", {PSNR: 30.0, OF_LUMA: 31.0}))])
        method = Method("a", "deblurred")
        assert (study.values[method, PSNR], study.values[method, OF_LUMA]) == ({"1": 30.0}, {"1": 31.0})


class TestProblems:
    def test_runs_of_the_same_data_have_none(self) -> None:
        runs = [plain("a", "12", sharp="s", blurry="b"), plain("b", "12", sharp="s", blurry="b"), plain("c", "12")]
        assert study_of(runs).problems == []

    def test_other_sharp_pixels_under_one_name_are_named_and_left_out(self) -> None:
        other = run_of("b", record("1", "deblurred", pixels={"sharp": "t"}), record("2", "deblurred"))
        study = study_of([plain("a", "12", sharp="s"), other])
        assert of_other_data(study) == [
            "sharp images of b and a differ under one name (1): other data; those of b are left out"
        ]
        assert set(study.values[Method("b", "deblurred"), PSNR]) == {"2"}
        assert set(study.values[Method("a", "deblurred"), PSNR]) == {"1", "2"}

    def test_other_blurry_pixels_are_named_too(self) -> None:
        study = study_of([plain("a", "1", blurry="b", sharp="s"), plain("b", "1", blurry="c", sharp="t")])
        assert of_other_data(study) == [
            "blurry and sharp images of b and a differ under one name (1): other data; those of b are left out"
        ]
        assert study.methods == [Method("a", "deblurred")]

    def test_of_many_other_images_three_are_named_once(self) -> None:
        stages = [record(name, stage, pixels={"sharp": "t"}) for name in "12345" for stage in ("deblurred", "adapted")]
        study = study_of([plain("a", "12345", sharp="s"), run_of("b", *stages)])
        assert of_other_data(study) == [
            "sharp images of b and a differ under one name (1, 2, 3): other data; those of b are left out"
        ]

    def test_no_image_in_common_is_told(self) -> None:
        study = study_of([plain("a", "12"), plain("b", "34")])
        assert study.problems == ["b and a have no image in common: other data, not compared"]
        assert study.images == ["1", "2", "3", "4"]

    @pytest.mark.parametrize(("images", "shared"), [("23", 2), ("2345", 2), ("1234", 3)])
    def test_images_partly_in_common_are_counted(self, images: str, shared: int) -> None:
        assert study_of([plain("a", "123"), plain("b", images)]).problems == [
            f"b and a have {shared} images in common; differences are over these"
        ]

    def test_an_unfinished_run_is_told_and_shown(self) -> None:
        study = study_of([replace(plain("a", "1"), finished=False)])
        folder = Path("results") / "a"
        assert study.problems == [f"{folder}: unfinished; the images that it had finished are shown"]
        assert study.images == ["1"]

    def test_damaged_lines_are_told(self) -> None:
        folder = Path("results") / "a"
        assert study_of([replace(plain("a", "1"), torn=2)]).problems == [
            f"{folder}: damaged lines of records: 2; left out"
        ]

    def test_a_run_without_scores_is_told_and_compared_with_nothing(self) -> None:
        study = study_of([run_of("empty"), plain("a", "1"), plain("b", "1")])
        folder = Path("results") / "empty"
        assert study.problems == [f"{folder}: holds no scores; left out"]
        assert study.methods == [Method("a", "deblurred"), Method("b", "deblurred")]

    def test_an_image_left_out_says_nothing_of_the_others(self) -> None:
        first = plain("a", "1", sharp="s")
        other = plain("b", "1", blurry="x", sharp="t")
        same = plain("c", "1", blurry="y", sharp="s")
        study = study_of([first, other, same])
        assert study.methods == [Method("a", "deblurred"), Method("c", "deblurred")]

    def test_images_left_out_are_not_in_common(self) -> None:
        other = run_of("b", record("1", "deblurred", pixels={"sharp": "t"}), record("2", "deblurred"))
        problems = study_of([plain("a", "123", sharp="s"), other]).problems
        assert "b and a have 1 image in common; differences are over these" in problems


class TestLabels:
    STAGES = ("blurry", "deblurred", "adapted_1", "adapted", "reblurred", "unchanged")

    def test_of_one_run_they_are_the_stages(self) -> None:
        study = study_of([run_of("a", *(record("1", stage) for stage in self.STAGES))])
        assert [study.label(one) for one in study.methods] == [
            "blurry",
            "deblurred",
            "adapted 1",
            "adapted",
            "reblurred (against blurry)",
            "deblurred (against blurry)",
        ]

    def test_of_several_runs_they_begin_with_the_run(self) -> None:
        study = study_of([run_of("a", *(record("1", stage) for stage in self.STAGES)), plain("b", "1")])
        assert [study.label(one) for one in study.methods] == [
            "blurry",
            "a deblurred",
            "a adapted 1",
            "a adapted",
            "a reblurred (against blurry)",
            "a deblurred (against blurry)",
            "b deblurred",
        ]

    def test_a_folder_with_one_stage_is_called_as_its_run(self) -> None:
        alone = study_of([plain("mprnet", "1", "result")])
        among = study_of([plain("mprnet", "1", "result"), plain("a", "1")])
        assert [alone.label(one) for one in alone.methods] == ["mprnet"]
        assert [among.label(one) for one in among.methods] == ["mprnet", "a deblurred"]
