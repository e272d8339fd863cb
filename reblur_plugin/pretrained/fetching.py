"""Fetches others' weights: whole, as they were published, and going on where an interrupted try ended."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from reblur_plugin.files import FileError, locked, writing
from reblur_plugin.pretrained.catalogue import Named, Remote, WeightsError
from reblur_plugin.pretrained.dmphn import convert

_PAUSES = (0.0, 1.0, 4.0)  # seconds before each try
_TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 16


def fetch(weights: Named) -> None:
    """Bring weights to this machine, if they aren't there yet.

    Raises:
        WeightsError: if a file can't be had, or isn't the published one.
        FileError: if the disk refuses.
    """
    if weights.is_here:  # nothing is locked, least of all in the package's folder
        return
    folder = weights.deblur_net.parent / weights.name
    with _our_turn(folder):
        if weights.is_here:  # another process has just fetched them
            return
        with tqdm(total=weights.size, unit="B", unit_scale=True, desc=weights.name, disable=None) as bar:
            parts = [folder / PurePosixPath(urlsplit(remote.url).path).name for remote in weights.remotes]
            for remote, part in zip(weights.remotes, parts, strict=True):
                _fetch(remote, part, bar)
        convert(folder, weights.deblur_net)
        shutil.rmtree(folder)


@contextmanager
def _our_turn(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into `folder`."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except FileError:
                time.sleep(0.2)
        yield


def _fetch(remote: Remote, path: Path, bar: tqdm[None]) -> None:
    """Write a file to `path`, which is complete and right, or not there."""
    start, partial = bar.n, path.with_name(f"{path.name}.partial")
    if not path.is_file():  # of an earlier try, or put there by hand
        _try(remote, path, partial, lambda have: bar.update(start + have - bar.n))
        _check(remote, partial)
        with writing(path):
            partial.replace(path)
    else:
        _check(remote, path)
    bar.update(start + remote.size - bar.n)


def _try(remote: Remote, path: Path, partial: Path, tell: Callable[[int], object]) -> None:
    reason = ""
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            _go_on(remote, partial, tell)
            return
        except (OSError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, HTTPError) and 400 <= error.code < 500:  # it won't be there in a second either
                break
    raise WeightsError(
        f"{remote.url}: can't be fetched ({reason}); try again with a network, which goes on where this ended, or put "
        f"the file to {path}"
    )


def _go_on(remote: Remote, partial: Path, tell: Callable[[int], object]) -> None:
    """Append to `partial` what it lacks of the file; what the server sends beyond its size isn't taken."""
    with writing(partial):
        partial.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("ab")
    with file:
        have = file.tell()
        if have >= remote.size:
            return
        request = Request(remote.url, headers={"Range": f"bytes={have}-"} if have else {})
        with urlopen(request, timeout=_TIMEOUT) as response:
            if have and response.status != 206:  # it sends all of it again
                file.truncate(0)
                have = 0
            while have < remote.size and (chunk := response.read(min(_CHUNK, remote.size - have))):
                with writing(partial):
                    file.write(chunk)
                have += len(chunk)
                tell(have)
    if have < remote.size:
        raise ConnectionError(f"it ended after {have} of {remote.size} bytes")


def _check(remote: Remote, partial: Path) -> None:
    found = hashlib.sha256(partial.read_bytes()).hexdigest()
    if found != remote.sha256:
        partial.unlink()
        raise WeightsError(
            f"{remote.url}: expected the published file (sha256 {remote.sha256[:12]}...), got another "
            f"({found[:12]}...); it is deleted, try again or in another network"
        )
