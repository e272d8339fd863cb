"""What a benchmark found: raw times in JSON, medians of paired ratios in a table."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

_HEADINGS = ("", "seconds", "time ratio", "quartiles", "floor", "peak MiB", "memory ratio", "TFLOP/s", "of matmul")


class BenchError(ReblurError):
    """A benchmark that can't run here; the message says why."""


class Spread(NamedTuple):
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
        row = self.row(name)
        return {
            "median_seconds": statistics.median(row.seconds),
            "time_ratio": self.time_ratio(name),
            "floor": self.floor(name),
            "memory_ratio": self.memory_ratio(name),
            "flops_per_second": row.rate,
            "of_matmul_rate": _quotient(row.rate, row.matmul_rate or self.matmul_rate),
        }

    def table(self) -> list[str]:
        """Return a line for each row, under headings; columns without any number are left out."""
        others = list(dict.fromkeys(key for row in self.rows for key in row.values))
        cells = [[*_HEADINGS, *others], *([row.name, *self._cells(row, others)] for row in self.rows)]
        kept = [column for column in zip(*cells, strict=True) if any(column[1:])]
        columns = [[cell.rjust(max(map(len, column))) for cell in column] for column in kept[1:]]
        names = [name.ljust(max(map(len, kept[0]))) for name in kept[0]]
        return ["  ".join(line) for line in zip(names, *columns, strict=True)]

    def _cells(self, row: Row, others: Sequence[str]) -> list[str]:
        found = self.summary(row.name)
        ratio = found["time_ratio"]
        numbers = [
            (found["median_seconds"], ".4g"),
            (ratio.median, ".3f"),
            (found["floor"], ".3f"),
            (row.peak_bytes and row.peak_bytes / 2**20, ".0f"),
            (found["memory_ratio"], ".3f"),
            (row.rate and row.rate / 1e12, ".4g"),
            (found["of_matmul_rate"], ".1%"),
            *((row.values.get(key), ".3g") for key in others),
        ]
        texts = ["" if number is None else format(number, form) for number, form in numbers]
        return [*texts[:2], f"{ratio.low:.3f}-{ratio.high:.3f}", *texts[2:]]


@dataclass
class Results:
    """All cases of a benchmark, with the machine that ran them (`measure.machine`)."""

    title: str
    machine: dict[str, Any]
    cases: list[Case]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """Return JSON text with one row a line; each row carries what follows from it under "summary"."""
        cases = []
        for case in self.cases:
            rows = [json.dumps({**vars(row), "summary": case.summary(row.name)}) for row in case.rows]
            cases.append(_listed(vars(case), "rows", rows, 3))
        return _listed(vars(self), "cases", cases, 1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Return the results that `to_json` wrote."""
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
            file.write(self.to_json().encode())

    def table(self) -> str:
        """Return plain text, a table for each case."""
        lines = [self.title, _settings(self.machine)]
        for case in self.cases:
            lines += ["", f"{case.name}: {_settings(case.settings)}" if case.settings else case.name, *case.table()]
        return "\n".join(lines + ([""] if self.notes else []) + self.notes)


def _listed(values: Mapping[str, Any], key: str, entries: Sequence[str], indent: int) -> str:
    """Return an object as JSON text in which `values[key]` is a list with one of `entries` a line."""
    line = "\n" + " " * indent
    texts = {name: json.dumps(value) for name, value in values.items() if name != key}
    texts[key] = f"[{line}" + f",{line}".join(entries) + f"{line[:-1]}]"
    return "{" + ", ".join(f"{json.dumps(name)}: {texts[name]}" for name in values) + "}"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _quotient(value: float | None, reference: float | None) -> float | None:
    if value is None or not reference or not math.isfinite(reference):
        return None
    return value / reference
