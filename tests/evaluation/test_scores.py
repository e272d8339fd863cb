"""Means of scores: what isn't a finite number is left out, and told."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

from reblur_plugin.evaluation import output
from reblur_plugin.evaluation.scores import Scores


@pytest.fixture
def scores() -> Scores:
    """Scores of three images, the first of them equal to its sharp one as it was photographed."""
    return Scores(
        {
            "a": {"blurry": {"psnr": math.inf, "ssim": 1.0}, "deblurred": {"psnr": 40.0, "ssim": 0.9}},
            "b": {"blurry": {"psnr": 20.0, "ssim": 0.5}, "deblurred": {"psnr": 30.0, "ssim": 0.7}},
            "c": {"blurry": {"psnr": 24.0, "ssim": 0.6}, "deblurred": {"psnr": math.nan, "ssim": 0.8}},
        }
    )


def test_means_are_of_finite_numbers(scores: Scores) -> None:
    assert scores.mean("blurry", "psnr") == 22.0
    assert scores.mean("deblurred", "psnr") == 35.0
    assert scores.mean("blurry", "ssim") == pytest.approx(0.7)


def test_a_set_of_equal_images_has_no_mean() -> None:
    scores = Scores({"a": {"deblurred": {"psnr": math.inf}}})
    assert math.isnan(scores.mean("deblurred", "psnr"))
    assert scores.table().split() == ["psnr", "deblurred", "-"]


def test_what_is_left_out_is_told(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    logger = SimpleNamespace(warning=told.append, info=lambda _: None)
    monkeypatch.setattr(output, "get_root_logger", lambda: logger)
    output.log_means("tiny", scores, {}, ["psnr", "ssim"])
    assert told == [
        "tiny: psnr is infinite for 1 of 3 images, such as a: equal to the sharp one; left out of the means"
    ]


def test_the_table_of_images_has_them(scores: Scores, tmp_path: Path) -> None:
    scores.write_csv(tmp_path / "tiny.csv", ["psnr"])
    rows = list(csv.DictReader((tmp_path / "tiny.csv").open()))
    assert [row["psnr"] for row in rows if row["image"] == "a"] == ["inf", "40.0"]
