"""Pairs packed for training: raw pixels, one NumPy file a pair, so that a patch is read without decoding.

OUT/NAME.npy holds `(2, H, W, 3)`, blurry and sharp, in 8 or 16 bits. OUT/index.json is written last and knows the
names, sizes, blur kind, checksums and what the source's fingerprint is made of.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from reblur_plugin.data.images import ImageError, Pixels
from reblur_plugin.data.pairs import DatasetError, File, Pair, fingerprint
from reblur_plugin.files import locked, remove_parts, whole_file, writing
from reblur_plugin.names import leads_out

INDEX, BEGUN = "index.json", "begun.json"
_FORMAT = "reblur_plugin pairs 1"
_TYPES = ("uint8", "uint16")
_REMEDY = "free the disk and pack again"


@dataclass(frozen=True)
class StoredImage:
    """One of the two images in a packed file; a window of it is read, and no more than its rows, when it is asked for.

    Attributes:
        path: the file.
        offset: bytes before the first pixel.
        shape: (H, W, 3).
        dtype: uint8 or uint16.
    """

    path: Path
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]

    def __getitem__(self, window: tuple[slice, slice] | slice) -> Pixels:
        """Return the pixels in a window `[top:bottom, left:right]` or `[:]`.

        Raises:
            ImageError: if the file isn't whole any more.
        """
        rows, columns = window if isinstance(window, tuple) else (window, slice(None))
        top, bottom, _ = rows.indices(self.shape[0])
        row = self.shape[1] * 3
        start = self.offset + top * row * self.dtype.itemsize
        try:
            pixels = np.fromfile(self.path, self.dtype, count=(bottom - top) * row, offset=start)
        except OSError as error:
            raise ImageError(f"{self.path}: expected packed images, but it can't be read ({error.strerror})") from error
        if pixels.size != (bottom - top) * row:
            raise ImageError(f"{self.path}: expected packed images, got a file cut short; pack the data set again")
        return pixels.reshape(bottom - top, self.shape[1], 3)[:, columns]


@dataclass(frozen=True)
class PackedPair(Pair):
    """A pair in a packed file; `blurry` and `sharp` are that file.

    Attributes:
        sources: names and sizes of the image files that were packed.
        shape: (H, W, 3).
        dtype: "uint8" or "uint16".
        offset: bytes before the first pixel.
        checksum: CRC-32 of all pixels.
    """

    sources: tuple[File, File] = (("", 0), ("", 0))
    shape: tuple[int, int, int] = (0, 0, 3)
    dtype: str = "uint8"
    offset: int = 0
    checksum: int = 0

    def files(self) -> tuple[File, File]:
        """Return name and size of the image files that were packed: the fingerprint is the source's."""
        return self.sources

    def images(self) -> tuple[StoredImage, StoredImage]:
        """Return both images, of which nothing is read before it is asked for.

        Raises:
            ImageError: if the file isn't there or has another size.
        """
        dtype = np.dtype(self.dtype)
        pixels = int(np.prod(self.shape)) * dtype.itemsize
        try:
            found = self.blurry.stat().st_size
        except OSError as error:
            raise ImageError(
                f"{self.blurry}: expected packed images, but it can't be read ({error.strerror}); pack again"
            ) from error
        if found != self.offset + 2 * pixels:
            raise ImageError(f"{self.blurry}: expected packed images, got a file of another size; pack again")
        blurry, sharp = (StoredImage(self.blurry, self.offset + part * pixels, self.shape, dtype) for part in range(2))
        return blurry, sharp

    def verify(self) -> None:
        """Compare all pixels with the checksum.

        Raises:
            ImageError: if they aren't what was packed.
        """
        checksum = 0
        for image in self.images():
            checksum = zlib.crc32(image[:].data, checksum)
        if checksum != self.checksum:
            raise ImageError(f"{self.blurry}: its pixels have changed since they were packed; delete it and pack again")


def packed_pairs(root: Path, blur_key: str | None = None) -> list[Pair]:
    """Return the pairs that `pack` has written to `root`.

    Raises:
        DatasetError: if it isn't a finished pack, or of another kind of blur than `blur_key` asks for.
    """
    index = root / INDEX
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise DatasetError(f"{index}: expected the format {_FORMAT!r}, got {content['format']!r}; pack again")
        kind: str = content["blur_kind"]
        pairs: list[Pair] = [_pair(root, entry, content["blur_kind"]) for entry in content["pairs"]]
    except FileNotFoundError as error:
        remedy = (
            "start the same pack again" if (root / BEGUN).exists() else "python -m reblur_plugin.data pack makes it"
        )
        raise DatasetError(f"{root}: expected a finished pack with {INDEX}; {remedy}") from error
    except OSError as error:
        raise DatasetError(f"{index}: can't be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{index}: expected the index of a pack, got a damaged file; delete it, pack again"
        ) from error
    if blur_key and blur_key != kind:
        raise DatasetError(
            f"{root}: expected the kind of blur {blur_key!r}, got {kind!r}; pack that kind or change blur_key"
        )
    return pairs


