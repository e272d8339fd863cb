"""What a run leaves for others: `records.jsonl`, a line for each image and stage, and `summary.json`; and their reader.

Each line says by itself what its scores are: the variant of each metric, the kind of blur, fingerprints of weights and
pixels, versions. Lines of several runs can be put together. Half a line that a kill leaves costs that line only.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.journal import Entry, Journal, file_name, text
from reblur_plugin.evaluation.scores import BLURRY, REBLURRED, UNCHANGED
from reblur_plugin.evaluation.variants import Variant
from reblur_plugin.files import for_people, whole_file

RECORDS, SUMMARY, JOURNAL = "records.jsonl", "summary.json", "journal"
Head = dict[str, Any]
_REMEDY = "free or change the disk, then run it again"


class RecordError(ReblurError):
    """A folder without records, or records that no run of ours wrote."""


@dataclass(frozen=True)
class Score:
    """A number and what it is."""

    value: float
    variant: Variant


@dataclass(frozen=True)
class Record:
    """All that is known of one image at one stage.

    Attributes:
        run: the run's name.
        dataset, image, stage: which image; names are unique within the data set.
        scores: by the names that the run gives its metrics.
        reference: what they compare with: "sharp", for M_R(L) "blurry", None without.
        step, loss, change, seconds: of its adaptation, None without.
        fallback: why it stays unadapted.
        blur_kind: of the data set, empty if unknown.
        pixels: fingerprints of "blurry" and "sharp".
        weights: fingerprints of checkpoints by what they are for.
        versions: of what computed the scores.
        picture: its file, relative to the run's folder, None if it wasn't written.
        blurry, sharp: their files.
    """

    run: str
    dataset: str
    image: str
    stage: str
    scores: dict[str, Score]
    reference: str | None = None
    step: int | None = None
    loss: float | None = None
    change: float | None = None
    seconds: float | None = None
    fallback: str | None = None
    blur_kind: str = ""
    pixels: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    picture: str | None = None
    blurry: str | None = None
    sharp: str | None = None


@dataclass(frozen=True)
class Run:
    """A folder's records.

    Attributes:
        folder: where it is.
        name: as in its records.
        records: each image and stage once.
        head: what else `summary.json` (of an unfinished run its journal) says.
        finished: whether the run came to its end.
        torn: lines that a kill has torn, or that are none of ours.
        replaced: lines of one image and stage that later ones with other scores replace.
    """

    folder: Path
    name: str
    records: list[Record]
    head: Head
    finished: bool
    torn: int = 0
    replaced: int = 0


def records_of(run: str, dataset: str, entries: Iterable[Entry], head: Mapping[str, Any]) -> list[Record]:
    """Return the records of finished images; `head` has the run's metrics, weights, versions and kinds of blur."""
    variants = {name: Variant(**values) for name, values in head["metrics"].items()}
    found = []
    for entry in entries:
        rows = {row.stage: asdict(row) for row in entry.trace}
        for stage, values in entry.stages.items():
            step = {key: rows[stage][key] for key in ("step", "loss", "change", "seconds")} if stage in rows else {}
            found.append(
                Record(
                    run=run,
                    dataset=dataset,
                    image=entry.name,
                    stage=stage,
                    scores={
                        name: Score(float(value), variants[name]) for name, value in values.items() if name in variants
                    },
                    reference=_reference(stage, entry),
                    fallback=entry.fallback,
                    blur_kind=head.get("blur_kinds", {}).get(dataset, ""),
                    pixels=entry.pixels,
                    weights=head.get("checkpoints", {}),
                    versions=head.get("versions", {}),
                    picture=entry.pictures.get(stage),
                    blurry=entry.blurry,
                    sharp=entry.sharp,
                    **step,
                )
            )
    return found


def _reference(stage: str, entry: Entry) -> str | None:
    if stage in (REBLURRED, UNCHANGED):
        return BLURRY
    return "sharp" if "sharp" in entry.pixels else None


def write(folder: Path, run: str, records: list[Record], head: Head) -> None:
    """Write `records.jsonl` and `summary.json` of a finished run."""
    with whole_file(folder / RECORDS, _REMEDY) as file:
        for record in records:
            file.write(for_people(json.dumps(_to_json(record)) + "\n"))
    summary = {"run": run, "finished": True, **head, "means": _means(records)}
    with whole_file(folder / SUMMARY, _REMEDY) as file:
        file.write(for_people(json.dumps(summary, indent=1, default=str) + "\n"))


