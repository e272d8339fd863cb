"""Training and test images of a reproduction, found in a folder of data sets by their published names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2

from reblur_plugin.data.layouts import gopro_pairs, reds_pairs
from reblur_plugin.data.listing import subfolders
from reblur_plugin.data.packed import INDEX, pack
from reblur_plugin.data.pairs import Pair
from reblur_plugin.data.recognition import is_gopro, is_reds
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

Size = tuple[int, int]  # width and height


class DataError(ReblurError):
    """Data sets that are missing, or that share a sequence."""


def training_pairs(data: Path) -> list[Pair]:
    """Return the pairs of every `*/train` of a folder, in the layout of GOPRO or of REDS."""
    return [pair for root in sorted(data.glob("*/train")) for pair in _pairs(root)]


def held_out_pairs(data: Path) -> list[Pair]:
    """Return the pairs of GOPRO_Large/test and, where it is there, of REDS/val."""
    return [pair for part in ("GOPRO_Large/test", "REDS/val") for pair in _pairs(data / part)]


def check_apart(training: Sequence[Pair], tests: Sequence[Pair], data: Path) -> None:
    """Refuse data that can't show anything.

    Raises:
        DataError: if one of both is empty, or a sequence is in both.
    """
    for pairs, where in ((training, "*/train"), (tests, "GOPRO_Large/test")):
        if not pairs:
            raise DataError(f"{data}: expected {where}/SEQUENCE/{{blur,sharp}}, found none; unzip GOPRO_Large there")
    if both := {pair.name.rpartition("/")[0] for pair in training} & {pair.name.rpartition("/")[0] for pair in tests}:
        names = ", ".join(sorted(both))
        raise DataError(f"{data}: expected no sequence in both training and test data, got {names}; remove it from one")


def _pairs(root: Path) -> list[Pair]:
    """Return the pairs of a data set's part; of several kinds of blur the linear one, as the DMPHN weights are for."""
    if not root.is_dir():
        return []
    if is_reds(root):
        return [replace(pair, kind="blur") for pair in reds_pairs(root)]
    if not is_gopro(root):
        return []
    is_linear = all((sequence / "blur").is_dir() for sequence in subfolders(root))
    return [replace(pair, kind="blur") for pair in gopro_pairs(root, "blur" if is_linear else "blur_gamma")]


def spread(pairs: Sequence[Pair], count: int | None) -> list[Pair]:
    """Return up to `count` pairs, one of each sequence in turn: neighbours in time say the same thing twice."""
    by_sequence: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_sequence[pair.name.rpartition("/")[0]].append(pair)
    turns = [(turn, name, pair) for name, own in by_sequence.items() for turn, pair in enumerate(_halved(own))]
    return [pair for *_, pair in sorted(turns, key=lambda one: one[:2])[:count]]


def _halved(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs in an order of which every beginning is spread over them: the first, the middle, the quarters."""
    steps = [2**power for power in range(len(pairs).bit_length(), -1, -1)]
    return [pairs[index] for index in dict.fromkeys(index for step in steps for index in range(0, len(pairs), step))]


def pack_once(pairs: Sequence[Pair], folder: Path) -> None:
    """Pack training pairs, unless the pack is there and finished."""
    if not (folder / INDEX).is_file():
        pack(list(pairs), folder)


def write_tests(pairs: Sequence[Pair], out: Path, size: Size | None) -> tuple[Path, Path]:
    """Write test images, or their centres of a size; return the folders of the pairs (B, S) and of (S, S).

    The second set tells what M_D and M_R do to sharp images.

    Raises:
        DataError: if an image can't be read or is smaller.
    """
    name = "x".join(map(str, size)) if size else "full"
    blurry, sharp = out / f"test_{name}", out / f"sharp_{name}"
    for pair in pairs:
        assert pair.sharp is not None
        sequence, _, frame = pair.name.rpartition("/")
        for root, first in ((blurry, pair.blurry), (sharp, pair.sharp)):
            for path, kind in ((first, "blur"), (pair.sharp, "sharp")):
                target = root / sequence / kind / f"{frame}.png"
                if not target.is_file():
                    _write_centre(path, target, size)
    return blurry, sharp


def _write_centre(path: Path, target: Path, size: Size | None) -> None:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"{path}: expected an image, but it can't be read; copy it again")
    height, width = picture.shape[:2]
    wanted = size or (width, height)
    left, top = (width - wanted[0]) // 2, (height - wanted[1]) // 2
    if left < 0 or top < 0:
        raise DataError(f"{path}: expected {wanted[0]}x{wanted[1]} pixels or more, got {width}x{height}; remove it")
    with whole_file(target) as file:
        file.write(cv2.imencode(".png", picture[top : top + wanted[1], left : left + wanted[0]])[1].tobytes())
