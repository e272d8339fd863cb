"""A visitor is one open page: its photographs, their files and what is known of them. All of it goes with the page."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Literal

from reblur_plugin.app.processes import Clock
from reblur_plugin.errors import ReblurError

MOST_PHOTOGRAPHS = 20  # of a visitor at once
_MOST_VISITORS = 32
_GRACE = 600.0  # seconds that a page may be out of reach (a phone that sleeps) before its files go
_HEARTBEAT = 15.0  # seconds between signs of life to a page
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_PAUSE = 0.05  # seconds in which changes are told together
State = Literal["looking", "ready", "refused", "waiting", "deblurring", "done", "failed"]


class VisitError(ReblurError):
    """Something that a visitor asks for and can't have; the message says why."""


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
    task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it waits for its turn or is deblurred."""
        return self.state in ("waiting", "deblurring")

    def cancel(self) -> None:
        """End what is done to it, at once."""
        if self.task is not None:
            self.task.cancel()

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
        return sentence.replace(str(self.source), self.name).replace(str(self.folder), self.name)

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


class Visitor:
    """One open page, known by a token that nobody else can guess.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.token = folder.name
        self.folder = folder
        self.shots: dict[str, Shot] = {}
        self.weights: dict[str, Path] = {}
        self.wishes: dict[str, Any] | None = None
        self.is_gone = False
        self._changes = 0
        self._changed = asyncio.Event()
        self._listeners = 0
        self._leaving: asyncio.TimerHandle | None = None

    def shot(self, identity: str) -> Shot:
        """Return a photograph.

        Raises:
            VisitError: if there is none, or not any more.
        """
        if identity not in self.shots:
            raise VisitError("photograph: it isn't here any more; drop it again")
        return self.shots[identity]

    def new_shot(self, name: str) -> Shot:
        """Return a photograph whose file isn't there yet.

        Raises:
            VisitError: if there are too many.
        """
        if len(self.shots) >= MOST_PHOTOGRAPHS:
            raise VisitError(f"{name}: expected at most {MOST_PHOTOGRAPHS} photographs at once; remove some")
        identity = secrets.token_hex(8)
        folder = self.folder / identity
        folder.mkdir()
        suffix = PurePath(name).suffix.lower()
        shot = Shot(identity, name, folder, folder / f"photograph{suffix if _SUFFIX.fullmatch(suffix) else ''}")
        self.shots[identity] = shot
        return shot

    def remove(self, shot: Shot) -> None:
        """Forget a photograph and its files; what is done to it ends."""
        self.shots.pop(shot.id, None)
        shot.cancel()
        shutil.rmtree(shot.folder, ignore_errors=True)
        self.changed()

    def changed(self) -> None:
        """Let the page know."""
        self._changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[None]:
        """Yield at once, and then whenever something has changed or some time is over."""
        self._listeners += 1
        if self._leaving:
            self._leaving.cancel()
        try:
            while not self.is_gone:
                seen = self._changes
                yield
                await asyncio.sleep(_PAUSE)
                if self._changes == seen:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), _HEARTBEAT)
        finally:
            self._listeners -= 1
            self.leave_later()

    def leave_later(self) -> None:
        """Leave if nobody listens any more after some time."""
        if not self._listeners and not self.is_gone:
            self._leaving = asyncio.get_running_loop().call_later(_GRACE, self._leave_if_idle)

    def _leave_if_idle(self) -> None:
        """Leave, unless a photograph is worked on that its visitor may come back for."""
        if any(shot.is_busy for shot in self.shots.values()):
            self.leave_later()
        else:
            self.leave()

    def leave(self) -> None:
        """Forget everything."""
        if self._leaving:
            self._leaving.cancel()
        self.is_gone = True
        for shot in list(self.shots.values()):
            self.remove(shot)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.changed()


class Visitors:
    """All open pages.

    Args:
        root: a folder for their files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, Visitor] = {}

    def __iter__(self) -> Any:
        return iter([visitor for visitor in self._known.values() if not visitor.is_gone])

    def welcome(self) -> Visitor:
        """Return a new visitor.

        Raises:
            VisitError: if there are too many.
        """
        self._known = {visitor.token: visitor for visitor in self}
        if len(self._known) >= _MOST_VISITORS:
            raise VisitError(f"page: expected at most {_MOST_VISITORS} at once; close one, or try again later")
        folder = self._root / secrets.token_urlsafe(16)
        folder.mkdir()
        visitor = Visitor(folder)
        self._known[visitor.token] = visitor
        visitor.leave_later()
        return visitor

    def find(self, token: str) -> Visitor:
        """Return the visitor of a token.

        Raises:
            VisitError: if there is none, or not any more.
        """
        visitor = self._known.get(token)
        if visitor is None or visitor.is_gone:
            raise VisitError("page: the server knows it no more; load it again")
        return visitor
