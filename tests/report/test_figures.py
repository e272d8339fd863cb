"""Figures show the numbers of the runs; sheets show where methods differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reblur_plugin.evaluation.records import read_runs
from reblur_plugin.evaluation.scores import DEBLURRED, REBLURRED, UNCHANGED
from reblur_plugin.report import figures, sheets
from reblur_plugin.report.study import Study, study_of


@pytest.fixture
def study(make_run: Any, tmp_path: Path) -> Study:
    runs = make_run(tmp_path / "a", "first"), make_run(tmp_path / "b", "second", shift=1.0)
    return study_of([read_runs(run)[0] for run in runs])


def curves(axes: Any) -> dict[str, tuple[list[float], list[float]]]:
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.get_lines()
        if not line.get_label().startswith("_")
    }


class TestTradeOff:
    def test_is_a_curve_of_means_over_the_steps(self, study: Study) -> None:
        figure = figures.tradeoff(study)
        assert figure is not None
        found = curves(figure.axes[0])
        assert set(found) == {"first", "second"}
        # PSNR 25, 26, 27, less .1 a step; LPIPS .30, .31, .32: two images gain .01 a step, one loses it
        assert found["first"][0] == pytest.approx([26.0, 25.9, 25.8])
        assert found["first"][1] == pytest.approx([0.31, 0.31 - 0.01 / 3, 0.31 - 0.02 / 3])
        assert found["second"][0] == pytest.approx([27.0, 26.9, 26.8])
        assert figure.axes[0].yaxis_inverted()  # lower is better, and up is better

    def test_needs_psnr(self, study: Study) -> None:
        study.variants = [one for one in study.variants if one.metric != "PSNR"]
        assert figures.tradeoff(study) is None


class TestInverseRelation:
    def test_is_drawn_of_runs_that_reblur_with_the_papers_beside(self, study: Study) -> None:
        assert figures.inverse_relation(study) is None
        psnr = study.metric("PSNR")
        assert psnr is not None
        for run, (reblurred, unchanged) in {"first": (40.0, 35.0), "second": (38.0, 33.0)}.items():
            base = next(one for one in study.methods if (one.run, one.stage) == (run, DEBLURRED))
            for stage, value in ((REBLURRED, reblurred), (UNCHANGED, unchanged)):
                method = type(base)(run, stage)
                study.methods.append(method)
                study.values[method, psnr] = {"SEQ_0/000000": value}
        figure = figures.inverse_relation(study)
        assert figure is not None
        ours, paper = (curves(axes) for axes in figure.axes)
        assert ours == {"M_R(L)": ([26.0, 27.0], [40.0, 38.0]), "L itself": ([26.0, 27.0], [35.0, 33.0])}
        # Table 1
        assert paper == {"M_R(L)": ([28.17, 29.67, 30.78, 31.48], [34.29, 32.66, 31.90, 31.48])}


def test_the_gain_of_each_image_is_filled_where_it_helps(study: Study) -> None:
    figure = figures.gain(study)
    assert figure is not None
    lpips = figure.axes[0].collections[0]
    assert list(lpips.get_offsets().data[:, 1]) == pytest.approx([-0.02, -0.02, 0.02])
    filled = [tuple(colour[:3]) != (1, 1, 1) for colour in lpips.get_facecolors()]
    assert filled == [True, True, False]


def test_the_same_figure_is_the_same_file(study: Study, tmp_path: Path) -> None:
    for name in ("one", "two"):
        figure = figures.tradeoff(study)
        assert figure is not None
        figures.save(figure, tmp_path / name)
    for suffix in ("pdf", "png"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


class TestCrops:
    @pytest.mark.parametrize(("top", "left"), [(0, 0), (40, 200), (150, 250), (100, 120)])
    def test_are_where_pictures_differ(self, rng: np.random.Generator, top: int, left: int) -> None:
        first = rng.integers(0, 256, (200, 320, 3), dtype=np.uint8)
        second = first.copy()
        second[top : top + 40, left : left + 60] //= 2
        window = sheets.where_they_differ([first, second])
        assert (window.height, window.width) == (48, 64)
        assert window.top <= top + 4
        assert window.top + window.height >= min(top + 40, 200) - 4
        assert window.left <= left + 4
        assert window.left + window.width >= min(left + 60, 320) - 4

    @pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (65, 64)])
    def test_fit_into_images_of_any_size(self, size: tuple[int, int]) -> None:
        window = sheets.where_they_differ([np.zeros((*size, 3), np.uint8), np.ones((*size, 3), np.uint8)])
        assert window.of(np.zeros((*size, 3), np.uint8)).shape[:2] == (window.height, window.width)

    def test_are_of_the_images_whose_scores_differ_most(self, study: Study) -> None:
        lpips = study.metric("LPIPS")
        assert lpips is not None
        adapted = next(one for one in study.methods if one.stage == "adapted")
        study.values[adapted, lpips]["SEQ_1/000001"] = 0.9
        assert sheets.choose_images(study, 2)[0] == "SEQ_1/000001"
        assert len(sheets.choose_images(study, 2)) == 2

    def test_a_sheet_has_a_row_an_image_and_a_column_a_method(self, study: Study) -> None:
        figure = sheets.contact_sheet(study, 2)
        assert figure is not None
        assert len(figure.axes) == 2 * (1 + 6)  # whole; blurry, twice deblurred and adapted, sharp
        titles = [axes.get_title().replace("\n", "") for axes in figure.axes[1:7]]
        assert titles[0] == "blurry"
        assert titles[-1] == "sharp"


def test_the_kernel_of_the_sharp_picture_is_a_point_and_of_the_others_their_blur(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "first", images=1, height=160, width=200)
    study = study_of(read_runs(run))
    found = sheets.pictures_of(study, study.images[0], sheets.choose_methods(study))
    shown = sheets._with_kernels(found, found["sharp"])
    insets = {label: picture[-40:, -40:, 0] for label, picture in shown.items()}  # a quarter of 160
    bright = {label: int((inset[1:-1, 1:-1] > 64).sum()) for label, inset in insets.items()}
    assert bright["sharp"] < bright["deblurred"]  # 1 pixel wide, 7 wide
    assert bright["sharp"] < bright["blurry"]
    assert cv2.countNonZero(insets["sharp"]) > 0
