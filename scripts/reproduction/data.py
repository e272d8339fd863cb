"""Training and test images of a reproduction, found in a folder of data sets by their published names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import cv2

from reblur_plugin.data.layouts import alone_in, partners, photographs, reds_pairs
from reblur_plugin.data.listing import subfolders
from reblur_plugin.data.packed import INDEX, pack
from reblur_plugin.data.pairs import Pair
from reblur_plugin.data.recognition import is_gopro, is_reds
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

Size = tuple[int, int]  # width and height
DataSet = list[Pair]
Item = TypeVar("Item")


class DataError(ReblurError):
    """Data sets that are missing or not whole, or that share a sequence."""


def training_sets(data: Path) -> list[DataSet]:
    """Return the pairs of every `*/train` of a folder, in the layout of GOPRO or of REDS; each pair once."""
    found, names = [], set()
    for root in sorted(data.glob("*/train")):
        own = [pair for pair in _pairs(root) if pair.name not in names]
        names |= {pair.name for pair in own}
        found.append(own)
    return [one for one in found if one]


def held_out_sets(data: Path) -> list[DataSet]:
    """Return the pairs of GOPRO_Large/test and, where it is there, of REDS/val."""
    return [pairs for part in ("GOPRO_Large/test", "REDS/val") if (pairs := _pairs(data / part))]


def photographs_in(folder: Path | None) -> list[DataSet]:
    """Return photographs without ground truth, as a set without sharp images."""
    return [photographs(folder)] if folder else []


def check_apart(training: Sequence[DataSet], tests: Sequence[DataSet], data: Path) -> None:
    """Refuse data that can't show anything.

    Raises:
        DataError: if one of both is empty, or a sequence is in both.
    """
    sequences = []
    for sets, where in ((training, "*/train"), (tests, "GOPRO_Large/test")):
        if not sets:
            raise DataError(f"{data}: expected {where}/SEQUENCE/{{blur,sharp}}, found none; unzip GOPRO_Large there")
        sequences.append({_sequence(pair) for pairs in sets for pair in pairs})
    if both := sequences[0] & sequences[1]:
        names = ", ".join(sorted(both))
        raise DataError(f"{data}: expected no sequence in both training and test data, got {names}; remove it from one")


def _pairs(root: Path) -> DataSet:
    """Return the pairs of a data set's part.

    Of GOPRO's two kinds of blur the linear one is taken where it is there, since the official DMPHN weights are for it.
    REDS numbers the clips of each part from 000 on: their names get the part's.
    """
    if not root.is_dir():
        return []
    if is_reds(root):
        return [replace(pair, name=f"{root.name}-{pair.name}") for pair in reds_pairs(root)]
    if not is_gopro(root):
        return []
    return [pair for sequence in subfolders(root) for pair in _pairs_of(sequence)]


def _pairs_of(sequence: Path) -> DataSet:
    kind = next((kind for kind in ("blur", "blur_gamma") if (sequence / kind).is_dir()), "")
    if not kind or not (sequence / "sharp").is_dir():
        return []
    found, alone = partners(sequence / kind, sequence / "sharp", kind, sequence.name)
    if alone:
        raise DataError(alone_in(*alone[0], len(alone) - 1))
    return found


def _sequence(pair: Pair) -> str:
    return pair.name.rpartition("/")[0]


def spread(sets: Sequence[DataSet], count: int | None) -> list[Pair]:
    """Return up to `count` pairs: the data sets take turns, within each its sequences; neighbours come last."""
    return [pair for turn in zip_longest(*map(_spread, sets)) for pair in turn if pair][:count]


def _spread(pairs: DataSet) -> DataSet:
    by_sequence: dict[str, DataSet] = defaultdict(list)
    for pair in pairs:
        by_sequence[_sequence(pair)].append(pair)
    rows = [_halved(by_sequence[name]) for name in _halved(list(by_sequence))]
    return [pair for turn in zip_longest(*rows) for pair in turn if pair]


def _halved(items: Sequence[Item]) -> list[Item]:
    """Return items in an order of which every beginning is spread over them: the first, the middle, the quarters."""
    steps = [2**power for power in range(len(items).bit_length(), -1, -1)]
    return [items[index] for index in dict.fromkeys(index for step in steps for index in range(0, len(items), step))]


def pack_once(pairs: Sequence[Pair], folder: Path) -> None:
    """Pack training pairs, unless the pack is there and finished."""
    if not (folder / INDEX).is_file():
        kinds = {pair.kind for pair in pairs}
        kind = kinds.pop() if len(kinds) == 1 else "mixed"  # a pack has one kind of blur, checkpoints tell it
        pack([replace(pair, kind=kind) for pair in pairs], folder)


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


def write_photographs(found: Sequence[Pair], folder: Path, most: Size) -> None:
    """Write photographs without ground truth, larger ones cut to their centre of that size."""
    for pair in found:
        target = folder / f"{pair.name}.png"
        if not target.is_file():
            _write_centre(pair.blurry, target, most, smaller=True)


def _write_centre(path: Path, target: Path, size: Size | None, smaller: bool = False) -> None:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"{path}: expected an image, but it can't be read; copy it again")
    height, width = picture.shape[:2]
    wanted = size or (width, height)
    if smaller:
        wanted = min(wanted[0], width), min(wanted[1], height)
    left, top = (width - wanted[0]) // 2, (height - wanted[1]) // 2
    if left < 0 or top < 0:
        raise DataError(f"{path}: expected {wanted[0]}x{wanted[1]} pixels or more, got {width}x{height}; remove it")
    with whole_file(target) as file:
        file.write(cv2.imencode(".png", picture[top : top + wanted[1], left : left + wanted[0]])[1].tobytes())
