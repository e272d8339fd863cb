"""Worker processes and whose turn it is: one photograph is deblurred at a time, in the order of asking."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
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
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> asyncio.subprocess.Process:
        """Return the process, which imports what it needs meanwhile."""
        if self._process is None or self._process.returncode is not None:
            search = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            bound = {
                "OPENCV_IO_MAX_IMAGE_PIXELS": str(int(self._settings.max_pixels))
            }  # of formats without a known header
            self._process = await asyncio.create_subprocess_exec(
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
        return self._process

    async def ask(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a request. If the caller is cancelled meanwhile, the process is killed.

        Raises:
            WorkerError: if the request failed, or the process died.
        """
        process = await self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        is_over = False
        try:
            with contextlib.suppress(OSError):  # it has died: so say its events
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
            while line := await process.stdout.readline():
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
                self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        self._process = None


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
