"""The numbers that the paper prints (arXiv 2104.12665 v1), and which run and stage stands for each row."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

TABLES = {
    "1": "The better deblurred, the harder to reblur (GOPRO, U-Net)",
    "2": "L_Reblur on GOPRO",
    "3": "L_Reblur on REDS",
    "4": "What M_R is trained by (GOPRO)",
    "5": "Perceptual losses (GOPRO, SRN)",
    "6": "Test-time adaptation on GOPRO",
    "7": "Test-time adaptation on REDS",
    "S2": "DHN and DMPHN (GOPRO)",
    "S4": "The size of M_R (GOPRO)",
    "S5": "Combined with other perceptual losses (GOPRO)",
    "S6": "Combined with other perceptual losses (REDS)",
}
METRICS = ("LPIPS", "NIQE", "PSNR", "SSIM")
IMAGES = {"GOPRO": 1111, "REDS": 3000}


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        table: its number.
        group, label: as the paper names the row.
        values: what is printed, as printed; None where v1 lost it (where the table has such a column at all).
        run, stage: the option file's name whose test gives the row, and at which stage.
        note: what is known of the row's print.
    """

    table: str
    group: str
    label: str
    values: dict[str, str | None]
    run: str
    stage: str
    note: str


@cache
def rows() -> tuple[Row, ...]:
    """Return all rows in the order of the paper."""
    return tuple(_read())


def _read() -> Iterator[Row]:
    text = (resources.files(__package__) / "published.csv").read_text(encoding="utf-8")
    for line in csv.DictReader(text.splitlines()):
        columns = ("PSNR",) if line["table"] == "1" else METRICS
        values = {metric: line[metric] or None for metric in columns}
        yield Row(line["table"], line["group"], line["row"], values, line["test"], line["stage"], line["note"])
