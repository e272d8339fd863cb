"""What a benchmark found: raw times in JSON, medians of paired ratios in a table."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

_HEADINGS = ("", "seconds", "time ratio", "quartiles", "floor", "peak MiB", "memory ratio", "TFLOP/s", "of matmul")


class BenchError(ReblurError):
    """A benchmark that can't run here; the message says why."""


@dataclass(frozen=True)
class Spread:
    """Median of some numbers, with the lower and the upper quartile (equal to it for a single number)."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one number."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Row:
    """One form of a computation.

    Attributes:
        name: what is special about it; unique in its case.
        seconds: one time per round; entry i of all rows was taken in the same round.
        peak_bytes: memory at most, beyond what was there before the computation.
        flops: floating-point operations by analytic count; a multiply-add is two.
        matmul_rate: FLOP/s of a large matrix product in this row's precision, where that isn't its case's.
        values: further numbers, shown behind the row: `{"gradient difference": 1e-6}`.
    """

    name: str
    seconds: list[float]
    peak_bytes: int | None = None
    flops: float | None = None
    matmul_rate: float | None = None
    values: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float | None:
        """Return the achieved FLOP/s, by the median time."""
        return None if self.flops is None else self.flops / statistics.median(self.seconds)


@dataclass
class Case:
    """Several forms of one computation, timed in turns.

    Attributes:
        name: what is computed: "U-Net n2".
        reference: name of the row that all are compared with, usually "plain".
        rows: the forms.
        settings: sizes, layout, precision.
        matmul_rate: FLOP/s of a large matrix product on this device in this run; None compares with nothing.
    """

    name: str
    reference: str
    rows: list[Row]
    settings: dict[str, Any] = field(default_factory=dict)
    matmul_rate: float | None = None

    def row(self, name: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)

    def time_ratio(self, name: str) -> Spread:
        """Return the spread of time / time of the reference, round by round."""
        pairs = zip(self.row(name).seconds, self.row(self.reference).seconds, strict=True)
        return Spread.of([seconds / reference for seconds, reference in pairs])

    def memory_ratio(self, name: str) -> float | None:
        """Return peak memory / that of the reference, None where one of them is unknown or zero."""
        return _quotient(self.row(name).peak_bytes, self.row(self.reference).peak_bytes)

    def floor(self, name: str) -> float | None:
        """Return operations / those of the reference: the time ratio if both ran at one rate."""
        return _quotient(self.row(name).flops, self.row(self.reference).flops)

    def summary(self, name: str) -> dict[str, Any]:
        """Return all that follows from the raw numbers of a row."""
        row, ratio = self.row(name), self.time_ratio(name)
        return {
            "median_seconds": statistics.median(row.seconds),
            "time_ratio": [ratio.median, ratio.low, ratio.high],
            "floor": self.floor(name),
            "memory_ratio": self.memory_ratio(name),
            "flops_per_second": row.rate,
            "of_matmul_rate": _quotient(row.rate, row.matmul_rate or self.matmul_rate),
        }


@dataclass
class Report:
    """All cases of a benchmark, with the machine that ran them (`measure.machine`)."""

    title: str
    machine: dict[str, Any]
    cases: list[Case]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return everything as JSON text; each row carries what follows from it under "summary"."""
        cases = [
            {**vars(case), "rows": [{**vars(row), "summary": case.summary(row.name)} for row in case.rows]}
            for case in self.cases
        ]
        return json.dumps({**vars(self), "cases": cases}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that `to_json` wrote."""
        content = json.loads(text)
        for case in content["cases"]:
            case["rows"] = [Row(**{key: row[key] for key in row if key != "summary"}) for row in case["rows"]]
        return cls(**content | {"cases": [Case(**case) for case in content["cases"]]})

    def write(self, path: Path) -> None:
        """Write the JSON file, whole or not at all.

        Raises:
            FileError: if the disk refuses.
        """
        with whole_file(path, "choose another place") as file:
            file.write((self.to_json() + "\n").encode())

    def table(self) -> str:
        """Return plain text, a table for each case."""
        lines = [self.title, ", ".join(f"{key} {value}" for key, value in self.machine.items())]
        for case in self.cases:
            settings = ", ".join(f"{key} {value}" for key, value in case.settings.items())
            lines += ["", f"{case.name}: {settings}" if settings else case.name, *_table(case)]
        return "\n".join(lines + ([""] if self.notes else []) + self.notes)


def _table(case: Case) -> list[str]:
    others = list(dict.fromkeys(key for row in case.rows for key in row.values))
    cells = [[*_HEADINGS, *others]]
    for row in case.rows:
        found, ratio = case.summary(row.name), case.time_ratio(row.name)
        cells.append(
            [
                row.name,
                f"{found['median_seconds']:.4g}",
                f"{ratio.median:.3f}",
                f"{ratio.low:.3f}-{ratio.high:.3f}",
                _text(found["floor"], ".3f"),
                _text(None if row.peak_bytes is None else row.peak_bytes / 2**20, ".0f"),
                _text(found["memory_ratio"], ".3f"),
                _text(None if row.rate is None else row.rate / 1e12, ".4g"),
                _text(found["of_matmul_rate"], ".1%"),
                *(_text(row.values.get(key), ".3g") for key in others),
            ]
        )
    kept = [column for column in zip(*cells, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in zip(*kept, strict=True)
    ]


def _quotient(value: float | None, reference: float | None) -> float | None:
    if value is None or not reference or not math.isfinite(reference):
        return None
    return value / reference


def _text(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
