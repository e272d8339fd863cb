"""The paper's numbers: as docs/experiments.md has them, each with the test that gives its row."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from reblur_plugin.report.published import IMAGES, METRICS, TABLES, Row, rows

Numbers = tuple[str, ...]
STEPS = {"deblurred": "0", "adapted_1": "1", "adapted_3": "3", "adapted": "5"}
ON_REDS = ("3", "7", "S6")
FULL = [row for row in rows() if row.table != "1"]  # Table 1 has PSNR only


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "experiments.md").read_text(encoding="utf-8")


def cells_of(page: str) -> list[list[str]]:
    """Return the cells of each line of the page's tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]


def documented(page: str) -> dict[tuple[str, str], list[Numbers]]:
    """Return the numbers of each test and number of steps: one line or more, from the tables with all four metrics."""
    found: dict[tuple[str, str], list[Numbers]] = {}
    header: list[str] = []
    for cells in cells_of(page):
        if "LPIPS" in cells or cells[-1] == "test":
            header = cells
        elif "LPIPS" in header and not set(cells) <= {"---"}:
            line = dict(zip(header, cells, strict=True))
            key = line["test"], line.get("steps", "0")
            found.setdefault(key, []).append(tuple(line[metric] for metric in METRICS))
    return found


def printed(row: Row) -> Numbers:
    return tuple(row.values[metric] or "-" for metric in METRICS)


@pytest.mark.parametrize("row", FULL, ids=lambda row: f"{row.table}: {row.group} {row.label}")
def test_a_row_has_the_numbers_that_the_page_has_for_its_test(row: Row, page: str) -> None:
    assert set(documented(page)[row.run, STEPS[row.stage]]) == {printed(row)}


def test_the_page_has_no_row_that_is_missing_here(page: str) -> None:
    found = documented(page)
    # 15 of Table S4, 9 of 3, 3 of 4, 12 of S5 and S6, 11 of 6 and 7, 2 of S2; two of them stand in two tables
    assert (sum(map(len, found.values())), len(found)) == (52, 50)
    assert {(row.run, STEPS[row.stage]) for row in FULL} == set(found)


def test_the_numbers_of_table_1_are_the_pages(page: str) -> None:
    lines = cells_of(page)
    table = [row for row in rows() if row.table == "1"]
    assert len(table) == 8
    for row in table:
        assert list(row.values) == ["PSNR"]
        line = next(cells for cells in lines if row.run in cells and cells[0] == row.label.split()[0])
        place = {"deblurring": 1, "reblurring": 4}[row.group]
        # number, training, test
        assert (line[place], line[place + 2]) == (row.values["PSNR"], row.run)


def test_each_run_is_an_option_file(root: Path) -> None:
    names = {path.stem for path in (root / "options").glob("*.yml")}
    assert {row.run for row in rows()} <= names


def test_all_tables_are_there_with_all_their_rows() -> None:
    by_hand = {
        "1": 8,  # 4 depths, deblurring and reblurring
        "2": 9,  # 3 networks: L1, n1, n2
        "3": 9,
        "4": 3,
        "5": 4,
        "6": 14,  # 3 networks: n1, n2, each without and with 5 steps; SRN n1 also with 1 and 3
        "7": 9,  # 3 networks: L1, n2, n2 with 5 steps
        "S2": 2,
        "S4": 15,  # 3 networks: L1, n1 to n4
        "S5": 10,  # 2 networks: L1, VGG and Adv, each without and with n2
        "S6": 6,  # 2 networks: L1, VGG without and with n2
    }
    assert Counter(row.table for row in rows()) == by_hand
    assert list(dict.fromkeys(row.table for row in rows())) == list(TABLES) == list(by_hand)


def test_a_configuration_has_the_same_numbers_in_all_tables() -> None:
    known: dict[tuple[str, str], set[Numbers]] = {}
    for row in FULL:
        known.setdefault((row.run, row.stage), set()).add(printed(row))
    assert {key: numbers for key, numbers in known.items() if len(numbers) > 1} == {}
    # SRN with n2 stands in Tables 2, 5, 6 and S4
    assert sum((row.run, row.stage) == ("gopro_srn_n2_tta", "deblurred") for row in FULL) == 4


def test_no_two_configurations_have_the_same_numbers() -> None:
    legible = {(row.run, row.stage): printed(row) for row in FULL if any(row.values.values())}
    # 50 configurations, 5 of them lost
    assert len(set(legible.values())) == len(legible) == 45


def test_table_1_has_a_hundredth_of_a_decibel_more_than_table_2_as_printed() -> None:
    found = {row.table: row.values["PSNR"] for row in rows() if row.run == "gopro_unet_l1_test"}
    assert found == {"1": "29.67", "2": "29.66", "S4": "29.66"}


def test_what_v1_lost_is_none_and_noted() -> None:
    lost = {
        (row.table, row.group, row.label): (tuple(metric for metric in METRICS if row.values[metric] is None), row.note)
        for row in FULL
        if None in row.values.values()
    }
    psnr, everything = (("PSNR",), "PSNR lost in v1"), (METRICS, "lost in v1")
    assert lost == {
        ("3", "U-Net", "L1 + Reblur n1"): psnr,
        ("3", "SRN", "L1 + Reblur n1"): psnr,
        ("3", "SRN", "L1 + Reblur n2"): psnr,
        ("3", "DHN", "L1 + Reblur n1"): psnr,
        ("6", "U-Net", "L1 + Reblur n2, 5 steps"): everything,
        ("6", "SRN", "L1 + Reblur n1, 5 steps"): everything,
        ("6", "DHN", "L1 + Reblur n1, 5 steps"): everything,
        ("6", "DHN", "L1 + Reblur n2, 5 steps"): everything,
        ("7", "SRN", "L1 + Reblur n2"): psnr,
        ("7", "SRN", "L1 + Reblur n2, 5 steps"): everything,
    }
    assert {row.note for row in rows() if None not in row.values.values()} == {
        "",
        "labels of v1 shifted by a row",
        "label of v1 misplaced",
    }


@pytest.mark.parametrize("row", [row for row in FULL if row.table not in ("4", "S2")], ids=lambda row: row.run)
def test_the_run_is_what_the_row_says(row: Row) -> None:
    name = f"{'reds' if row.table in ON_REDS else 'gopro'}_{row.group.lower().replace('-', '')}"
    for loss, part in (("Adv", "_adv"), ("VGG", "_vgg")):
        name += part if loss in row.label else ""
    reblur = re.search(r"Reblur (n\d)", row.label)
    name += f"_{reblur[1]}" if reblur else ""
    name += "_l1" if row.label == "L1" else ""
    assert row.run.rpartition("_")[0] == name


@pytest.mark.parametrize("row", FULL, ids=lambda row: f"{row.table}: {row.run} {row.stage}")
def test_the_stage_is_the_rows_number_of_steps(row: Row) -> None:
    steps = re.search(r", (\d) steps?$", row.label)
    assert STEPS[row.stage] == (steps[1] if steps else "0")


def test_the_papers_numbers_of_images_are_the_pages(page: str) -> None:
    text = " ".join(page.split())
    assert f"GOPRO means `blur_gamma` (D11) and {IMAGES['GOPRO']} images, REDS all {IMAGES['REDS']} images" in text
