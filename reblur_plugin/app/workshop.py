"""What is done to visitors' photographs: looked at beside each other's deblurring, which is one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from reblur_plugin.app.processes import Turns, Worker, WorkerError
from reblur_plugin.app.settings import Settings
from reblur_plugin.app.visitors import Shot, Visitor, Visitors


class Workshop:
    """Two worker processes: one deblurs, one says beforehand what that will take.

    Args:
        settings: of the server.
        visitors: who may be in it.
    """

    def __init__(self, settings: Settings, visitors: Visitors) -> None:
        self._visitors = visitors
        self._is_open = False
        self._deblurring, self._looking = Worker(settings), Worker(settings)
        self._tasks: set[asyncio.Task[None]] = set()
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

    def before(self, shot: Shot) -> int:
        """Return how many photographs are deblurred before this one."""
        return self._to_deblur.before(shot)

    def look(self, visitor: Visitor, shot: Shot) -> None:
        """Check a photograph, show it and say what it will take as the visitor's wishes are now."""
        self._start(self._look(visitor, shot, visitor.wishes))

    def deblur(self, visitor: Visitor, shot: Shot, wishes: dict[str, Any]) -> None:
        """Deblur a photograph as it is wished, when its turn comes."""
        shot.state = "waiting"
        shot.task = self._start(self._deblur(visitor, shot, wishes))
        visitor.changed()

    def _start(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(what)
        self._tasks.add(task)  # which the loop doesn't keep
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self, visitor: Visitor, shot: Shot, wishes: Any) -> None:
        async with self._to_look.turn(shot):
            if wishes != visitor.wishes or shot.is_busy or shot.id not in visitor.shots:
                return  # it isn't asked for any more
            request = {"do": "look", "source": str(shot.source), "folder": str(shot.folder), "wishes": wishes}
            try:
                async for event in self._looking.ask(request):
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
        try:
            async with self._to_deblur.turn(shot):
                shot.state = "deblurring"
                folder = shot.begin()
                visitor.changed()
                request = {"do": "deblur", "source": str(shot.source), "folder": str(folder), "wishes": wishes}
                async for event in self._deblurring.ask(request):
                    shot.take(event)
                    visitor.changed()
            shot.state = "done"
        except WorkerError as error:
            shot.state, shot.said = "failed", shot.in_words_of_visitor(str(error))
        except asyncio.CancelledError:
            shot.state, shot.said = ("done", "") if shot.result else ("ready", "cancelled")
            if self._is_open:
                await self._deblurring.start()  # while the visitor thinks
        visitor.changed()

    def _tell_waiting(self) -> None:
        for visitor in self._visitors:
            if any(shot.state == "waiting" for shot in visitor.shots.values()):
                visitor.changed()