def pack(pairs: list[Pair], out: Path, workers: int | None = None) -> bool:
    """Write `pairs` to the folder `out`; return False if they had all been there and are whole.

    An interrupted pack goes on where it stopped. A finished one is read and compared with its checksums.

    Raises:
        DatasetError: if `out` holds something else.
        ImageError: if an image can't be read, or a finished pack isn't whole.
        FileError: if the disk refuses, or another process packs to `out`.
    """
    if any(pair.sharp is None for pair in pairs):
        raise DatasetError("layout: expected pairs to pack, got photographs without sharp images")
    found = fingerprint(pairs)
    workers = workers or os.cpu_count() or 1
    if (out / INDEX).exists():
        packed = packed_pairs(out)
        _same(out, found, fingerprint(packed))
        in_threads(PackedPair.verify, packed, workers, "verifying")
        return False
    with locked(out):
        _begin(out, found)
        remove_parts(out)
        entries = in_threads(lambda pair: _write(pair, out), pairs, workers, "packing")
        content = {"format": _FORMAT, "blur_kind": pairs[0].kind, "fingerprint": found, "pairs": entries}
        _save(out / INDEX, json.dumps(content, indent=1).encode())
        (out / BEGUN).unlink()
    return True


def in_threads(work: Callable[[Any], Any], items: Sequence[Any], workers: int, what: str) -> list[Any]:
    """Return the results of `work` in order, done by threads; Ctrl-C or an error ends it after what is under way."""
    pool = ThreadPoolExecutor(workers)
    try:
        return list(tqdm(pool.map(work, items), total=len(items), desc=what, unit="pair", leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(out: Path, found: str) -> None:
    """Note what is packed to `out`, so that only the same data can continue an interrupted pack."""
    try:
        begun = json.loads((out / BEGUN).read_text(encoding="utf-8"))["fingerprint"]
    except (OSError, ValueError, LookupError):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DatasetError(f"{out}: expected an empty folder or one of a pack; choose another place") from None
        _save(out / BEGUN, json.dumps({"fingerprint": found}).encode())
    else:
        _same(out, found, begun)


def _same(out: Path, found: str, packed: str) -> None:
    if found != packed:
        raise DatasetError(
            f"{out}: holds other data (fingerprint {packed}, not {found}); delete it or choose another place"
        )


def _write(pair: Pair, out: Path) -> dict[str, Any]:
    """Write a pair unless it is there; return its entry in the index."""
    path = out / f"{pair.name}.npy"
    with writing(path, _REMEDY):
        if path.exists():  # whole, since it has its name
            pixels = _load(path)
        else:
            pixels = _stack(*pair.images())
            with whole_file(path, _REMEDY) as file:
                np.save(file, pixels)
        offset = path.stat().st_size - pixels.nbytes
    entry = {"name": pair.name, "files": pair.files(), "shape": pixels.shape[1:], "dtype": str(pixels.dtype)}
    return entry | {"offset": offset, "checksum": zlib.crc32(pixels.data)}


def _load(path: Path) -> Pixels:
    try:
        pixels: Pixels = np.load(path)
    except (ValueError, EOFError) as error:
        raise DatasetError(f"{path}: expected packed images, got a damaged file; delete it and pack again") from error
    return pixels


def _stack(blurry: Pixels, sharp: Pixels) -> Pixels:
    """Return both images as `(2, H, W, 3)`; beside one of 16 bits one of 8 becomes 16, by 257, which is exact."""
    if blurry.dtype != sharp.dtype:
        blurry, sharp = (image * np.uint16(257) if image.dtype == np.uint8 else image for image in (blurry, sharp))
    stacked: NDArray[Any] = np.stack((blurry[:], sharp[:]))
    return stacked


def _pair(root: Path, entry: dict[str, Any], kind: str) -> PackedPair:
    name = entry["name"]
    if leads_out(name):  # results are written under this name
        raise ValueError(name)
    path = root / f"{name}.npy"
    blurry, sharp = ((str(file), int(size)) for file, size in entry["files"])
    height, width, channels = entry["shape"]
    if channels != 3 or entry["dtype"] not in _TYPES:
        raise ValueError(name)
    shape = (int(height), int(width), 3)
    numbers = int(entry["offset"]), int(entry["checksum"])
    return PackedPair(name, path, path, kind, (blurry, sharp), shape, entry["dtype"], *numbers)


def _save(path: Path, content: bytes) -> None:
    with whole_file(path, _REMEDY) as file:
        file.write(content)
