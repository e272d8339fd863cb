"""The command `evaluate` scores the same files by BasicSR's functions and by ours, to the same values."""

from __future__ import annotations

from benchmarks import evaluate
from benchmarks.__main__ import parse


def test_both_forms_score_the_same_files_to_the_same_values() -> None:
    arguments = parse(["evaluate", "--quick", "--device", "cpu", "--repeats", "2", "--processes", "1"])
    (case,) = evaluate.run(arguments).cases
    loop, ours = case.rows
    assert case.reference == "BasicSR's functions in a loop" == loop.name
    assert ours.name == "reblur_plugin.evaluate"
    assert 0 <= ours.values["largest difference"] < 1e-9
    assert {len(loop.seconds), len(ours.seconds)} == {2}
    assert loop.values["images a second"] > 0
