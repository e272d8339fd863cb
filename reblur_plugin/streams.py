"""Standard streams that never end a job: by a character they can't show, a reader that has gone, or by being closed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal


class Steady:
    """A stream that fails once at most: what is written afterwards is lost.

    Attributes:
        error: why it has failed, None if it hasn't.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write; the length of `text`, also where it is lost."""
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        """Flush what can be."""
        self._try("flush")

    def _try(self, name: str, *arguments: Any) -> None:
        if self.error is None:
            try:
                getattr(self._stream, name)(*arguments)
            except OSError as error:
                self.error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def steady(name: Literal["stdout", "stderr"]) -> Iterator[Steady]:
    """Put a `Steady` in the place of `sys.stdout` or `sys.stderr`.

    Characters that the stream's encoding lacks are written as \\xe9, as Python does on stderr.
    """
    before = getattr(sys, name)
    with open(os.devnull, "w", encoding="utf-8", errors="backslashreplace") as nothing:
        stream = Steady(before or nothing)
        if getattr(before, "errors", None) == "strict":
            before.reconfigure(errors="backslashreplace")
        setattr(sys, name, stream)
        try:
            yield stream
        finally:
            stream.flush()
            setattr(sys, name, before)
            if before and stream.error:  # Python would try once more at its end, and fail
                with suppress(OSError):
                    os.dup2(nothing.fileno(), before.fileno())
