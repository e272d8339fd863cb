"""What `evaluate` and `report` do with folders of results: find, match, score all of them, and say how."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from reblur_plugin.core.device import device_named
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation import records, variants
from reblur_plugin.evaluation.folders import Outcome, Task, evaluate_folder, labels, pool_of
from reblur_plugin.evaluation.matching import BLURRY, SHARP, Matched, match, named_images
from reblur_plugin.evaluation.scores import BLURRY as BLURRY_STAGE
from reblur_plugin.evaluation.scores import RESULT, text_table
from reblur_plugin.evaluation.values import Measured, Metrics, needs_reference, value
from reblur_plugin.files import FileError, at_home
from reblur_plugin.names import problem
from reblur_plugin.pretrained.catalogue import named

_FEW = 8  # pictures that one process has scored before others have started
_TAKEN = (BLURRY_STAGE, "sharp")  # what the data set's own images are called
_MOST_OF_GPU = 8  # processes that share one


@dataclass
class Asked:
    """What an evaluation is asked for; see the command's help.

    Attributes:
        results: folders, each with `LABEL=` before it or without.
        optional: metrics that are left out, with a note, if they can't be computed here.
        device: "auto" for all GPUs.
        overwrite, anew: of `evaluate_folder`.
    """

    results: Sequence[str]
    sharp: Path | None
    blurry: Path | None
    metrics: Metrics
    optional: set[str]
    out: Path
    device: str = "auto"
    processes: int | None = None
    by_order: bool = False
    overwrite: bool = False
    anew: bool = False


@dataclass
class Found:
    """What an evaluation has found: each folder's run, how its names were matched, and what went wrong."""

    runs: list[records.Run] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    scored: int = 0
    processes: int = 1


def evaluate(asked: Asked) -> Found:
    """Score all folders and write a run for each to `asked.out`.

    Raises:
        ReblurError: if sharp or blurry images can't be found, no folder can be scored, or a metric can't be computed.
    """
    found = Found()
    tasks = _tasks(asked, found)
    if not tasks:
        raise ReblurError("; ".join(found.failures))
    try:
        metrics = _computable(asked, found)
    except ReblurError as error:
        raise ReblurError("; ".join([*found.failures, str(error)])) from error
    pictures = sum(len(images) for task in tasks for images in task.matched.stages.values())
    devices = _devices(asked.device)
    found.processes = _processes(asked.processes, pictures, devices, metrics)
    with pool_of(found.processes, devices) as pool:
        name = variants.device_name(torch.device(devices[0]))
        for task in tasks:
            choices = asked.overwrite, asked.anew
            try:
                outcome = evaluate_folder(task, metrics, pool, asked.out / task.label, name, *choices)
            except (MetricError, FileError):
                raise
            except ReblurError as error:
                found.failures.append(str(error))
                continue
            _add(found, task, outcome)
    return found


def _add(found: Found, task: Task, outcome: Outcome) -> None:
    found.runs.append(outcome.run)
    found.how.append(f"{task.label}: {task.matched.how}")
    found.scored += outcome.scored
    found.notes += [*task.matched.problems, *outcome.notes]
    found.failures += outcome.failures


def split_label(given: str) -> tuple[str | None, Path]:
    """Return LABEL and path of `LABEL=PATH`; a path that is there as it is has no label.

    Raises:
        ReblurError: if the label can't be the name of a folder.
    """
    label, equals, path = given.partition("=")
    if not equals or os.path.exists(at_home(given)):
        return None, at_home(given)
    if problem(label):
        raise ReblurError(f"{given}: expected LABEL=FOLDER with a plain name as LABEL, got {label!r}; give another one")
    return label, at_home(path)


