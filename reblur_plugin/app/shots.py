"""One photograph of a visitor: what is done to it, and what its page shows."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

from reblur_plugin.app.processes import Clock

WEIGHTS = "weights"  # the folder of a visitor's own ones
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
State = Literal["looking", "ready", "refused", "waiting", "deblurring", "done", "failed"]


@dataclass(eq=False)
class Shot:
    """One photograph of a visitor.

    Attributes:
        name: as the visitor's file is called; on disk it has another one.
        folder: of its files.
        said: how the last run ended, if there is something to say.
        problem: why it can't be deblurred as the visitor wishes.
        told: what the result won't have of the file.
        expects: time and memory in words, before it begins.
        steps: pictures of L^0 ... L_Adapted^N as they come, by number.
        result: the file to take away, once it is there.
    """

    id: str
    name: str
    folder: Path
    source: Path
    state: State = "looking"
    said: str = ""
    problem: str = ""
    told: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    blurry: str | None = None
    expects: str = ""
    clock: Clock | None = None
    steps: dict[int, dict[str, Any]] = field(default_factory=dict)
    blur: dict[int, dict[str, Any]] = field(default_factory=dict)
    result: Path | None = None
    run: int = 0
    deblurring: asyncio.Task[None] | None = None
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    def of(cls, identity: str, name: str, folder: Path) -> Shot:
        """Return a photograph of that name, whose suffix alone goes to the disk."""
        suffix = PurePath(name).suffix.lower()
        return cls(identity, name, folder, folder / f"photograph{suffix if _SUFFIX.fullmatch(suffix) else ''}")

    @property
    def is_busy(self) -> bool:
        """Whether it waits for its turn or is deblurred."""
        return self.state in ("waiting", "deblurring")

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something to it; what goes wrong unexpectedly is its card's to say."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self.state == "looking":
            self.state, self.problem = "refused", self.in_words_of_visitor(str(error) or type(error).__name__)

    def cancel(self) -> None:
        """End deblurring it, at once."""
        if self.deblurring is not None:
            self.deblurring.cancel()

    def take(self, event: dict[str, Any]) -> None:
        """Note what a worker tells."""
        kind = event["event"]
        if kind == "photograph":
            self.size, self.blurry, self.told = (event["width"], event["height"]), event["src"], event["told"]
        elif kind == "plan":
            self.expects, self.clock = event["words"], Clock(event["seconds"])
        elif kind == "pass" and self.clock:
            self.clock.passed(event["done"], event["of"])
        elif kind == "step":
            self.steps[event["number"]] = {"src": f"{self.run}/{event['src']}", "change": event["change"]}
        elif kind == "blur":
            self.blur[event["number"]] = {"src": f"{self.run}/{event['src']}", "mean": event["mean"]}
        elif kind == "result":
            self.result = self.folder / str(self.run) / event["file"]
            self.said = f"not adapted: {event['fallback']}" if event["fallback"] else ""

    def in_words_of_visitor(self, sentence: str) -> str:
        """Return a sentence with the photograph's own name in place of its path here."""
        for path, word in ((self.source, self.name), (self.folder, self.name), (self.folder.parent / WEIGHTS, "")):
            sentence = sentence.replace(f"{path}{os.sep if not word else ''}", word)
        return sentence

    def begin(self) -> Path:
        """Return the folder of another run, whose files take the place of an earlier one's."""
        self._forget_run()
        self.run += 1
        folder = self.folder / str(self.run)
        folder.mkdir()
        return folder

    def _forget_run(self) -> None:
        shutil.rmtree(self.folder / str(self.run), ignore_errors=True)
        self.steps, self.blur, self.result, self.said, self.clock = {}, {}, None, "", None

    def for_page(self, before: int) -> dict[str, Any]:
        """Return what the page shows of it; `before`: how many are deblurred first."""
        clock = self.clock if self.state == "deblurring" else None
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "said": self.said,
            "problem": self.problem,
            "told": self.told,
            "size": self.size,
            "blurry": self.blurry,
            "expects": self.expects,
            "before": before,
            "part": clock and clock.part,
            "left": clock and clock.left,
            "steps": [{"number": number, **step} for number, step in sorted(self.steps.items())],
            "blur": [{"number": number, **blur} for number, blur in sorted(self.blur.items())],
            "result": self.result is not None,
        }
