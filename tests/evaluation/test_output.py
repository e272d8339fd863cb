"""What is logged, drawn and written of scores that are given by hand."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin.evaluation import output
from reblur_plugin.evaluation.scores import Scores, TraceRow


@pytest.fixture
def scores() -> Scores:
    """Two images that were adapted in two steps, of which the first wasn't scored."""
    stages = {"deblurred": {"psnr": 20.0, "niqe": math.nan}, "adapted": {"psnr": 21.5, "niqe": math.nan}}
    trace = [
        TraceRow(0, "deblurred", 0.5, 0.0, 0.0),
        TraceRow(1, "adapted_1", 0.25, 0.125, 0.25),
        TraceRow(2, "adapted", None, 0.25, 0.5),
    ]
    return Scores({f"SEQ/{i}": stages for i in (0, 1)}, {f"SEQ/{i}": trace for i in (0, 1)}, blur_kind="linear")


def rows(path: Path) -> list[list[str]]:
    with path.open() as file:
        return list(csv.reader(file))


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What BasicSR's logger is told."""
    from basicsr.utils import get_root_logger

    logger, lines = get_root_logger(), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


class TestTables:
    def test_a_row_for_each_image_and_stage(self, scores: Scores, tmp_path: Path) -> None:
        output.write_tables("first", scores, ["psnr", "ssim"], tmp_path)
        assert rows(tmp_path / "first.csv") == [
            ["image", "stage", "psnr", "ssim", "blur_kind"],
            *([f"SEQ/{i}", *row, "", "linear"] for i in (0, 1) for row in (["deblurred", "20.0"], ["adapted", "21.5"])),
        ]

    def test_a_row_for_each_step_with_scores_where_it_was_scored(self, scores: Scores, tmp_path: Path) -> None:
        output.write_tables("first", scores, ["psnr"], tmp_path)
        header, *found = rows(tmp_path / "first_trace.csv")
        assert header == ["image", "step", "loss", "change", "seconds", "psnr"]
        assert found[3:] == [
            ["SEQ/1", "0", "0.5", "0.0", "0.000", "20.0"],
            ["SEQ/1", "1", "0.25", "0.125", "0.250", ""],
            ["SEQ/1", "2", "", "0.25", "0.500", "21.5"],
        ]

    def test_what_is_empty_isnt_written(self, scores: Scores, tmp_path: Path) -> None:
        output.write_tables("first", scores, [], tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["first_trace.csv"]
        scores.traces = {name: [] for name in scores.traces}
        output.write_tables("second", scores, ["psnr"], tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"first_trace.csv", "second.csv"}


class TestMeans:
    def test_images_without_a_value_dont_count(self) -> None:
        values = {"a": 2.0, "b": math.nan, "c": 4.0}
        scores = Scores({name: {"deblurred": {"niqe": value}} for name, value in values.items()})
        scores.images["d"] = {"deblurred": {}}
        assert scores.mean("deblurred", "niqe") == 3.0
        assert math.isnan(Scores({"b": {"deblurred": {"niqe": math.nan}}}).mean("deblurred", "niqe"))

    def test_the_table_has_the_columns_that_exist_and_a_dash_where_there_is_no_value(self) -> None:
        scores = Scores({"a": {"deblurred": {"niqe": 5.0}, "adapted_1": {"niqe": math.nan}, "reblurred": {"psnr": 30}}})
        assert scores.table().splitlines() == [
            "             niqe     psnr",
            "deblurred  5.0000        -",
            "adapted_1       -        -",
            "reblurred       -  30.0000",
        ]


class TestLog:
    def test_the_means_come_with_the_best_so_far(self, scores: Scores, said: list[str]) -> None:
        best = {"psnr": {"val": 22.0, "iter": 40}, "niqe": {"val": 3.14159, "iter": "x"}}
        output.log_means("first", scores, best, ["psnr", "niqe"])
        assert said == [
            f"first, 2 images, blur kind linear\n{scores.table()}\nBest: psnr 22.0000 @ 40, niqe 3.1416 @ x"
        ]

    def test_without_best_and_kind_they_come_alone(self, scores: Scores, said: list[str]) -> None:
        scores.blur_kind = ""
        output.log_means("first", scores, {}, ["psnr"])
        assert said == [f"first, 2 images\n{scores.table()}"]

    def test_without_metrics_there_are_no_means(self, scores: Scores, said: list[str]) -> None:
        output.log_means("first", scores, {}, [])
        assert said == []

    @pytest.mark.parametrize(("count", "lines"), [(2, 2), (7, 6)])
    def test_images_that_stay_unadapted_are_told(self, said: list[str], count: int, lines: int) -> None:
        reasons = {f"SEQ/{i}": "nan or infinity after step 2" for i in range(count)}
        output.log_means("first", Scores(fallbacks=reasons), {}, [])
        assert said[0] == "first: SEQ/0 stays unadapted: nan or infinity after step 2"
        assert len(said) == lines
        assert count < 6 or said[-1] == "first: 7 images stay unadapted"


def test_curves_have_each_stage_under_its_name_and_no_nan(scores: Scores) -> None:
    drawn: dict[str, tuple[float, Any]] = {}

    class Recorder:
        """Stands in for TensorBoard's writer."""

        def add_scalar(self, name: str, value: float, step: Any) -> None:
            drawn[name] = (value, step)

    output.add_to_curves("first", scores, 40, Recorder())
    assert drawn == {"metrics/first/psnr": (20.0, 40), "metrics/first/psnr_adapted": (21.5, 40)}