def _tasks(asked: Asked, found: Found) -> list[Task]:
    """Return the folders that can be scored, the blurry images among them; the others are failures."""
    sharp = named_images(asked.sharp, SHARP)[0] if asked.sharp else None
    blurry, kind = named_images(asked.blurry, BLURRY) if asked.blurry else (None, "")
    dataset = next((folder.resolve().name for folder in (asked.sharp, asked.blurry) if folder), "results")
    given = [split_label(one) for one in asked.results]
    short = labels([path for _, path in given])
    tasks: dict[str, Task] = {}
    for name, (label, folder) in zip(short, given, strict=True):
        label = label or name
        try:
            matched = match(folder, sharp or blurry, asked.by_order)
        except ReblurError as error:
            found.failures.append(str(error))
            continue
        if label in tasks or label in _TAKEN:
            why = "a second folder" if label in tasks else "a folder of results"
            raise ReblurError(f"{folder}: {why} called {label}; give another name: NAME={folder}")
        tasks[label] = Task(label, matched, sharp, blurry, dataset, kind)
    if asked.blurry and blurry:
        images = {name: path for name, path in blurry.items() if sharp is None or name in sharp}
        if not images:
            first = next(iter(blurry))
            found.failures.append(f"{asked.blurry}: expected images named as the sharp ones, got {first}; not scored")
            return list(tasks.values())
        how = f"{len(images)} images of the data set" + (f", kind {kind}" if kind else "")
        matched = Matched(asked.blurry, {BLURRY_STAGE: images}, how)
        tasks[BLURRY_STAGE] = Task(BLURRY_STAGE, matched, sharp, blurry, dataset, kind)
    return list(tasks.values())


def _computable(asked: Asked, found: Found) -> Metrics:
    """Return the metrics, tried on a small picture: here it shows if weights are missing.

    Raises:
        MetricError: if one that was asked for can't be computed.
    """
    metrics: Metrics = {}
    small = np.random.default_rng(0).integers(0, 256, (96, 192, 3), dtype=np.uint8)
    for name, options in asked.metrics.items():
        if options["type"] == "reblurability" and (known := named(str(options["weights"]))):
            options = {**options, "weights": str(known.reblur_net)}
        if asked.sharp is None and needs_reference(options["type"]):
            continue
        try:
            value(Measured(small, small), options, torch.device("cpu"))
        except MetricError as error:
            if name not in asked.optional or options.get("weights"):
                raise
            found.notes.append(f"{name} is left out: {error}")
            continue
        metrics[name] = options
    if not metrics:
        raise MetricError("--metrics: expected one that needs no sharp images, since there is no --gt; give either")
    return metrics


def _devices(asked: str) -> list[str]:
    if asked == "auto" and torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [str(device_named(asked))]


def _processes(asked: int | None, pictures: int, devices: Sequence[str], metrics: Metrics) -> int:
    """Return how many processes pay: one a core, but fewer than would crowd a GPU."""
    if asked is not None:
        if asked < 1:
            raise ReblurError(f"--processes: expected 1 or more, got {asked}")
        return asked
    if pictures < _FEW:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_gpu = devices[0] != "cpu" and any(one["type"] in ("reblur_lpips", "reblurability") for one in metrics.values())
    return min(cores, pictures, _MOST_OF_GPU * len(devices) if on_gpu else cores)


def text_of(found: Found, seconds: float) -> str:
    """Return how names were matched, the means and the speed, as text for people."""
    names = list(dict.fromkeys(name for run in found.runs for one in run.records for name in one.scores))
    rows = [["", "images", *names]]
    variants_of = {}
    for run in found.runs:
        scores: dict[str, dict[str, list[float]]] = {}
        for record in run.records:
            for name, score in record.scores.items():
                scores.setdefault(record.stage, {}).setdefault(name, []).append(score.value)
                variants_of[name] = score.variant.label
        for stage, values in scores.items():
            label = run.name if stage in (RESULT, run.name) else f"{run.name} {stage}"
            count = max(map(len, values.values()))
            rows.append([label, str(count), *(_mean(values.get(name, [])) for name in names)])
    lines = ["Names:", *(f"  {one}" for one in found.how), ""]
    lines += ["Notes:", *(f"  {one}" for one in found.notes), ""] if found.notes else []
    lines += [text_table(rows), "", *(f"{name}: {label}" for name, label in variants_of.items())]
    lines += [note for run in found.runs for name in names if (note := _infinite(run, name))]
    if found.scored:
        speed = f"{found.scored / seconds:.1f} images a second by {found.processes}"
        lines += ["", f"{found.scored} images in {seconds:.1f} s: {speed} process{'es' * (found.processes > 1)}"]
    return "\n".join([*lines, ""])


def _infinite(run: records.Run, name: str) -> str:
    values = [one.scores[name].value for one in run.records if name in one.scores]
    count = sum(map(math.isinf, values))
    return f"{run.name}: {name} is infinite for {count} image{'s' * (count > 1)}, left out of its mean" if count else ""


def _mean(values: Sequence[float]) -> str:
    finite = [value for value in values if math.isfinite(value)]
    return f"{math.fsum(finite) / len(finite):.4f}" if finite else "-"
