"""What is done to visitors' photographs: looked at beside each other's deblurring, which is one at a time."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from reblur_plugin.app.processes import Turns, Worker, WorkerError
from reblur_plugin.app.settings import Settings
from reblur_plugin.app.shots import Shot
from reblur_plugin.app.visitors import VisitError, Visitor, Visitors

_PATIENCE = 300.0  # seconds for a look: a stranger's file may lead a process in circles


class Workshop:
    """Two worker processes: one deblurs, one says beforehand what that will take.

    Args:
        settings: of the server.
        visitors: who may be in it.
    """

    def __init__(self, settings: Settings, visitors: Visitors) -> None:
        self._visitors = visitors
        self._is_open = False
        self._deblurring, self._looking = Worker(settings), Worker(settings, _PATIENCE)
        self._to_deblur, self._to_look = Turns(self._tell_waiting), Turns(lambda: None)

    async def open(self) -> None:
        """Start the processes, so that the first visitor waits less."""
        self._is_open = True
        await self._looking.start()
        await self._deblurring.start()

    def close(self) -> None:
        """End the processes."""
        self._is_open = False
        self._looking.kill()
        self._deblurring.kill()

    async def closed(self) -> None:
        """Wait until the processes have ended."""
        await self._looking.ended()
        await self._deblurring.ended()

    def before(self, shot: Shot) -> int:
        """Return how many photographs are deblurred before this one."""
        return self._to_deblur.before(shot)

    def look(self, visitor: Visitor, shot: Shot) -> None:
        """Check a photograph, show it and say what it will take as the visitor's wishes are now."""
        shot.start(self._look(visitor, shot, visitor.wishes))

    def deblur(self, visitor: Visitor, shot: Shot, wishes: dict[str, Any]) -> None:
        """Deblur a photograph as it is wished, when its turn comes.

        Raises:
            VisitError: if it isn't checked yet, or can't be used.
        """
        if shot.blurry is None:
            raise VisitError(f"{shot.name}: expected a photograph that is checked, got one that {shot.state} yet")
        shot.state, shot.said = "waiting", ""
        shot.deblurring = shot.start(self._deblur(visitor, shot, wishes))
        shot.deblurring.add_done_callback(lambda task: self._after(visitor, shot, task))
        visitor.changed()

    async def _look(self, visitor: Visitor, shot: Shot, wishes: Any) -> None:
        async with self._to_look.turn(shot):
            if wishes != visitor.wishes or shot.is_busy:
                return  # it isn't asked for any more
            request = {"do": "look", "source": str(shot.source), "folder": str(shot.folder), "wishes": wishes}
            try:
                async with aclosing(self._looking.ask(request)) as events:
                    async for event in events:
                        if not shot.is_busy:
                            shot.take(event)
                            visitor.changed()
            except WorkerError as error:
                shot.problem, shot.expects = shot.in_words_of_visitor(str(error)), ""
            else:
                shot.problem = ""
                if shot.state == "failed":  # as it was wished then
                    shot.state, shot.said = "ready", ""
            if shot.state in ("looking", "refused"):
                shot.state = "refused" if shot.blurry is None else "ready"
        visitor.changed()

    async def _deblur(self, visitor: Visitor, shot: Shot, wishes: Any) -> None:
        async with self._to_deblur.turn(shot):
            shot.state = "deblurring"
            folder = shot.begin()
            visitor.changed()
            request = {"do": "deblur", "source": str(shot.source), "folder": str(folder), "wishes": wishes}
            async with aclosing(self._deblurring.ask(request)) as events:
                async for event in events:
                    shot.take(event)
                    visitor.changed()

    def _after(self, visitor: Visitor, shot: Shot, task: asyncio.Task[None]) -> None:
        """Note how it ended: also if it was cancelled before it began, or by something unexpected."""
        if task.cancelled():
            shot.state, shot.said = ("done", "") if shot.result else ("ready", "cancelled")
            if self._is_open:
                visitor.keep(self._deblurring.start())  # while the visitor thinks
        elif (error := task.exception()) is not None:
            shot.state, shot.said = "failed", shot.in_words_of_visitor(str(error) or type(error).__name__)
        else:
            shot.state = "done"
        visitor.changed()

    def _tell_waiting(self) -> None:
        for visitor in self._visitors:
            if any(shot.state == "waiting" for shot in visitor.shots.values()):
                visitor.changed()
