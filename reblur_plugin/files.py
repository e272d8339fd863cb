"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write to; it becomes `path` when the block has ended well, and leaves nothing behind otherwise.

    The folder is made if it isn't there; content reaches the disk before the name does.

    Raises:
        OSError: if the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()  # not there any more unless something went wrong


def remove_parts(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder and below; nobody else may be writing there."""
    for partial in folder.rglob(".*.part"):
        partial.unlink(missing_ok=True)
