"""Worker processes and whose turn it is: one photograph is deblurred at a time, in the order of asking."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from reblur_plugin.app.settings import Settings
from reblur_plugin.errors import ReblurError

_LONGEST_LINE = 2**20


class WorkerError(ReblurError):
    """A request that a worker process couldn't follow; the message is for the visitor."""


class Worker:
    """A process of `app/worker.py`, started when it is needed. It answers one request at a time.

    Args:
        settings: of the server.
        patience: seconds that it may be silent; None for any time.
    """

    def __init__(self, settings: Settings, patience: float | None = None) -> None:
        self._settings, self._patience = settings, patience
        self._starting: asyncio.Task[Process] | None = None  # one for all who ask at once
        self._spawned: set[Process] = set()

    async def start(self) -> Process:
        """Return the process, which imports what it needs meanwhile.

        Raises:
            WorkerError: if the system has no more processes.
        """
        if self._starting is None or (self._starting.done() and not _lives(_of(self._starting))):
            self._starting = asyncio.get_running_loop().create_task(self._spawn())
        return await asyncio.shield(self._starting)  # which goes on if who asked is cancelled

    async def _spawn(self) -> Process:
        search = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        bound = {"OPENCV_IO_MAX_IMAGE_PIXELS": str(int(self._settings.max_pixels))}  # where no header tells
        self._spawned = {process for process in self._spawned if process.returncode is None}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "reblur_plugin.app.worker",
                self._settings.for_worker(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LONGEST_LINE,
                env={**os.environ, **search, **bound},
                start_new_session=True,  # Ctrl-C in a terminal is for the server
            )
        except OSError as error:
            reason = error.strerror
            raise WorkerError(f"the process that deblurs can't be started ({reason}); try again later") from error
        self._spawned.add(process)
        return process

    async def ask(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the events of a request. If the caller is cancelled meanwhile, the process is killed.

        Raises:
            WorkerError: if the request failed, the process died, or it was silent for too long.
        """
        process = await self.start()
        assert process.stdin is not None
        is_over = False
        try:
            with contextlib.suppress(OSError):  # it has died: so say its events
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
            while line := await self._line(process):
                event = json.loads(line)
                is_over = event["event"] in ("done", "failed")
                if event["event"] == "failed":
                    raise WorkerError(event["why"])
                if is_over:
                    return
                yield event
            raise WorkerError(
                "the process that deblurs has died (killed, or out of memory?); choose less memory or a smaller picture"
            )
        finally:
            if not is_over:
                if _of(self._starting) is process:
                    self._starting = None
                _end(process)
                await process.wait()  # what it would still write

    async def _line(self, process: Process) -> bytes:
        assert process.stdout is not None
        try:
            return await asyncio.wait_for(process.stdout.readline(), self._patience)
        except asyncio.TimeoutError:
            raise WorkerError(f"this takes more than {self._patience:.0f} s; choose smaller files") from None
        except ValueError as error:  # a line without an end
            raise WorkerError(f"the process that deblurs said too much ({error})") from error

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        starting, self._starting = self._starting, None
        if starting is not None and not starting.done():
            starting.add_done_callback(lambda task: _end(_of(task)))
        _end(_of(starting))

    async def ended(self) -> None:
        """Wait until all processes have ended that were killed."""
        for process in list(self._spawned):
            await process.wait()


def _of(starting: asyncio.Task[Process] | None) -> Process | None:
    """Return the process that a task has started, None if it hasn't, or not yet."""
    if starting is None or not starting.done() or starting.cancelled() or starting.exception() is not None:
        return None
    return starting.result()


def _lives(process: Process | None) -> bool:
    return process is not None and process.returncode is None


def _end(process: Process | None) -> None:
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    if process.stdin is not None:
        process.stdin.close()


class Turns:
    """Who waits for one worker, in the order of asking.

    Args:
        changed: called whenever somebody's place has changed.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._lock = asyncio.Lock()  # which lets in who has waited longest
        self._waiting: list[object] = []
        self._changed = changed

    def before(self, who: object) -> int:
        """Return how many come before somebody; 0 for whose turn it is, or who doesn't wait."""
        return self._waiting.index(who) if who in self._waiting else 0

    @contextlib.asynccontextmanager
    async def turn(self, who: object) -> AsyncIterator[None]:
        """Wait for one's turn; it ends with the block."""
        self._waiting.append(who)
        self._changed()
        try:
            async with self._lock:
                self._changed()
                yield
        finally:
            self._waiting.remove(who)
            self._changed()


class Clock:
    """How long a photograph will still take, by the passes that are done and the estimate before."""

    def __init__(self, expected: float) -> None:
        self._begun = time.monotonic()
        self._expected = expected
        self._part = 0.0

    def passed(self, done: int, total: int) -> None:
        """Note that so many passes are done."""
        self._part = done / total
        self._expected = (time.monotonic() - self._begun) / self._part

    @property
    def part(self) -> float:
        """Return how much is done, from 0 to 1."""
        return self._part

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._begun + self._expected - time.monotonic())
