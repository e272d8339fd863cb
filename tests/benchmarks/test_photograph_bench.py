"""The benchmark of the command deblur runs it, and refuses what it can't run."""

from __future__ import annotations

import pytest

from benchmarks import __main__ as command
from benchmarks import photograph
from benchmarks.report import BenchError


def test_each_form_is_run_and_compared_with_float32() -> None:
    arguments = command.parse(["photograph", "--quick", "--repeats", "1", "--forms", "bf16", "--device", "cpu"])
    (case,) = photograph.run(arguments).cases
    assert [row.name for row in case.rows] == ["float32", "bf16"]
    assert case.row("float32").values["difference"] == 0
    assert 0 < case.row("bf16").values["difference"] < 1
    assert all(row.seconds[0] > 0 and (row.peak_bytes or 0) > 2**26 for row in case.rows)


def test_what_the_command_says_is_passed_on() -> None:
    arguments = command.parse(["photograph", "--quick", "--repeats", "1", "--weights", "none-such"])
    with pytest.raises(BenchError, match=r"^deblur: error: weights: nothing is named 'none-such'"):
        photograph.run(arguments)
