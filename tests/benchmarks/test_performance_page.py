"""The tables of benchmarks/README.md say what the files in benchmarks/results hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.report import Case, Results

NETWORKS = ("U-Net", "DHN", "SRN")


def _table(text: str) -> dict[str, list[str]]:
    """Return the cells of a page's rows by the name of the form, without what is said of it."""
    lines = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith(("| plain", "| ours"))]
    return {re.split(r"[(:]", cells[0])[0].strip(): cells for cells in lines}


def _case(report: Results, network: str, form: str) -> Case:
    """Return the case in which a form stands beside the plain one in float32."""
    return next(
        case
        for case in report.cases
        if case.name.startswith(network) and case.reference == "plain fp32" and form in {row.name for row in case.rows}
    )


@pytest.mark.parametrize(("part", "file", "count"), [(0, "cpu1_step.json", 15), (1, "cpu1_step_128.json", 6)])
def test_time_ratios_of_the_step_are_those_measured(root: Path, part: int, file: str, count: int) -> None:
    report = Results.from_json((root / "benchmarks" / "results" / file).read_text())
    page = (root / "benchmarks" / "README.md").read_text().partition("## Adaptation")[0].split("On 1 x 128 x 128")[part]
    rows = _table(page)
    assert len(rows) == count
    for name, cells in rows.items():
        shown = [float(cell) for cell in (cells[4:7] if part == 0 else cells[-3:])]
        found = [_case(report, network, name).time_ratio(name).median for network in NETWORKS]
        assert shown == pytest.approx(found, abs=5.1e-4), name


def test_memory_of_the_step_is_that_measured(root: Path) -> None:
    report = Results.from_json((root / "benchmarks" / "results" / "cpu1_step_memory.json").read_text())
    page = (root / "benchmarks" / "README.md").read_text().partition("## Adaptation")[0].split("On 1 x 128 x 128")[0]
    for name, cells in _table(page).items():
        found = [_case(report, network, name).memory_ratio(name) for network in NETWORKS]
        assert [float(cell) for cell in cells[7:]] == pytest.approx(found, abs=5.1e-3), name


def test_ratios_of_the_fused_optimiser_are_those_measured(root: Path) -> None:
    report = Results.from_json((root / "benchmarks" / "results" / "cpu1_tta_160x96.json").read_text())
    (case,) = report.cases
    page = (root / "benchmarks" / "README.md").read_text().partition("\n160x96, N = ")[2]
    rows = _table(page.partition("\n\n")[2].partition("\n\n")[0])
    assert set(rows) == {row.name for row in case.rows}
    for name, (_, operations, difference, time) in rows.items():
        assert float(time) == pytest.approx(case.time_ratio(name).median, abs=5.1e-4), name
        assert float(operations) == pytest.approx(case.floor(name), abs=5.1e-4), name
        assert float(difference) == pytest.approx(case.row(name).values["difference"], rel=0.2), name


@pytest.mark.parametrize(("size", "count"), [("640x360", 10), ("1280x720", 4)])
def test_ratios_of_adaptation_are_those_measured(root: Path, size: str, count: int) -> None:
    report = Results.from_json((root / "benchmarks" / "results" / f"cpu1_tta_{size}.json").read_text())
    cases = {name: next((case for case in report.cases if case.name.startswith(name)), None) for name in NETWORKS}
    page = (root / "benchmarks" / "README.md").read_text().partition(f"\n{size}, N = ")[2]
    rows = _table(page.partition("\n\n")[2].partition("\n\n")[0])
    assert len(rows) == count
    for name, cells in rows.items():
        for case, time, memory in zip(cases.values(), cells[3:6], cells[6:], strict=True):
            if case is None or name not in {row.name for row in case.rows}:
                assert time.strip() == memory.strip() == "-"
                continue
            assert float(time) == pytest.approx(case.time_ratio(name).median, abs=5.1e-4), name
            assert float(memory) == pytest.approx(case.memory_ratio(name), abs=5.1e-3), name
            assert f"{case.floor(name):.3f}".lstrip("0") in cells[1] or case.floor(name) == 1
