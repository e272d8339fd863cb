"""The tables of a report, from few images whose means, intervals and differences are worked out by hand.

Of two or three images the interval's ends are the extreme values: all draws are one image with a chance of 1/4 or 1/27,
above 2.5 %.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from reblur_plugin.evaluation.records import Record, Run, Score
from reblur_plugin.evaluation.variants import Variant
from reblur_plugin.report.contents import (
    all_tables,
    decimals,
    differences,
    images,
    inverse_relation,
    paper_table,
    scores,
)
from reblur_plugin.report.published import TABLES
from reblur_plugin.report.study import Study, study_of
from reblur_plugin.report.tables import Cell, Table

LPIPS = Variant("LPIPS", "AlexNet, v0.1", "lower")
NIQE = Variant("NIQE", "original parameters, luma", "lower")
PSNR = Variant("PSNR", "RGB, 8 bits", "higher")
SSIM = Variant("SSIM", "Gaussian 11x11, each channel", "higher")
OF_LUMA = Variant("PSNR", "Y, 8 bits", "higher")
Stages = dict[str, dict[Variant, list[float]]]  # values of images 1, 2, ...; nan has no score


def run_of(name: str, stages: Stages, blur_kind: str = "", first: int = 1) -> Run:
    """Return a run with a record for each stage and image; images are numbered from `first`."""
    records = []
    for stage, metrics in stages.items():
        for number in range(max(map(len, metrics.values()))):
            found = {metric.label: Score(values[number], metric) for metric, values in metrics.items()}
            known = {label: score for label, score in found.items() if not math.isnan(score.value)}
            records.append(Record(name, "set", str(first + number), stage, known, blur_kind=blur_kind))
    return Run(Path("results") / name, name, records, {}, True)


def of_psnr(name: str, first: int = 1, **stages: list[float]) -> Run:
    return run_of(name, {stage: {PSNR: values} for stage, values in stages.items()}, first=first)


def texts(table: Table) -> list[list[str]]:
    return [[cell.text for cell in row] for row in table.rows]


def bold(table: Table) -> list[list[bool]]:
    return [[cell.best for cell in row] for row in table.rows]


def column(table: Table, name: str) -> list[Cell]:
    return [row[table.header.index(name)] for row in table.rows]


@pytest.mark.parametrize(
    ("metric", "places"), [("LPIPS", 4), ("NIQE", 3), ("PSNR", 2), ("SSIM", 4), ("reblurability", 3), ("musiq", 4)]
)
def test_people_are_shown_as_many_decimals_as_in_the_paper(metric: str, places: int) -> None:
    assert decimals(Variant(metric, "", "lower")) == places


class TestScores:
    @pytest.fixture
    def study(self) -> Study:
        blurry = {PSNR: [20.0, 24.0], LPIPS: [0.3, 0.5]}
        stages = {"blurry": blurry, "deblurred": {PSNR: [30.0, 31.0], LPIPS: [0.125, 0.25]}}
        return study_of([run_of("a", stages)])

    def test_means_have_intervals_and_the_best_ones_are_bold_by_direction(self, study: Study) -> None:
        table = scores(study)
        assert table.header == ["method", "images", "LPIPS ↓", "PSNR ↑"]
        assert texts(table) == [
            ["blurry", "2", "0.4000 [0.3000, 0.5000]", "22.00 [20.00, 24.00]"],
            ["deblurred", "2", "0.1875 [0.1250, 0.2500]", "30.50 [30.00, 31.00]"],
        ]
        assert bold(table) == [[False] * 4, [False, False, True, True]]
        assert [[cell.number for cell in row] for row in table.rows] == [
            [None, 2, 0.4, 22.0],
            [None, 2, 0.1875, 30.5],
        ]

    def test_equal_ones_are_both_the_best(self) -> None:
        study = study_of([of_psnr("a", deblurred=[30.0, 32.0]), of_psnr("b", deblurred=[31.0, 31.0])])
        assert [cell.best for cell in column(scores(study), "PSNR ↑")] == [True, True]

    def test_a_single_method_is_no_best_one(self) -> None:
        study = study_of([of_psnr("a", deblurred=[30.0])])
        assert column(scores(study), "PSNR ↑") == [Cell("30.00", 30.0)]

    def test_what_is_not_finite_is_left_out(self) -> None:
        study = study_of([of_psnr("a", blurry=[math.inf, 20.0, 22.0], deblurred=[math.inf])])
        assert texts(scores(study)) == [["blurry", "2", "21.00 [20.00, 22.00]"], ["deblurred", "0", ""]]

    def test_what_is_reblurred_is_no_result(self) -> None:
        first = of_psnr("a", deblurred=[30.0], reblurred=[40.0], unchanged=[29.0])
        table = scores(study_of([first, of_psnr("b", deblurred=[31.0])]))
        assert texts(table) == [["a deblurred", "1", "30.00"], ["b deblurred", "1", "31.00"]]
        # 40 is no result to be better than
        assert [cell.best for cell in column(table, "PSNR ↑")] == [False, True]

    def test_other_numbers_of_images_are_noted(self, study: Study) -> None:
        warning = "Methods have different images: compare them by the paired differences."
        other = study_of([of_psnr("a", deblurred=[30.0, 31.0]), of_psnr("b", deblurred=[30.0])])
        assert warning in scores(other).notes
        assert warning not in scores(study).notes


class TestDifferences:
    def test_they_are_by_image_within_runs_to_the_input_and_to_the_first_run(self) -> None:
        first = of_psnr("a", blurry=[20.0, 21.0], deblurred=[30.0, 32.0], adapted=[30.5, 31.0])
        study = study_of([first, of_psnr("b", deblurred=[31.0, 34.0])])
        table = differences(study)
        assert table.header == ["method", "against", "PSNR ↑"]
        assert texts(table) == [
            ["a adapted", "a deblurred", "-0.25 [-1.00, +0.50] 1/2"],  # 0.5, -1
            ["a deblurred", "blurry", "+10.50 [+10.00, +11.00] 2/2"],  # 10, 11
            ["b deblurred", "blurry", "+12.00 [+11.00, +13.00] 2/2"],  # 11, 13
            ["b deblurred", "a deblurred", "+1.50 [+1.00, +2.00] 2/2"],  # 1, 2
        ]
        assert [cell.number for cell in column(table, "PSNR ↑")] == [-0.25, 10.5, 12.0, 1.5]
        # the interval leaves zero out
        assert [cell.best for cell in column(table, "PSNR ↑")] == [False, True, True, True]

    def test_where_lower_is_better_a_fall_counts(self) -> None:
        stages = {"deblurred": {LPIPS: [0.25, 0.25, 0.5]}, "adapted": {LPIPS: [0.125, 0.125, 0.75]}}
        # changes -1/8, -1/8, 1/4
        study = study_of([run_of("a", stages)])
        assert texts(differences(study)) == [["adapted", "deblurred", "+0.0000 [-0.1250, +0.2500] 2/3"]]

    def test_each_step_of_adaptation_is_against_deblurred(self) -> None:
        study = study_of([of_psnr("a", adapted_1=[30.5], adapted=[31.0], deblurred=[30.0])])
        # one image has no interval, so that nothing is clear
        assert texts(differences(study)) == [
            ["adapted 1", "deblurred", "+0.50 1/1"],
            ["adapted", "deblurred", "+1.00 1/1"],
        ]
        assert not any(cell.best for row in differences(study).rows for cell in row)

    def test_they_are_over_images_that_both_have(self) -> None:
        study = study_of(
            [of_psnr("a", deblurred=[10.0, 30.0, math.inf, 31.0]), of_psnr("b", first=2, deblurred=[32.0, 30.0, 32.0])]
        )
        # b begins with image 2: 32 - 30, none, 32 - 31
        assert texts(differences(study)) == [["b deblurred", "a deblurred", "+1.50 [+1.00, +2.00] 2/2"]]

    def test_runs_of_other_images_have_none(self) -> None:
        study = study_of([of_psnr("a", deblurred=[30.0]), of_psnr("b", first=2, deblurred=[31.0])])
        assert differences(study).rows == []

    def test_a_run_without_deblurred_is_compared_by_its_first_stage(self) -> None:
        study = study_of([of_psnr("a", deblurred=[30.0]), of_psnr("other", result=[31.0])])
        assert texts(differences(study)) == [["other", "a deblurred", "+1.00 1/1"]]

    def test_a_metric_that_one_of_them_lacks_is_empty(self) -> None:
        stages = {"deblurred": {PSNR: [30.0], LPIPS: [0.25]}, "adapted": {PSNR: [31.0]}}
        study = study_of([run_of("a", stages)])
        assert texts(differences(study)) == [["adapted", "deblurred", "", "+1.00 1/1"]]


# Table 6, SRN n2, without adaptation and after 5 steps: what the paper has, our mean, ours less the paper's
OURS: Stages = {
    "deblurred": {LPIPS: [0.125, 0.1], NIQE: [5.0, 5.5], PSNR: [30.0, 31.0], SSIM: [0.90625, 0.9375]},
    "adapted": {LPIPS: [0.125, 0.125], NIQE: [4.5, 4.75], PSNR: [30.25, 30.25], SSIM: [0.90625, 0.9375]},
}
BESIDE_DEBLURRED = [".1037", "0.1125", "+0.0088", "4.887", "5.250", "+0.363"]
BESIDE_DEBLURRED += ["30.57", "30.50", "-0.07", ".9074", "0.9219", "+0.0145"]
BESIDE_ADAPTED = [".0983", "0.1250", "+0.0267", "4.730", "4.625", "-0.105"]
BESIDE_ADAPTED += ["30.44", "30.25", "-0.19", ".9067", "0.9219", "+0.0152"]


class TestPaperTable:
    @pytest.fixture
    def study(self) -> Study:
        return study_of([run_of("gopro_srn_n2_tta", OURS, "blur_gamma")])

    def table(self, study: Study, number: str) -> Table:
        found = paper_table(study, number)
        assert found is not None
        return found

    @pytest.mark.parametrize(
        ("number", "place", "label"),
        [("2", 5, "L1 + Reblur n2"), ("6", 8, "L1 + Reblur n2"), ("S4", 7, "L1 + Reblur n2")],
    )
    def test_a_test_fills_its_row_in_each_table(self, study: Study, number: str, place: int, label: str) -> None:
        table = self.table(study, number)
        assert texts(table)[place] == ["SRN", label, *BESIDE_DEBLURRED]

    def test_adaptation_fills_the_next_row_of_table_6(self, study: Study) -> None:
        table = self.table(study, "6")
        assert texts(table)[9] == ["SRN", "L1 + Reblur n2, 5 steps †", *BESIDE_ADAPTED]
        assert len(table.rows) == 14

    def test_other_rows_have_the_papers_numbers_alone(self, study: Study) -> None:
        first = [".1635", "", "", "5.996", "", "", "29.66", "", "", ".8874", "", ""]
        assert texts(self.table(study, "2"))[0] == ["U-Net", "L1", *first]
        filled = [row[1] for row in texts(self.table(study, "6")) if row[3]]
        assert filled == ["L1 + Reblur n2", "L1 + Reblur n2, 5 steps †"]

    def test_numbers_are_in_full(self, study: Study) -> None:
        row = self.table(study, "6").rows[9]
        # 4.625 - 4.73
        assert [cell.number for cell in row[5:8]] == pytest.approx([4.73, 4.625, -0.105], rel=1e-12)

    def test_each_metric_has_three_columns(self, study: Study) -> None:
        table = self.table(study, "2")
        metrics = ["LPIPS", "LPIPS ours", "LPIPS difference", "NIQE", "NIQE ours", "NIQE difference"]
        metrics += ["PSNR", "PSNR ours", "PSNR difference", "SSIM", "SSIM ours", "SSIM difference"]
        assert table.header == ["M_D", "row", *metrics]
        assert table.name == "table_2"
        assert table.title == "Table 2: L_Reblur on GOPRO"

    def test_what_v1_lost_says_so_and_has_no_difference(self) -> None:
        run = of_psnr("gopro_dhn_n2_tta", adapted=[31.0, 31.5])
        table = self.table(study_of([run]), "6")
        lost = ["lost", "", ""]
        assert texts(table)[13] == ["DHN", "L1 + Reblur n2, 5 steps †", *lost, *lost, "lost", "31.25", "", *lost]
        assert [cell.number for cell in table.rows[13][8:11]] == [None, 31.25, None]

    @pytest.mark.parametrize("number", sorted(set(TABLES) - {"2", "5", "6", "S4"}))
    def test_a_table_without_a_run_is_none(self, study: Study, number: str) -> None:
        assert paper_table(study, number) is None

    def test_a_run_of_another_name_or_stage_fills_none(self) -> None:
        study = study_of([of_psnr("mine", deblurred=[30.0]), of_psnr("gopro_srn_n2_tta", adapted_3=[30.0])])
        assert [number for number in TABLES if paper_table(study, number)] == []

    def test_table_1_has_psnr_and_what_is_reblurred(self) -> None:
        run = of_psnr("gopro_reblur_on_unet8_test", reblurred=[32.0, 33.0], unchanged=[30.0, 30.0])
        table = self.table(study_of([run]), "1")
        assert table.header == ["", "row", "PSNR", "PSNR ours", "PSNR difference"]
        assert texts(table)[5] == ["reblurring", "8 ResBlocks", "32.66", "32.50", "-0.16"]

    def test_notes_say_how_many_images_of_which_blur(self, study: Study) -> None:
        assert self.table(study, "2").notes == [
            "gopro_srn_n2_tta: 2 images of kind blur_gamma; the paper's are 1111.",
        ]

    def test_notes_of_reds_have_its_number_and_no_kind_if_there_is_none(self) -> None:
        study = study_of([of_psnr("reds_srn_vgg_test", deblurred=[30.0, 31.0, 32.0]), of_psnr("mine", deblurred=[1.0])])
        assert self.table(study, "S6").notes == ["reds_srn_vgg_test: 3 images; the paper's are 3000."]

    def test_notes_explain_marked_rows(self, study: Study) -> None:
        notes = self.table(study, "6").notes
        assert "† labels of v1 shifted by a row: SRN: L1 + Reblur n1, 1 step; SRN: L1 + Reblur n1, 3 steps." in notes
        assert "† label of v1 misplaced: SRN: L1 + Reblur n2, 5 steps." in notes

    def test_notes_say_that_a_metric_has_another_form(self) -> None:
        study = study_of([run_of("gopro_srn_n2_tta", {"deblurred": {OF_LUMA: [32.0], LPIPS: [0.1]}})])
        notes = self.table(study, "2").notes
        assert [line for line in notes if line.startswith("Ours")] == [
            "Ours is PSNR (Y, 8 bits); the paper's is taken to be RGB, 8 bits."
        ]

    def test_the_papers_form_is_the_one_in_the_table(self) -> None:
        study = study_of([run_of("gopro_srn_n2_tta", {"deblurred": {OF_LUMA: [32.0], PSNR: [30.5]}})])
        table = self.table(study, "2")
        assert texts(table)[5][8:11] == ["30.57", "30.50", "-0.07"]
        assert not any(line.startswith("Ours") for line in table.notes)


class TestInverseRelation:
    def table(self, *runs: Run) -> Table:
        found = inverse_relation(study_of(runs))
        assert found is not None
        return found

    def test_it_has_the_gain_of_the_reblurring_network_by_rising_quality(self) -> None:
        better = of_psnr("a", deblurred=[31.0, 32.0], reblurred=[32.0, 33.0], unchanged=[30.0, 30.0])
        worse = of_psnr("b", deblurred=[28.0, 30.0], reblurred=[34.0, 34.0], unchanged=[25.0, 27.0])
        table = self.table(better, worse)
        assert table.header == ["run", "PSNR(L, S)", "PSNR(M_R(L), B)", "PSNR(L, B)", "gain of M_R"]
        # means, and 34 - 26, 32.5 - 30
        assert texts(table) == [
            ["b", "29.00", "34.00", "26.00", "8.00"],
            ["a", "31.50", "32.50", "30.00", "2.50"],
        ]
        assert [[cell.number for cell in row[1:]] for row in table.rows] == [
            [29.0, 34.0, 26.0, 8.0],
            [31.5, 32.5, 30.0, 2.5],
        ]

    def test_it_has_runs_that_reblur_only(self) -> None:
        table = self.table(of_psnr("a", deblurred=[31.0], reblurred=[32.0]), of_psnr("b", deblurred=[30.0]))
        # nothing compares L with B
        assert texts(table) == [["a", "31.00", "32.00", "-", "-"]]

    def test_without_a_run_that_reblurs_there_is_none(self) -> None:
        assert inverse_relation(study_of([of_psnr("a", deblurred=[31.0])])) is None

    def test_without_psnr_there_is_none(self) -> None:
        study = study_of([run_of("a", {"deblurred": {SSIM: [0.9]}, "reblurred": {SSIM: [0.9]}})])
        assert inverse_relation(study) is None

    def test_runs_are_in_order_though_one_has_no_sharp_images(self) -> None:
        table = self.table(
            of_psnr("a", deblurred=[31.0], reblurred=[32.0]),
            of_psnr("unknown", reblurred=[33.0]),
            of_psnr("b", deblurred=[29.0], reblurred=[34.0]),
        )
        assert [row[0] for row in texts(table) if row[0] != "unknown"] == ["b", "a"]


class TestImages:
    def test_they_have_the_value_before_and_the_change_in_order(self) -> None:
        stages = {
            "deblurred": {PSNR: [30.0, 31.0], LPIPS: [0.25, 0.25]},
            "adapted_1": {PSNR: [10.0, 10.0], LPIPS: [0.9, 0.9]},
            "adapted": {PSNR: [30.5, 30.0], LPIPS: [0.375, 0.125]},
        }
        table = images(study_of([run_of("a", stages, first=9)]))
        assert table.header == ["run", "image", "LPIPS ↓", "PSNR ↑"]
        assert texts(table) == [
            ["a", "9", "0.2500 +0.1250", "30.00 +0.50"],
            ["a", "10", "0.2500 -0.1250", "31.00 -1.00"],
        ]
        # bold: it helps
        assert bold(table) == [[False, False, False, True], [False, False, True, False]]
        assert [[cell.number for cell in row[2:]] for row in table.rows] == [[0.125, 0.5], [-0.125, -1.0]]

    def test_no_change_is_no_help(self) -> None:
        table = images(study_of([of_psnr("a", deblurred=[30.0], adapted=[30.0])]))
        assert column(table, "PSNR ↑") == [Cell("30.00 +0.00", 0.0)]

    def test_an_image_without_both_values_is_left_out(self) -> None:
        study = study_of(
            [of_psnr("a", deblurred=[30.0, 31.0, math.inf], adapted=[31.0, math.nan, math.inf]), of_psnr("b", x=[1.0])]
        )
        assert texts(images(study)) == [["a", "1", "30.00 +1.00"]]

    def test_each_run_that_adapts_has_its_own(self) -> None:
        runs = [of_psnr("a", deblurred=[30.0], adapted=[31.0]), of_psnr("b", deblurred=[30.0])]
        runs.append(of_psnr("c", first=2, deblurred=[30.0], adapted=[29.0]))
        assert texts(images(study_of(runs))) == [["a", "1", "30.00 +1.00"], ["c", "2", "30.00 -1.00"]]


class TestAllTables:
    def test_they_are_those_with_something_to_show(self) -> None:
        assert [table.name for table in all_tables(study_of([of_psnr("mine", deblurred=[30.0])]))] == ["scores"]

    def test_they_are_in_the_order_of_a_report(self) -> None:
        run = of_psnr(
            "gopro_srn_n2_tta", blurry=[25.0], deblurred=[30.0], adapted=[31.0], reblurred=[26.0], unchanged=[25.5]
        )
        assert [table.name for table in all_tables(study_of([run]))] == [
            "scores",
            "differences",
            "table_2",
            "table_5",
            "table_6",
            "table_S4",
            "inverse_relation",
            "images",
        ]


class TestHeadings:
    def test_forms_are_named_where_there_are_several_of_a_metric(self) -> None:
        study = study_of([run_of("a", {"deblurred": {PSNR: [30.0], OF_LUMA: [32.0], LPIPS: [0.1]}})])
        assert scores(study).header[2:] == ["LPIPS ↓", "PSNR (RGB, 8 bits) ↑", "PSNR (Y, 8 bits) ↑"]

    @pytest.mark.parametrize(("images", "few"), [(19, True), (20, False)])
    def test_intervals_of_few_images_are_said_to_be_too_narrow(self, images: int, few: bool) -> None:
        study = study_of([of_psnr("a", deblurred=[30.0 + number for number in range(images)])])
        assert ("Of so few images, bootstrap intervals are too narrow." in scores(study).notes) is few


def test_a_folder_of_pictures_fills_the_row_of_its_label() -> None:
    table = paper_table(study_of([run_of("gopro_srn_l1_test", {"result": {PSNR: [30.0, 31.0]}})]), "2")
    assert table is not None
    (row,) = [row for row in texts(table) if row[:2] == ["SRN", "L1"]]
    assert "30.50" in row
    assert "-0.12" in row  # from 30.62
