"""Pairs made as GOPRO's were, from the frames of a fast camera, or from single photographs by a shaking camera.

Written in GOPRO's layout: OUT/SEQUENCE/{blur or blur_gamma, sharp}/NAME.png, with the settings in OUT/synthesis.json.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from reblur_plugin.data.blur import Frame
from reblur_plugin.data.images import decode_image, write_image
from reblur_plugin.data.listing import gaps, in_order, is_hidden, list_images, subfolders
from reblur_plugin.data.pairs import DatasetError
from reblur_plugin.data.recipes import Films, Settings, Shakes
from reblur_plugin.files import as_bytes, locked, remove_parts, whole_file

SETTINGS = "synthesis.json"  # its `pairs` is null until all are made
_SHOWN = 12  # gaps of a sequence that are named
FILMS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


class Named(NamedTuple):
    """A frame that is read when it is needed."""

    name: str
    load: Callable[[], Frame]


class Source(NamedTuple):
    """A sequence of frames."""

    name: str
    frames: Callable[[], Iterator[Named]]


def from_frames(root: Path, out: Path, settings: Films) -> int:
    """Write pairs made from films or folders of frames; return how many there are. Goes on where it was stopped.

    Args:
        root: a film, a folder of films, a folder of frames, or a folder of such folders.
        out: where the pairs go, in GOPRO's layout.
        settings: how they are made.

    Raises:
        DatasetError: if there are no frames, too few of them, or `out` holds something else.
        ImageError: if a frame can't be read.
        FileError: if the disk refuses, or another process writes to `out`.
    """
    sources = _sources(root)
    _check_names([source.name for source in sources], root)
    with locked(out):
        _begin(out, settings)
        pairs = 0
        for source in sources:
            windows = _windows(source.frames(), _lengths(settings, source.name), settings.stride)
            number = -1
            for number, window in enumerate(tqdm(windows, desc=source.name, unit="pair", leave=False, disable=None)):
                path = _place(out / source.name, settings, window[len(window) // 2].name)
                if not path.exists():
                    rng = np.random.default_rng((*_seed(settings, source.name), number))
                    _write(path, settings.make([frame.load() for frame in window], rng))
            if number < 0:
                raise DatasetError(f"{root}: expected at least {settings.most} frames in {source.name}, got fewer")
            pairs += number + 1
        _note(out, settings, pairs)
    return pairs


def from_photographs(root: Path, out: Path, settings: Shakes) -> int:
    """Write pairs made from the photographs in a folder, a sequence each; return how many. Goes on as `from_frames`.

    Raises:
        DatasetError: if there is no photograph, or `out` holds something else.
        ImageError: if a photograph can't be read.
        FileError: if the disk refuses, or another process writes to `out`.
    """
    images = list_images(root)
    _check_names([name.replace("/", "_") for name in images], root)
    with locked(out):
        _begin(out, settings)
        for name, path in tqdm(images.items(), desc="photographs", unit="photograph", leave=False, disable=None):
            for number in range(1, settings.count + 1):
                blurry = _place(out / name.replace("/", "_"), settings, f"{number:06d}")
                if not blurry.exists():
                    rng = np.random.default_rng((*_seed(settings, name), number))
                    _write(blurry, settings.make(_frame(path), rng))
        pairs = len(images) * settings.count
        _note(out, settings, pairs)
    return pairs


def is_unfinished(out: Path) -> bool:
    """Return whether pairs are being made in `out`, or were when that was stopped."""
    try:
        return json.loads((out / SETTINGS).read_text(encoding="utf-8"))["pairs"] is None
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _check_names(names: list[str], root: Path) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise DatasetError(f"{root}: expected sequences of different names, got {twice[0]!r} twice; rename one of them")


def _seed(settings: Settings, name: str) -> tuple[int, int]:
    return settings.seed, zlib.crc32(as_bytes(name))


def _lengths(settings: Films, name: str) -> Iterator[int]:
    rng = np.random.default_rng(_seed(settings, name))
    while True:
        yield int(rng.integers(settings.least, settings.most + 1))


def _windows(frames: Iterator[Named], lengths: Iterator[int], stride: int | None) -> Iterator[list[Named]]:
    """Yield runs of consecutive frames; the last one that isn't full is left out."""
    held: deque[Named] = deque()
    for length in lengths:
        held.extend(islice(frames, max(length - len(held), 0)))
        if len(held) < length:
            return
        yield list(islice(held, length))
        for _ in range(stride or length):
            if held:
                held.popleft()
            else:
                next(frames, None)


def _sources(root: Path) -> list[Source]:
    if root.is_file():
        return [_film(root)]
    if not root.is_dir():
        raise DatasetError(f"{root}: no such file or folder; expected a film or frames")
    films = [path for path in root.iterdir() if path.suffix.lower() in FILMS and not is_hidden(path.name)]
    if films:
        return [_film(path) for path in sorted(films, key=lambda path: in_order(path.name))]
    folders = [folder for folder in subfolders(root) if list_images(folder)]
    return [_folder(folder) for folder in folders or [root]]


def _folder(folder: Path) -> Source:
    images = list_images(folder)
    if missing := gaps(images):
        more = f" and {len(missing) - _SHOWN} more gaps" if len(missing) > _SHOWN else ""
        tqdm.write(f"{folder}: no frame {', '.join(missing[:_SHOWN])}{more}: averages across them jump", sys.stderr)
    return Source(folder.name, lambda: (Named(path.stem, partial(_frame, path)) for path in images.values()))


def _film(path: Path) -> Source:
    def frames() -> Iterator[Named]:
        film = cv2.VideoCapture(str(path))
        try:
            for number in count():
                there, frame = film.read()
                if not there:
                    break
                yield Named(f"{number:06d}", partial(cv2.cvtColor, frame, cv2.COLOR_BGR2RGB))
        finally:
            film.release()
        if not number:
            raise DatasetError(f"{path}: expected a film or a folder of frames, got a file without frames")

    return Source(path.stem, frames)


def _frame(path: Path) -> Frame:
    pixels = decode_image(path)
    if pixels.dtype != np.uint8:
        raise DatasetError(f"{path}: expected frames of 8 bits a channel, got 16; convert them")
    return pixels.astype(np.uint8, copy=False)


def _place(sequence: Path, settings: Settings, name: str) -> Path:
    return sequence / settings.kind / f"{name}.png"


def _write(path: Path, pair: tuple[Frame, Frame]) -> None:
    """Write a pair. The blurry image comes last: where it is, its partner is."""
    write_image(path.parent.parent / "sharp" / path.name, pair[1])
    write_image(path, pair[0])


def _begin(out: Path, settings: Settings) -> None:
    """Note the settings in `out`, so that only the same settings can continue what was begun."""
    try:
        begun = json.loads((out / SETTINGS).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, LookupError, TypeError):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out}: expected an empty folder or one begun by synthesise; choose another") from None
        _note(out, settings, None)
        return
    remove_parts(out)
    wanted = json.loads(json.dumps(asdict(settings)))
    if changed := sorted(key for key in wanted | begun if begun.get(key) != wanted.get(key)):
        raise DatasetError(f"{out}: was begun with other settings ({', '.join(changed)}); use those or another folder")


def _note(out: Path, settings: Settings, pairs: int | None) -> None:
    """Write the settings and, at the end, how many pairs there are."""
    content = {"settings": asdict(settings), "pairs": pairs}
    with whole_file(out / SETTINGS, "free the disk") as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
