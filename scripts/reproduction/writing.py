"""Verdicts as a page for people, as JSON for programs, and the report with pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reblur_plugin.evaluation.commands import Asked
from reblur_plugin.evaluation.records import read_runs
from reblur_plugin.files import for_people, whole_file
from reblur_plugin.report import figures
from reblur_plugin.report import writing as report
from reblur_plugin.report.page import Pictures
from reblur_plugin.report.tables import Cell, Table
from reproduction.claims import Claim, Part, Reading
from reproduction.picture import overview
from reproduction.verdicts import Judged, Values, Verdict, judge, together

_LOGGED = re.compile(r"iteration (\d+) of \d+, epoch \d+: ([^|]+) \|")
_DECIMALS = {"PSNR (dB)": 2, "NIQE": 3, "sharpness": 3}
# Tests whose pictures the report has, if they are there; those of other sizes than the first one's are left out
_PICTURED = {
    "DHN": "adapted_dhn_shipped",
    "resunet-small": "adapted_small_shipped",
    "DHN_L1": "dhn_l1_s0_test",
    "DHN_n2": "dhn_n2_s0_test",
    "U-Net_L1": "unet_l1_s0_test",
    "U-Net_n2": "unet_n2_s0_test",
}


@dataclass(frozen=True)
class Outcome:
    """A claim with its comparisons' verdicts; None where a comparison's tests aren't there yet."""

    claim: Claim
    parts: list[tuple[Part, Judged | None]]

    @property
    def verdict(self) -> Verdict | None:
        """The claim's; None while a part of it isn't there."""
        counting = [judged for part, judged in self.parts if part.counts]
        return together([one.verdict for one in counting if one]) if counting and all(counting) else None


def judged(chosen: Sequence[Claim], seeds: int, out: Path) -> list[Outcome]:
    """Return what the tests of a reproduction's folder say about claims."""
    return [Outcome(claim, [(part, _judge(part, seeds, out)) for part in claim.parts]) for claim in chosen]


def _judge(part: Part, seeds: int, out: Path) -> Judged | None:
    """Return a comparison's verdict; None before all trainings of both arms are tested."""
    before, after = (_values(reading, seeds, out) for reading in (part.before, part.after))
    has_seeds = "{seed}" in part.after.test
    if min(len(before), len(after)) < (seeds if has_seeds else 1):
        return None
    return judge(before, after, part.better, part.margin)


def _values(reading: Reading, seeds: int, out: Path) -> Values:
    """Return a metric's values by seed and image; a test of weights that are there has one training, 0."""
    values = {}
    for number in range(seeds if "{seed}" in reading.test else 1):
        folder = out / "results" / reading.test.format(seed=f"s{number}")
        if _is_there(folder.name, out):
            values[number] = _of_test(folder, reading)
    return values


def _of_test(folder: Path, reading: Reading) -> dict[str, float]:
    (run,) = read_runs(folder)
    found = {
        (record.dataset, record.stage, record.image): record.scores[reading.metric].value
        for record in run.records
        if reading.metric in record.scores
    }
    stage, data = reading.less or ("", "")
    return {
        image: value - (found[data, stage, image] if reading.less else 0)
        for (dataset, at, image), value in found.items()
        if (dataset, at) == (reading.data, reading.stage)
    }


def write(outcomes: Sequence[Outcome], scale: str, out: Path, with_report: bool) -> Path:
    """Write claims.json, claims.md, claims.png, curves.csv and, where asked for, the report; return claims.md."""
    with whole_file(out / "claims.json") as file:
        content = {"scale": scale, "claims": [_for_programs(one) for one in outcomes]}
        file.write(for_people(json.dumps(content, indent=1) + "\n"))
    tables, title = [_table(one) for one in outcomes], f"The claims of the paper, scale {scale}"
    with whole_file(out / "claims.md") as file:
        file.write(for_people("\n".join([f"# {title}", "", *(table.markdown() for table in tables)])))
    _write_curves(out)
    rows = [(one.claim.number, part, found) for one in outcomes for part, found in one.parts if found and part.counts]
    if rows:
        figures.save(overview(rows), out / "claims")
    results = [f"{label}={out / 'results' / test}" for label, test in _PICTURED.items() if _is_there(test, out)]
    if results and with_report:
        asked = Asked(results, None, None, {}, set(), out / "report" / "evaluation")
        report.write(asked, out / "report", title, 4, Pictures("webp", of_all_stages=False), tables)
    return out / "claims.md"


def _write_curves(out: Path) -> None:
    """Write all losses that the trainings have logged as one table: of a resumed training the later ones count."""
    found: dict[tuple[str, int, str], str] = {}
    for log in sorted(out.glob("experiments/*/train_*.log")):
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            if match := _LOGGED.search(line):
                for name, value in re.findall(r"(\w+) ([^,\s]+)", match[2]):
                    found[log.parent.name, int(match[1]), name] = value
    lines = ["training,iteration,quantity,value", *(",".join(map(str, (*key, found[key]))) for key in sorted(found))]
    with whole_file(out / "curves.csv") as file:
        file.write(for_people("\n".join(lines) + "\n"))


def _is_there(test: str, out: Path) -> bool:
    return (out / "results" / test / "summary.json").is_file()


def _for_programs(outcome: Outcome) -> dict[str, object]:
    claim, parts = outcome.claim, []
    for part, judged in outcome.parts:
        told = {"metric": part.metric, "text": part.text, "expected": part.better, "margin": part.margin}
        found = {key: _number(value) for key, value in asdict(judged).items()} if judged else {}
        parts.append({**told, "counts": part.counts, **found})
    about = {"claim": claim.number, "title": claim.title, "paper": claim.paper, "verdict": outcome.verdict}
    return {**about, "parts": parts}


def _number(value: object) -> object:
    """Return a value as JSON has it, without nan."""
    if isinstance(value, (tuple, list)):
        return [_number(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(outcome: Outcome) -> Table:
    claim = outcome.claim
    header = ["metric", "comparison", "verdict", "before", "after", "effect", "over seeds", "over sequences"]
    header += ["seeds that agree", "spread of the first arm"]
    rows = [_row(part, judged) for part, judged in outcome.parts]
    title = f"{claim.number}. {claim.title} ({claim.paper}): {outcome.verdict or 'unfinished'}"
    return Table(f"claim_{claim.number}", title, header, rows, labels=3)


def _row(part: Part, judged: Judged | None) -> list[Cell]:
    arrow = "↑" if part.better == "higher" else "↓"
    words = [Cell(f"{part.metric} {arrow}"), Cell(part.text)]
    if judged is None:
        return [*words, Cell("not run"), *[Cell("")] * 7]
    digits = _DECIMALS.get(part.metric, 4)
    has_seeds = judged.seeds > 1
    return [
        *words,
        Cell((judged.verdict if part.counts else f"({judged.verdict})") + ("" if has_seeds else ", one training")),
        Cell(f"{judged.before:.{digits}f}", judged.before),
        Cell(f"{judged.after:.{digits}f}", judged.after),
        Cell(f"{judged.effect:+.{digits}f}", judged.effect),
        Cell(_interval(judged.over_seeds, digits) if has_seeds else "-"),
        Cell(f"{_interval(judged.over_sequences, digits)}, {judged.sequences} of {judged.images} images"),
        Cell(f"{judged.agree} of {judged.seeds}", judged.agree),
        Cell(f"{judged.spread:.{digits}f}", judged.spread) if has_seeds else Cell("-"),
    ]


def _interval(ends: tuple[float, float], digits: int) -> str:
    return f"[{ends[0]:+.{digits}f}, {ends[1]:+.{digits}f}]"
