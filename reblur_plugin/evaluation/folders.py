"""Scores of anybody's result folders against sharp images, by all cores and devices, as records like a test's."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reblur_plugin.data.images import ImageError
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation import records, variants
from reblur_plugin.evaluation.file_scores import FileScores, score_files
from reblur_plugin.evaluation.journal import Entry, Journal
from reblur_plugin.evaluation.matching import Matched
from reblur_plugin.evaluation.scores import BLURRY, RESULT
from reblur_plugin.evaluation.values import Metrics
from reblur_plugin.evaluation.workers import CAN_START, Workers
from reblur_plugin.files import as_bytes, locked

_AHEAD = 4  # images a process that wait for it


@dataclass(frozen=True)
class Pool:
    """What scores pairs of files.

    Attributes:
        submit: begin with a result, its sharp image and metrics.
        ahead: images that may wait for their scores.
    """

    submit: Callable[[Path, Path | None, Metrics], Future[FileScores]]
    ahead: int


@dataclass(frozen=True)
class Task:
    """A folder to score.

    Attributes:
        label: its name in tables.
        matched: its images.
        sharp, blurry: the data set's images by name; None without.
        dataset: the data set's name.
        blur_kind: the kind of its blur, empty if unknown.
    """

    label: str
    matched: Matched
    sharp: Mapping[str, Path] | None
    blurry: Mapping[str, Path] | None
    dataset: str
    blur_kind: str = ""


@dataclass
class Outcome:
    """What came of a folder: its run, how many pictures were scored now (not earlier), and a sentence a failure."""

    run: records.Run
    scored: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@contextmanager
def pool_of(count: int, devices: Sequence[str]) -> Iterator[Pool]:
    """Yield a pool of `count` processes that share the devices; of this one where one is enough or none can start."""
    if count < 2 or not CAN_START:
        yield Pool(lambda image, sharp, metrics: _here(image, sharp, metrics, devices[0]), 0)
        return
    workers = Workers(count, devices)
    try:
        yield Pool(workers.submit_files, _AHEAD * count)
    finally:
        workers.close()


def _here(image: Path, sharp: Path | None, metrics: Metrics, device: str) -> Future[FileScores]:
    future: Future[FileScores] = Future()
    try:
        future.set_result(score_files(image, sharp, metrics, device))
    except ReblurError as error:
        future.set_exception(error)
    except Exception as error:  # as worker processes do
        future.set_exception(MetricError(f"{type(error).__name__}: {error}"))
    return future


def evaluate_folder(
    task: Task, metrics: Metrics, pool: Pool, out: Path, device: str, overwrite: bool = False, anew: bool = False
) -> Outcome:
    """Score a folder, write its records to `out`, and return them; what an interrupted call has scored isn't repeated.

    Args:
        task: the folder.
        metrics: option blocks by name.
        pool: of `pool_of`.
        out: the run's folder.
        device: what it is called, for the records.
        overwrite: replace other records that are there.
        anew: score again what is there already.

    Raises:
        ImageError: if records of something else are there.
        FileError: if the disk refuses.
    """
    identity = _identity(task, metrics, device)
    journal = Journal(out / records.JOURNAL)
    head = {**identity, **_head(task, metrics)}
    with locked(out):
        finished = None if anew else _earlier(journal, identity, out, overwrite)
        if finished:
            return Outcome(finished, notes=[str(note) for note in finished.head.get("notes", [])])
        if anew or journal.differences(identity) != []:
            journal.remove()
        journal.start(head)
        outcome = _score(task, metrics, pool, journal)
        found = records.records_of(task.label, task.dataset, journal.entries(task.dataset), head)
        records.write(out, task.label, found, head | {"failures": outcome.failures, "notes": outcome.notes})
        journal.finish()
    (outcome.run,) = records.read_runs(out)
    return outcome


def _earlier(journal: Journal, identity: dict[str, Any], out: Path, overwrite: bool) -> records.Run | None:
    """Return the finished run in `out` if it is the same; None if there is none, or an unfinished one to go on with.

    One with failures is scored again: what failed may have been mended.

    Raises:
        ImageError: if `out` holds another one.
    """
    different = journal.differences(identity)
    if different is None and not records.is_run(out):
        return None
    if different is None:
        runs = records.read_runs(out)
        failures = runs[0].head.get("failures")
        compared = identity.keys() - ({"data"} if failures else set())  # what failed may have been mended
        if len(runs) == 1 and all(runs[0].head.get(key) == identity[key] for key in compared):
            return None if failures else runs[0]
    if different == [] or overwrite:
        return None
    raise ImageError(f"{out}: holds scores of other files or metrics; give another -o, or --overwrite")


def _score(task: Task, metrics: Metrics, pool: Pool, journal: Journal) -> Outcome:
    """Score the images that the journal lacks; note those of which no stage fails."""
    outcome = Outcome(records.Run(journal.folder.parent, task.label, [], {}, False))
    done = {entry.name for entry in journal.entries(task.dataset, complete=True)}
    names = dict.fromkeys(name for found in task.matched.stages.values() for name in found)
    todo = [(index, name) for index, name in enumerate(names) if name not in done]
    waiting: deque[tuple[int, str, dict[str, Future[FileScores]]]] = deque()
    with tqdm(total=len(todo), desc=task.label, unit="image", disable=None, leave=False) as bar:

        def finish_first() -> None:
            before = len(outcome.failures)
            entry = _entry(task, *waiting.popleft(), outcome, journal.folder.parent)
            if entry.stages:
                journal.add(task.dataset, entry, is_complete=len(outcome.failures) == before)
            bar.update()

        for index, name in todo:
            sharp = task.sharp.get(name) if task.sharp else None
            stages = {stage: found[name] for stage, found in task.matched.stages.items() if name in found}
            waiting.append((index, name, {stage: pool.submit(path, sharp, metrics) for stage, path in stages.items()}))
            while len(waiting) > pool.ahead:
                finish_first()
        while waiting:
            finish_first()
    return outcome


def _entry(
    task: Task, index: int, name: str, awaited: dict[str, Future[FileScores]], outcome: Outcome, folder: Path
) -> Entry:
    """Return an image's scores; a stage that fails is left out and named."""
    entry = Entry(index, name, {}, [])
    for stage, future in awaited.items():
        path = task.matched.stages[stage][name]
        try:
            scores = future.result()
        except MetricError:
            raise
        except ReblurError as error:
            outcome.failures.append(str(error))
            continue
        outcome.scored += 1
        shown = stage if stage == BLURRY or (stage and len(task.matched.stages) > 1) else RESULT
        entry.stages[shown] = scores.values
        entry.pixels |= {key: found for key, found in scores.pixels.items() if key == "sharp"}
        entry.pictures[shown] = _relative(path, folder)
        outcome.notes += [f"{path}: {message}" for _, message in scores.messages]
    entry.sharp, entry.blurry = _absolute(task.sharp, name), _absolute(task.blurry, name)
    return entry


