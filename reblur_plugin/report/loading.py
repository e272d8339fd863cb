"""Runs and folders of pictures, as a report is given them, to runs with scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reblur_plugin.data.listing import subfolders
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation import commands
from reblur_plugin.evaluation.folders import labels
from reblur_plugin.evaluation.records import Run, is_run, read_run


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
        inside = [] if is_run(folder) or not folder.is_dir() else [one for one in subfolders(folder) if is_run(one)]
        if not is_run(folder) and not inside:
            pictures.append(given)
            continue
        for one in inside or [folder]:
            try:
                runs.append((label if not inside else None, read_run(one)))
            except ReblurError as error:
                problems.append(str(error))
    if pictures or (asked.blurry and asked.sharp and not runs):
        try:
            found = commands.evaluate(replace(asked, results=pictures))
        except ReblurError as error:
            problems.append(str(error))
        else:
            problems += [*found.failures, *found.notes]
            runs += [(None, run) for run in found.runs]
    if not runs:
        raise ReblurError("; ".join(problems))
    return Loaded(_named(runs), problems)


def _named(runs: Sequence[tuple[str | None, Run]]) -> list[Run]:
    """Return runs with names that tell them apart: as given, else their own, else their folders'."""
    names = [label or run.name for label, run in runs]
    counts = Counter(names)
    folders = labels([run.folder for _, run in runs])
    unique = [name if counts[name] == 1 else folder for name, folder in zip(names, folders, strict=True)]
    return [replace(run, name=name) for name, (_, run) in zip(unique, runs, strict=True)]
