"""What the pixels of image pairs show: damaged files, sizes, bits, duplicates, folders that were swapped."""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from reblur_plugin.data.images import ImageError, Pixels, decode_image
from reblur_plugin.data.packed import PackedPair, in_threads
from reblur_plugin.data.pairs import Pair, size


@dataclass(frozen=True)
class _Look:
    """What decoding a pair has shown; None and 0 where it couldn't be decoded."""

    problems: list[str]
    size: str | None = None
    bits: int = 0
    checksums: tuple[int, ...] = ()
    swapped: bool = False


def inspect_images(pairs: list[Pair], workers: int) -> tuple[tuple[str, ...], list[str]]:
    """Decode all pairs; return sizes and bits in words, and a sentence for each that is damaged."""
    problems: list[str] = []
    looks = in_threads(_decode, pairs, workers, "checking")
    kinds = Counter((look.size, look.bits) for look in looks if look.size)
    usual = Counter(look.bits for look in looks if look.bits).most_common(1)
    seen: dict[tuple[int, ...], Pair] = {}
    swapped: dict[str, list[tuple[Pair, bool]]] = defaultdict(list)
    for pair, look in zip(pairs, looks, strict=True):
        problems += look.problems
        if look.bits and look.bits != usual[0][0]:
            problems.append(f"{pair.blurry}: {look.bits} bits a channel where most have {usual[0][0]}; replace it")
        if look.checksums and look.checksums in seen:
            problems.append(f"{pair.blurry}: the same pair as {seen[look.checksums].name}; remove one of them")
        elif look.checksums:
            seen[look.checksums] = pair
        if look.size and pair.sharp:
            swapped[pair.sequence].append((pair, look.swapped))
    problems += [line for found in swapped.values() for line in _swapped(found)]
    return tuple(f"{count} of {name}, {bits} bits" for (name, bits), count in kinds.most_common(4)), problems


def _swapped(found: list[tuple[Pair, bool]]) -> list[str]:
    """Return a sentence if most pairs of a sequence are sharper on their blurry side."""
    count = sum(flag for _, flag in found)
    if 2 * count <= len(found):
        return []
    few = f"its images are sharper than their partners in {count} of {len(found)} pairs"
    return [f"{found[0][0].blurry.parent}: {few}; were the two folders swapped?"]


def _decode(pair: Pair) -> _Look:
    if isinstance(pair, PackedPair):
        try:
            pair.verify()
            return _compare(pair, [image[:] for image in pair.images()])
        except ImageError as error:
            return _Look([str(error)])
    images: list[Pixels] = []
    found: list[str] = []
    for path in filter(None, (pair.blurry, pair.sharp)):
        try:
            images.append(decode_image(path))
        except ImageError as error:
            found.append(str(error))
    if found:
        return _Look(found)
    return _compare(pair, images)


def _compare(pair: Pair, images: list[Pixels]) -> _Look:
    blurry = images[0]
    bits = max(8 * image.dtype.itemsize for image in images)
    checksums = tuple(zlib.crc32(np.ascontiguousarray(image).data) for image in images)
    if len(images) == 1:
        return _Look([], size(blurry), bits, checksums)
    sharp = images[1]
    if blurry.shape != sharp.shape:
        expected = f"expected the size of its sharp partner {size(sharp)}, got {size(blurry)}"
        return _Look([f"{pair.blurry}: {expected}; unzip the data set again or remove the pair"])
    if checksums[0] == checksums[1]:
        return _Look([f"{pair.blurry}: the same picture as its sharp partner; unzip both again"], size(blurry), bits)
    return _Look([], size(blurry), bits, checksums, _detail(blurry) > _detail(sharp))


def _detail(image: Pixels) -> float:
    """Return the mean difference of neighbours in every fourth row of the green channel, as a share of the range."""
    rows: Any = image[::4, :, 1].astype(np.float32) / np.iinfo(image.dtype).max
    return float(np.abs(np.diff(rows, axis=1)).mean()) if rows.shape[1] > 1 else 0.0