def _absolute(images: Mapping[str, Path] | None, name: str) -> str | None:
    return os.path.abspath(images[name]) if images and name in images else None


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(os.path.realpath(path), os.path.realpath(folder))).as_posix()
    except ValueError:  # another drive of Windows
        return os.path.abspath(path)


def _identity(task: Task, metrics: Metrics, device: str) -> dict[str, Any]:
    """Return all that the scores depend on."""
    files = [(stage, name, path) for stage, found in task.matched.stages.items() for name, path in found.items()]
    files += [("sharp", name, path) for name, path in (task.sharp or {}).items()]
    weights = {f"metric {name}": block["weights"] for name, block in metrics.items() if block.get("weights")}
    return {
        "options": hashlib.sha256(json.dumps([metrics, task.dataset], sort_keys=True).encode()).hexdigest()[:16],
        "checkpoints": {key: variants.fingerprint_of(path) for key, path in weights.items()},
        "data": {task.dataset: _of_files(files)},
        "device": device,
        "versions": variants.versions(),
    }


def _head(task: Task, metrics: Metrics) -> records.Head:
    return {
        "run": task.label,
        "program": "evaluate",
        "datasets": [task.dataset],
        "metrics": {name: asdict(variants.variant(block)) for name, block in metrics.items()},
        "blur_kinds": {task.dataset: task.blur_kind},
        "folder": os.path.abspath(task.matched.folder),
        "matched": task.matched.how,
        "problems": task.matched.problems,
    }


def _of_files(files: Sequence[tuple[str, str, Path]]) -> str:
    """Return a hash over stages, names, files, sizes and times: another one if a file was written again."""
    digest = hashlib.sha256()
    for stage, name, path in files:
        try:
            known = path.stat()
            state = f"{known.st_size} {known.st_mtime_ns}"
        except OSError:  # a broken link, say; it fails when it is scored
            state = "missing"
        digest.update(as_bytes(f"{stage} {name} {os.path.realpath(path)} {state}\n"))
    return digest.hexdigest()[:16]


def labels(folders: Sequence[Path]) -> list[str]:
    """Return a short name for each folder: as many of its last parts as tell it from the others."""
    whole = [Path(os.path.abspath(folder)).parts for folder in folders]
    found = []
    for parts in whole:
        others = [other for other in whole if other != parts]
        sizes = range(1, len(parts) + 1)
        size = next((size for size in sizes if all(other[-size:] != parts[-size:] for other in others)), len(parts))
        found.append("_".join(part.strip("/\\:") for part in parts[-size:]))
    return found
