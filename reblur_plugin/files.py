"""Files that are whole or not there; a disk that refuses is one sentence, so that no caller words it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO

from reblur_plugin.errors import ReblurError

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows nothing is locked
    fcntl = None
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between tries to replace a file
_HELD: set[Path] = set()  # folders' locks that this process has
_LONG = 200  # bytes of a name, beyond which the file's system may not take more of them


class FileError(ReblurError):
    """A file that can't be written; the message names it, the disk's reason and the remedy."""


def at_home(path: str | Path) -> Path:
    """Return a path whose ~ is the home folder; unchanged where the system knows no such person."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


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
    _forget_the_dead(path.parent)
    partial = path.with_name(_partial_name(path.name))
    with writing(named or path, remedy):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            _replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()  # not there any more unless something went wrong


def decoded(content: bytes) -> str:
    """Return text that somebody may have saved in any editor: UTF-8 or UTF-16, with a mark at its beginning or without.

    Raises:
        UnicodeDecodeError: if it is in another encoding.
    """
    return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def as_bytes(name: str) -> bytes:
    """Return a file's name in UTF-8 to compute from; also one whose bytes on the disk are no UTF-8."""
    return name.encode("utf-8", "surrogatepass")


def for_people(text: str) -> bytes:
    """Return text with files' names in UTF-8 for a file; bytes of a name that are no UTF-8 are written as \\udce9."""
    return text.encode("utf-8", "backslashreplace")


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


def _replace(partial: Path, path: Path) -> None:
    """Rename; Windows refuses as long as somebody, such as a virus scanner, has the older file open."""
    for pause in _PAUSES if os.name == "nt" else ():
        try:
            partial.replace(path)
            return
        except PermissionError:
            time.sleep(pause)
    partial.replace(path)


def _partial_name(name: str) -> str:
    """Return the hidden name under which this process writes a file: it tells of the machine and the process."""
    size = os.fsencode(name)
    short = name if len(size) <= _LONG else f"{name[:40]}-{zlib.crc32(size):08x}"
    return f".{short}.{_machine()}.{os.getpid()}.part"


def _machine() -> str:
    """Return what tells this machine's numbers of processes from those of others, and of other containers."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        known.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(known).encode()):08x}"


@cache
def _forget_the_dead(folder: Path) -> None:
    """Delete what processes of this machine have left in a folder when they were killed; looked for once."""
    for partial in folder.glob(f".*.{_machine()}.*.part"):
        process = partial.suffixes[-2][1:]
        if process.isdigit() and not _is_alive(int(process)):
            with contextlib.suppress(OSError):
                partial.unlink()


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # a look at a process would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Yield a folder that nobody else may look into; it goes with the block.

    Those of the same name go first that processes of this machine have left when they were killed.
    """
    start = f"{name}.{_machine()}."
    for left in Path(tempfile.gettempdir()).glob(f"{start}*"):
        process = left.name.removeprefix(start).partition(".")[0]
        if process.isdigit() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{start}{os.getpid()}.", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_parts(folder: Path) -> None:
    """Delete what writers that were killed have left in a folder and below; others must be kept from it (`locked`)."""
    for partial in folder.rglob(".*.part"):
        with contextlib.suppress(OSError):  # Windows keeps what is being written
            partial.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same from `folder` until the block ends, or this process does.

    The lock is a hidden file beside the folder, which holds where POSIX locks do: among machines, too, that share a
    disk by NFS. Where it can't be had (Windows, a disk without locks), nothing is kept.

    Raises:
        FileError: if another process has it.
    """
    path = folder.absolute().with_name(f".{folder.name}.lock")
    with _alone_in_process(path, folder):
        file = _lock(path, folder) if fcntl else None
        try:
            yield
        finally:
            if file:
                with contextlib.suppress(OSError):
                    path.unlink()  # before others can have it
                file.close()


@contextmanager
def _alone_in_process(path: Path, folder: Path) -> Iterator[None]:
    """Keep this process' other threads away: the system's lock is the process', and goes with the first to end."""
    if path in _HELD:
        raise FileError(_taken(folder, "this process"))
    _HELD.add(path)
    try:
        yield
    finally:
        _HELD.discard(path)


def _taken(folder: Path, who: str) -> str:
    return f"{folder}: expected no other run to write there, got {who}; wait for its end, or take another name"


def _lock(path: Path, folder: Path) -> IO[str] | None:
    """Return the locked file; None, if the disk has no locks."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("a+", encoding="utf-8")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    with contextlib.suppress(OSError):  # a full disk
                        file.truncate(0)
                        file.write(f"process {os.getpid()} of {socket.gethostname()}")
                        file.flush()
                    return file
            except FileNotFoundError:  # whoever had it has just ended
                pass
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                raise FileError(_taken(folder, file.read() or "one")) from error
            file.close()
    return None
