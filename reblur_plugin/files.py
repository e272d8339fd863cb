"""Files that are whole or not there; a disk that refuses is one sentence, so that no caller words it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from reblur_plugin.errors import ReblurError


class FileError(ReblurError):
    """A file that can't be written; the message names it, the disk's reason and the remedy."""


@contextmanager
def whole_file(path: Path, remedy: str = "", named: Path | None = None) -> Iterator[BinaryIO]:
    """Yield a file to write to; it becomes `path` when the block has ended well, and leaves nothing behind otherwise.

    The folder is made if it isn't there; content reaches the disk before the name does.

    Args:
        path: the file.
        remedy: what the user can do if the disk refuses.
        named: what the message names instead of `path`.

    Raises:
        FileError: if the disk refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(named or path, remedy):
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


@contextmanager
def writing(path: Path, remedy: str = "") -> Iterator[None]:
    """Turn a refusal of the disk within the block into `<path>: can't be written (<reason>); <remedy>`.

    Raises:
        FileError: if the disk refuses.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise FileError(f"{path}: can't be written ({reason})" + (f"; {remedy}" if remedy else "")) from error


def remove_parts(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder and below; nobody else may be writing there."""
    for partial in folder.rglob(".*.part"):
        partial.unlink(missing_ok=True)
