"""What is in folders: images and sub-folders in one order, by one rule of what is hidden, through links; lists.

Names are in the order of their numbers, whatever the numbers' width: 2.png goes before 10.png.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from reblur_plugin.data.images import SUFFIXES
from reblur_plugin.data.pairs import DatasetError
from reblur_plugin.files import decoded

# Folders that systems and network disks make for themselves
_SYSTEMS = {"@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information", "lost+found"}


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is passed over: it begins with a dot, or a system has made it for itself."""
    return name.startswith(".") or name in _SYSTEMS


def in_order(name: str) -> str:
    """Return the key by which names are sorted: their numbers count by value, everything else by letters."""
    return re.sub(r"\d+", lambda number: number.group().zfill(20), name)


def subfolders(root: Path) -> list[Path]:
    """Return the folders in `root` that aren't hidden, in order; links to folders are folders.

    Raises:
        DatasetError: if it can't be read.
    """
    return [Path(entry.path) for entry in _entries(root) if _is_folder(entry)]


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder and its sub-folders, in order; links are followed, what is hidden isn't looked at.

    Raises:
        DatasetError: if a folder can't be read, or a link leads back to a folder that holds it.
    """
    return [path for path in _walk(folder, ()) if path.suffix.lower() in SUFFIXES]


def list_images(folder: Path) -> dict[str, Path]:
    """Return the images in a folder and its sub-folders by their names without suffix; as `images_in`.

    Raises:
        DatasetError: if there are none, two have one name, a folder can't be read, or a link leads back.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected images")
    found: dict[str, Path] = {}
    for path in images_in(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DatasetError(f"{path}: a second image named {name!r} beside {found[name].name}; rename one of them")
        found[name] = path
    if not found:
        raise DatasetError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none")
    return found


def gaps(names: Iterable[str]) -> list[str]:
    """Return the numbers that are missing among names, such as "4" or "7-9"; none, if names aren't numbered alike.

    The least distance of two numbers is taken for the film's.
    """
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    numbers = sorted(int(part[2]) for part in parts if part)
    if len(numbers) < len(parts) or len({(part[1], part[3]) for part in parts if part}) > 1:
        return []
    step = min((after - before for before, after in pairwise(numbers)), default=1) or 1
    missing = []
    for before, after in pairwise(numbers):
        if after - before > step:
            first, last = before + step, after - step
            missing.append(str(first) if last <= first else f"{first}-{last}")
    return missing


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list that somebody may have saved in an editor: UTF-8 or UTF-16, with a mark or without.

    Raises:
        DatasetError: if it is in another encoding.
        OSError: if it can't be read.
    """
    try:
        return decoded(path.read_bytes()).splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}: expected a list in UTF-8, got another encoding at byte {error.start}; save it as UTF-8"
        ) from error


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Yield the files in a folder and its sub-folders, in order, but nothing that is hidden."""
    entries = _entries(folder)
    known = folder.stat()
    own = known.st_dev, known.st_ino
    if own in above:
        raise DatasetError(f"{folder}: leads back to a folder that holds it; remove this link")
    for entry in entries:
        if _is_folder(entry):
            yield from _walk(Path(entry.path), (*above, own))
        else:
            yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, say
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            shown = [entry for entry in found if not is_hidden(entry.name)]
    except OSError as error:
        raise DatasetError(f"{folder}: this folder can't be read ({error.strerror})") from error
    return sorted(shown, key=lambda entry: in_order(entry.name))
