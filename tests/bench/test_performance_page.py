"""The table of docs/performance.md says what docs/benchmarks/cpu1_step.json holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from reblur_plugin.bench.report import Report

NETWORKS = ("U-Net", "DHN", "SRN")


def test_time_ratios_are_those_measured(root: Path) -> None:
    report = Report.from_json((root / "docs" / "benchmarks" / "cpu1_step.json").read_text())
    cases = [next(case for case in report.cases if case.name.startswith(name)) for name in NETWORKS]
    page = (root / "docs" / "performance.md").read_text()
    table = [line.strip("| ").split("|") for line in page.splitlines() if line.startswith(("| plain", "| ours"))]
    rows = {cells[0].split("(")[0].strip(): cells for cells in table}
    assert len(rows) == 14
    for name, cells in rows.items():
        shown = [float(cell) for cell in cells[-3:]]
        assert shown == pytest.approx([case.time_ratio(name).median for case in cases], abs=5.1e-4), name
