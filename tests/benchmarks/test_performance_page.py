"""The tables of benchmarks/README.md say what the files in benchmarks/results hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.report import Case, Results

NETWORKS = ("U-Net", "DHN", "SRN")


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return (root / "benchmarks" / "README.md").read_text()


def _table(text: str) -> dict[str, list[str]]:
    """Return the cells of the first table by the name of the form, without what is said of it."""
    table = text.partition("\n|")[2].partition("\n\n")[0]
    lines = [line.strip("| ").split("|") for line in table.splitlines() if line.startswith(("| plain", "| ours"))]
    return {re.split(r"[(:]", cells[0])[0].strip(): cells for cells in lines}


def _cases(root: Path, name: str) -> list[Case]:
    return Results.from_json((root / "benchmarks" / "results" / f"{name}.json").read_text()).cases


def _case(cases: list[Case], network: str, form: str) -> Case:
    """Return the case in which a form stands beside the plain one in float32."""
    return next(
        case
        for case in cases
        if case.name.startswith(network) and case.reference == "plain fp32" and form in {row.name for row in case.rows}
    )


@pytest.mark.parametrize(
    ("above", "file", "count", "place"),
    [
        ("## The training step", "cpu1_step", 10, slice(4, 7)),
        ("\nAdam and the casts", "cpu1_step_128", 2, slice(1, 4)),
    ],
)
def test_time_ratios_of_the_step_are_those_measured(
    root: Path, page: str, above: str, file: str, count: int, place: slice
) -> None:
    cases, rows = _cases(root, file), _table(page.partition(above)[2])
    assert len(rows) == count
    for name, cells in rows.items():
        found = [_case(cases, network, name).time_ratio(name).median for network in NETWORKS]
        assert [float(cell) for cell in cells[place]] == pytest.approx(found, abs=5.1e-4), name


def test_memory_of_the_step_is_that_measured(root: Path, page: str) -> None:
    cases = _cases(root, "cpu1_step_memory")
    for name, cells in _table(page.partition("## The training step")[2]).items():
        found = [_case(cases, network, name).memory_ratio(name) for network in NETWORKS]
        assert [float(cell) for cell in cells[7:]] == pytest.approx(found, abs=5.1e-3), name


def test_ratios_of_the_fused_optimiser_are_those_measured(root: Path, page: str) -> None:
    (case,) = _cases(root, "cpu1_tta_160x96")
    rows = _table(page.partition("\n160x96, N = ")[2])
    assert set(rows) == {row.name for row in case.rows}
    for name, (_, operations, difference, time) in rows.items():
        assert float(time) == pytest.approx(case.time_ratio(name).median, abs=5.1e-4), name
        assert float(operations) == pytest.approx(case.floor(name), abs=5.1e-4), name
        assert float(difference) == pytest.approx(case.row(name).values["difference"], rel=0.2), name


@pytest.mark.parametrize(("size", "count"), [("640x360", 10), ("1280x720", 4)])
def test_ratios_of_adaptation_are_those_measured(root: Path, page: str, size: str, count: int) -> None:
    found = _cases(root, f"cpu1_tta_{size}")
    cases = [next((case for case in found if case.name.startswith(name)), None) for name in NETWORKS]
    rows = _table(page.partition(f"\n{size}, N = ")[2])
    assert len(rows) == count
    for name, cells in rows.items():
        for case, time, memory in zip(cases, cells[3:6], cells[6:], strict=True):
            if case is None or name not in {row.name for row in case.rows}:
                assert time.strip() == memory.strip() == "-"
                continue
            assert float(time) == pytest.approx(case.time_ratio(name).median, abs=5.1e-4), name
            assert float(memory) == pytest.approx(case.memory_ratio(name), abs=5.1e-3), name
            assert f"{case.floor(name):.3f}".lstrip("0") in cells[1] or case.floor(name) == 1


def test_seconds_of_the_metrics_are_those_measured(root: Path, page: str) -> None:
    (case,) = _cases(root, "cpu1_metrics")
    words = page.partition("## Metrics in validation")[2].partition("\n## ")[0]
    shown = re.findall(r"(deblurring|PSNR|SSIM|LPIPS|NIQE)(?: takes)?\s+(\d*\.\d+) s", words)
    assert len(shown) == 5
    for name, seconds in shown:
        (row,) = (row for row in case.rows if row.name.startswith(name))
        assert float(seconds) == pytest.approx(case.summary(row.name)["median_seconds"], abs=5.1e-3), name
