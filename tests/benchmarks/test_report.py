"""Ratios of a benchmark's report, worked out by hand; its JSON and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.report import Case, Results, Row, Spread
from reblur_plugin.files import FileError


@pytest.fixture
def case() -> Case:
    """Ours takes 1/2, 3/4, 1/2, 1/4 and 1 of the plain form's seconds; the machine slows down in the last rounds."""
    plain = Row("plain", [2.0, 4.0, 2.0, 8.0, 20.0], peak_bytes=400 * 2**20, flops=8e12)
    ours = Row("ours", [1.0, 3.0, 1.0, 2.0, 20.0], peak_bytes=300 * 2**20, flops=6e12, values={"difference": 1e-6})
    return Case("U-Net", "plain", [plain, ours], {"layout": "contiguous"}, matmul_rate=6e12)


def test_ratios_are_taken_round_by_round(case: Case) -> None:
    # of .25 .5 .5 .75 1; the ratio of the medians would be 2/4 as well, that of the means 27/36
    assert case.time_ratio("ours") == Spread(median=0.5, low=0.5, high=0.75)
    assert case.time_ratio("plain") == Spread(1, 1, 1)


def test_the_median_of_ratios_is_no_ratio_of_medians() -> None:
    # medians 3 and 4, ratios 1, 3/4, 1/8
    case = Case("x", "plain", [Row("plain", [1.0, 4.0, 24.0]), Row("ours", [1.0, 3.0, 3.0])])
    assert case.time_ratio("ours").median == 0.75
    case = Case("x", "plain", [Row("plain", [1.0, 4.0, 24.0]), Row("ours", [2.0, 1.0, 12.0])])
    assert case.time_ratio("ours").median == 0.5  # of 2, 1/4, 1/2; medians 2 and 4 as well
    case = Case("x", "plain", [Row("plain", [1.0, 2.0, 3.0]), Row("ours", [3.0, 1.0, 3.0])])
    assert case.time_ratio("ours").median == 1  # of 3, 1/2, 1; medians 3 and 2


def test_rows_of_different_lengths_are_no_pairs() -> None:
    case = Case("x", "plain", [Row("plain", [1.0, 2.0]), Row("ours", [1.0])])
    with pytest.raises(ValueError, match="longer"):
        case.time_ratio("ours")


def test_memory_floor_and_rate(case: Case) -> None:
    assert case.memory_ratio("ours") == 0.75
    assert case.floor("ours") == 0.75
    assert case.row("ours").rate == 3e12  # 6e12 in a median of 2 s
    assert case.summary("ours")["of_matmul_rate"] == 0.5
    case.row("ours").matmul_rate = 12e12  # of another precision than the case's
    assert case.summary("ours")["of_matmul_rate"] == 0.25


def test_what_was_not_measured_has_no_ratio() -> None:
    case = Case("x", "plain", [Row("plain", [1.0]), Row("ours", [1.0], peak_bytes=1, flops=1.0)])
    assert case.memory_ratio("ours") is None
    assert case.floor("ours") is None
    assert case.row("plain").rate is None
    assert case.summary("ours")["of_matmul_rate"] is None


def test_a_single_number_spreads_nowhere() -> None:
    assert Spread.of([3.0]) == Spread(3, 3, 3)
    assert Spread.of([4.0, 1.0, 2.0, 3.0]) == Spread(2.5, 1.75, 3.25)


def test_json_comes_back_and_carries_what_follows(case: Case, tmp_path: Path) -> None:
    report = Results("step", {"processor": "x", "threads": 1}, [case], ["a note"])
    report.write(tmp_path / "folder" / "out.json")
    text = (tmp_path / "folder" / "out.json").read_text()
    assert Results.from_json(text) == report
    lines = [json.loads(line.strip().rstrip(",")) for line in text.splitlines()[2:4]]  # one row a line
    assert [line["name"] for line in lines] == ["plain", "ours"]
    summary = json.loads(text)["cases"][0]["rows"][1]["summary"]
    assert summary["time_ratio"] == [0.5, 0.5, 0.75]
    assert summary["memory_ratio"] == 0.75


def test_a_disk_that_refuses_is_a_sentence(case: Case, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"out\.json: can't be written \(.*\); choose another place"):
        Results("step", {}, [case]).write(tmp_path / "file" / "out.json")


def test_the_table_has_a_line_for_each_row_and_no_empty_column(case: Case) -> None:
    lines = Results("step", {"threads": 1}, [case], ["a note"]).table().splitlines()
    assert lines[:4] == ["step", "threads 1", "", "U-Net: layout contiguous"]
    assert lines[4].split("  ")[-1] == "difference"
    # seconds, ratio, quartiles, floor, MiB, memory ratio, TFLOP/s, share of the matrix rate
    assert lines[6].split() == ["ours", "2", "0.500", "0.500-0.750", "0.750", "300", "0.750", "3", "50.0%", "1e-06"]
    assert lines[7:] == ["", "a note"]
    bare = Case("x", "plain", [Row("plain", [1.0])])
    assert "MiB" not in Results("step", {}, [bare]).table()
