"""What a test has finished, a line an image, so that a test that was killed goes on from there."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reblur_plugin.evaluation.scores import TraceRow
from reblur_plugin.files import whole_file, writing

_HEAD = "test.json"
_REMEDY = "free or change the disk, then run it again"


@dataclass
class Entry:
    """One finished image: its place in the data set, its name, what `Scores` holds of it, and its files.

    Attributes:
        pictures: files of its stages, relative to the run's folder.
        blurry, sharp: files of the data set.
        pixels: fingerprints of both.
    """

    index: int
    name: str
    stages: dict[str, dict[str, float]]
    trace: list[TraceRow]
    fallback: str | None = None
    pictures: dict[str, str] = field(default_factory=dict)
    blurry: str | None = None
    sharp: str | None = None
    pixels: dict[str, str] = field(default_factory=dict)


class Journal:
    """A folder with what the test is (`test.json`) and, for each process, the images that it has finished.

    The folder is there as long as the test is unfinished. A line is written in one piece after its image's pictures;
    one that a kill has torn doesn't count. Numbers are read as they were, bit for bit.

    Args:
        folder: results/NAME/journal.
        rank: number of this process, which writes a file of its own.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank

    def differences(self, identity: dict[str, Any]) -> list[str] | None:
        """Return the parts of `identity` in which the unfinished test here is another one; None if there is none."""
        head = self.head()
        return None if head is None else [key for key, value in identity.items() if head.get(key) != value]

    def head(self) -> dict[str, Any] | None:
        """Return what `start` noted; None if there is no unfinished test."""
        try:
            head = json.loads((self.folder / _HEAD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return head if isinstance(head, dict) else None

    def start(self, identity: dict[str, Any]) -> None:
        """Note what test this is, and what else a reader of it needs."""
        with whole_file(self.folder / _HEAD, _REMEDY, named=self.folder) as file:
            file.write(json.dumps(identity).encode())

    def entries(self, dataset: str, complete: bool = False) -> list[Entry]:
        """Return the finished images of a data set, each once, by whatever number of processes they were finished.

        Args:
            dataset: its name.
            complete: leave out those of which something failed.
        """
        found: dict[int, Entry] = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for line in path.read_bytes().splitlines():
                try:
                    values = json.loads(line)
                    if values.pop("dataset") != dataset or (complete and values.get("failed")):
                        continue
                    values.pop("failed", None)
                    entry = _entry(values)
                except (ValueError, KeyError, TypeError, AttributeError, OverflowError):  # torn, or no line of ours
                    continue
                found[entry.index] = entry
        return [found[index] for index in sorted(found)]

    def add(self, dataset: str, entry: Entry, is_complete: bool = True) -> None:
        """Note one more finished image, and whether something of it failed."""
        path = self.folder / f"{self.rank}.jsonl"
        failed = {} if is_complete else {"failed": True}
        line = json.dumps({"dataset": dataset, **asdict(entry), **failed}).encode()
        with writing(self.folder, _REMEDY):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.write(b"\n" + line + b"\n")  # the first ends a torn line

    def finish(self) -> None:
        """Forget the journal: from now on the test counts as finished."""
        (self.folder / _HEAD).unlink(missing_ok=True)  # first: without it the rest counts for nothing
        self.remove()

    def remove(self) -> None:
        """Delete the folder, if it is there."""
        with writing(self.folder, _REMEDY):
            if os.path.lexists(self.folder):
                shutil.rmtree(self.folder)


def _entry(values: dict[str, Any]) -> Entry:
    """Return the entry of a line.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, OverflowError: if it is none.
    """
    entry = Entry(**values)
    entry.trace = [TraceRow(**row) for row in values["trace"]]
    entry.stages = {
        text(stage): {text(name): float(value) for name, value in scores.items()}
        for stage, scores in entry.stages.items()
    }
    entry.index, entry.name = int(entry.index), text(entry.name)
    for path in (entry.blurry, entry.sharp, *entry.pictures.values()):
        file_name(path or "")
    for key, value in (*entry.pixels.items(), ("", entry.fallback or "")):
        text(key), text(value)
    return entry


def text(value: Any) -> str:
    """Return a value that must be text; `TypeError` if it is none."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def file_name(value: Any) -> str:
    """Return a value that must be a file's name, as far as any system can have it; else `TypeError` or `ValueError`."""
    if "\0" in text(value):
        raise ValueError("expected a file's name, got one with a zero")
    os.fsencode(value)
    return str(value)