def read_runs(folder: Path) -> list[Run]:
    """Return the run of a folder, or all whose lines were put together there; of a killed one what it had finished.

    Raises:
        RecordError: if the folder has none.
    """
    try:
        return [_unfinished(folder)] if _has_journal(folder) else _finished(folder)
    except OSError as error:
        raise RecordError(
            f"{folder}: expected {RECORDS} and {SUMMARY} of a test or an evaluation, but they can't be read "
            f"({error.strerror}); run it first, or give a folder of pictures with --gt"
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecordError(
            f"{folder}: expected the journal of a test or an evaluation, got {error!r}; run it again"
        ) from error


def is_run(folder: Path) -> bool:
    """Return whether a folder is one of a run, finished or not."""
    return os.path.isfile(folder / RECORDS) or _has_journal(folder)


def _has_journal(folder: Path) -> bool:
    return Journal(folder / JOURNAL).head() is not None


def _finished(folder: Path) -> list[Run]:
    records, torn, replaced = _read_lines(folder / RECORDS)
    head = _summary(folder / SUMMARY)
    names = dict.fromkeys(record.run for record in records)
    if len(names) < 2:
        name = str(head.get("run") or next(iter(names), folder.name))
        return [Run(folder, name, records, head, True, torn, replaced)]
    runs = [Run(folder, name, [one for one in records if one.run == name], {}, True) for name in names]
    return [replace(runs[0], torn=torn, replaced=replaced), *runs[1:]]


def _summary(path: Path) -> Head:
    """Return what a summary says; nothing if it is missing or damaged, since records say what they are."""
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return head if isinstance(head, dict) else {}


def _unfinished(folder: Path) -> Run:
    journal = Journal(folder / JOURNAL)
    head = journal.head() or {}
    name = str(head.get("run", folder.name))
    sets = {str(dataset): journal.entries(dataset) for dataset in head["datasets"]}
    records = [record for dataset, entries in sets.items() for record in records_of(name, dataset, entries, head)]
    return Run(folder, name, records, head, False)


def _read_lines(path: Path) -> tuple[list[Record], int, int]:
    """Return the records of a file, the last of equals, the lines that are none, and those that others replace."""
    found: dict[tuple[str, str, str, str], Record] = {}
    torn = replaced = 0
    for line in path.read_bytes().splitlines():
        if not line.strip(b"\0 "):
            continue
        try:
            record = _from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            torn += 1
            continue
        key = record.run, record.dataset, record.image, record.stage
        replaced += key in found and (found[key].scores, found[key].pixels) != (record.scores, record.pixels)
        found[key] = record
    return list(found.values()), torn, replaced


def _to_json(record: Record) -> dict[str, Any]:
    scores = {name: {"value": _number(score.value), **asdict(score.variant)} for name, score in record.scores.items()}
    numbers = {key: _number(getattr(record, key)) for key in ("loss", "change", "seconds")}
    return asdict(record) | {"scores": scores} | numbers


def _from_json(values: dict[str, Any]) -> Record:
    """Return the record of a line.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: if it is none.
    """
    scores = {}
    for name, score in values["scores"].items():
        variant = Variant(*(text(score[key]) for key in ("metric", "form", "better")))
        scores[name] = Score(float(score["value"]), variant)
    numbers = {key: None if values.get(key) is None else float(values[key]) for key in ("loss", "change", "seconds")}
    record = Record(**{**values, **numbers, "scores": scores})
    for word in (record.run, record.dataset, record.image, record.stage, record.blur_kind):
        text(word)
    for optional in (record.reference, record.fallback):
        text(optional or "")
    for path in (record.picture, record.blurry, record.sharp):
        file_name(path or "")
    for mapping in (record.pixels, record.weights, record.versions):
        for key, value in mapping.items():
            text(key), text(value)
    if not isinstance(record.step, (int, type(None))):
        raise TypeError(f"expected a number of steps, got {record.step!r}")
    return record


def _number(value: float | None) -> float | str | None:
    """Return what every reader of JSON takes: infinity and nan are words."""
    return value if value is None or math.isfinite(value) else str(value)


def _means(records: list[Record]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the mean of finite values and their number, by data set, stage and metric."""
    values: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in records:
        for name, score in record.scores.items():
            place = values.setdefault(record.dataset, {}).setdefault(record.stage, {})
            place.setdefault(name, []).extend([score.value] if math.isfinite(score.value) else [])
    return {
        dataset: {
            stage: {
                name: {"mean": math.fsum(found) / len(found) if found else None, "images": len(found)}
                for name, found in metrics.items()
            }
            for stage, metrics in stages.items()
        }
        for dataset, stages in values.items()
    }
