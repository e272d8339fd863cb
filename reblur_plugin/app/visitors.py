"""A visitor is one open page: its photographs, their files and what is known of them. All of it goes with the page."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from reblur_plugin.app.shots import Shot
from reblur_plugin.errors import ReblurError

MOST_PHOTOGRAPHS = 20  # of a visitor at once
MOST_WEIGHTS = 4  # files of them
_MOST_VISITORS = 32
_GRACE = 600.0  # seconds that a page may be out of reach (a phone that sleeps) before its files go
_HEARTBEAT = 15.0  # seconds between signs of life to a page
_PAUSE = 0.05  # seconds in which changes are told together


class VisitError(ReblurError):
    """Something that a visitor asks for and can't have; the message says why."""


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
        self._arriving: set[str] = set()  # photographs whose files aren't whole yet
        self.wishes: dict[str, Any] | None = None
        self.is_gone = False
        self._changes = 0
        self._changed = asyncio.Event()
        self._listeners = 0
        self._leaving: asyncio.TimerHandle | None = None
        self._silent_since: float | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    def shot(self, identity: str) -> Shot:
        """Return a photograph.

        Raises:
            VisitError: if there is none, or not any more.
        """
        if identity not in self.shots:
            raise VisitError("photograph: it isn't here any more; drop it again")
        return self.shots[identity]

    def new_shot(self, name: str) -> Shot:
        """Return a photograph whose file isn't there yet, so that it isn't among the visitor's.

        Raises:
            VisitError: if there are too many.
        """
        if len(self.shots) + len(self._arriving) >= MOST_PHOTOGRAPHS:
            raise VisitError(f"{name}: expected at most {MOST_PHOTOGRAPHS} photographs at once; remove some")
        identity = secrets.token_hex(8)
        folder = self.folder / identity
        folder.mkdir()
        self._arriving.add(identity)
        return Shot.of(identity, name, folder)

    def add(self, shot: Shot) -> None:
        """Take a photograph whose file is whole.

        Raises:
            VisitError: if the visitor has left meanwhile.
        """
        if self.is_gone:
            raise VisitError("page: it was closed meanwhile")
        self._arriving.discard(shot.id)
        self.shots[shot.id] = shot
        self.changed()

    def remove(self, shot: Shot) -> None:
        """Forget a photograph and its files; what is done to it ends."""
        self.shots.pop(shot.id, None)
        self._arriving.discard(shot.id)
        for task in shot.tasks:
            task.cancel()
        self._delete(shot.folder, list(shot.tasks))
        self.changed()

    def _delete(self, folder: Path, tasks: list[asyncio.Task[Any]]) -> None:
        """Delete a folder; once more when the tasks have ended, whose processes may have written to it."""
        shutil.rmtree(folder, ignore_errors=True)
        if tasks:
            self.keep(self._delete_after(folder, tasks))

    async def _delete_after(self, folder: Path, tasks: list[asyncio.Task[Any]]) -> None:
        await asyncio.gather(*tasks, return_exceptions=True)
        shutil.rmtree(folder, ignore_errors=True)

    def keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let something be done that nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # which the loop doesn't keep
        task.add_done_callback(self._tasks.discard)

    def changed(self) -> None:
        """Let the page know."""
        self._changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[None]:
        """Yield at once, and then whenever something has changed or some time is over."""
        self._listeners += 1
        self._silent_since = None
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

    @property
    def lost_since(self) -> float | None:
        """Return when the page was heard of last, in the loop's time; None, if it is open or something is worked on."""
        return None if any(shot.is_busy for shot in self.shots.values()) else self._silent_since

    def leave_later(self) -> None:
        """Leave if nobody listens any more after some time."""
        if not self._listeners and not self.is_gone:
            self._silent_since = asyncio.get_running_loop().time()
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
        tasks = [task for shot in self.shots.values() for task in shot.tasks]
        for shot in list(self.shots.values()):
            self.remove(shot)
        self._delete(self.folder, tasks)
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
        lost = sorted((visitor for visitor in self if visitor.lost_since is not None), key=lambda one: one.lost_since)
        if lost and len(list(self)) >= _MOST_VISITORS:
            lost[0].leave()  # whose page has been out of reach for longest
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
