"""Runs and folders of pictures, as a report is given them, to runs with scores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reblur_plugin.data.listing import subfolders
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation import commands
from reblur_plugin.evaluation.folders import labels
from reblur_plugin.evaluation.records import Run, is_run, read_runs


@dataclass
class Loaded:
    """Runs, and a sentence for each thing that could not be used."""

    runs: list[Run]
    problems: list[str]


def load(asked: commands.Asked) -> Loaded:
    """Return runs as they are, runs of each sub-folder of a folder that holds some, and others' pictures scored now.

    Raises:
        ReblurError: if nothing of it can be used.
    """
    problems: list[str] = []
    runs: list[tuple[str | None, Run]] = []
    pictures: list[str] = []
    for given in asked.results:
        label, folder = commands.split_label(given)
        if not is_run(folder) and not (inside := _runs_in(folder)):
            pictures.append(given)
            continue
        try:
            found = read_runs(folder) if is_run(folder) else [run for one in inside for run in read_runs(one)]
        except ReblurError as error:
            problems.append(str(error))
            continue
        if label and len(found) > 1:
            raise ReblurError(f"{given}: expected one run to be called {label}, got {len(found)}; give each by itself")
        runs += [(label, run) for run in found]
    if pictures or (asked.blurry and asked.sharp and not runs):
        try:
            scored = commands.evaluate(replace(asked, results=pictures))
        except ReblurError as error:
            problems.append(str(error))
        else:
            problems += [*scored.failures, *scored.notes]
            runs += [(None, run) for run in scored.runs]
    else:
        problems += [f"{one}: no such folder" for one in (asked.sharp, asked.blurry) if one and not one.is_dir()]
    if not any(run.records for _, run in runs):
        problems += [f"{run.folder}: holds no scores" for _, run in runs]
        raise ReblurError("; ".join(problems))
    return Loaded(_named(runs), problems)


def _runs_in(folder: Path) -> list[Path]:
    return [one for one in subfolders(folder) if is_run(one)] if os.path.isdir(folder) else []


def _named(runs: Sequence[tuple[str | None, Run]]) -> list[Run]:
    """Return runs with names that tell them apart: as given, else their own, else their folders', else with a number.

    Raises:
        ReblurError: if one name is given twice.
    """
    given = Counter(label for label, _ in runs if label)
    if twice := [label for label, count in given.items() if count > 1]:
        raise ReblurError(f"{twice[0]}=: expected a name for one run, got it twice; give another one")
    names = [label or run.name for label, run in runs]
    counts = Counter(names)
    folders = labels([run.folder for _, run in runs])
    taken: set[str] = set()
    found = []
    for name, folder, (label, run) in zip(names, folders, runs, strict=True):
        wanted = name if label or counts[name] == 1 else folder
        number, unique = 2, wanted
        while unique in taken:
            unique, number = f"{wanted} {number}", number + 1
        taken.add(unique)
        found.append(replace(run, name=unique))
    return found
