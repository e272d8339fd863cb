"""A blurry image and its sharp partner: where they are, how they are read, how data sets are identified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reblur_plugin.data.images import ImageError, decode_image
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import as_bytes

File = tuple[str, int]  # name and bytes


class DatasetError(ReblurError):
    """A data set whose folders or files aren't what its layout says; the message names the place."""


@dataclass(frozen=True)
class Pair:
    """A blurry image and its sharp partner (None for real photographs).

    Attributes:
        name: unique within the data set, keeps the sequence and has no suffix: "GOPR0384_11_00/000001".
        blurry, sharp: image files.
        kind: of blur, see `list_pairs`.
    """

    name: str
    blurry: Path
    sharp: Path | None
    kind: str = ""

    @property
    def sequence(self) -> str:
        """The first folder of the name, empty if it has none."""
        return self.name.partition("/")[0] if "/" in self.name else ""

    def files(self) -> tuple[File, File | None]:
        """Return name and size of the image files.

        Raises:
            ImageError: if one of them isn't there any more.
        """
        return _file(self.blurry), _file(self.sharp) if self.sharp else None

    def images(self) -> tuple[Any, Any]:
        """Return both images as stored, `(H, W, 3)` in 8 or 16 bits.

        Raises:
            ImageError: if one can't be read or the partners differ in size.
        """
        assert self.sharp is not None
        blurry, sharp = decode_image(self.blurry), decode_image(self.sharp)
        if blurry.shape != sharp.shape:
            raise ImageError(
                f"{self.blurry}: expected the size of its sharp partner {size(sharp)}, got {size(blurry)}; "
                "unzip the data set again or remove the pair"
            )
        return blurry, sharp


def fingerprint(pairs: Iterable[Pair]) -> str:
    """Return a hash over the names and sizes of all image files: equal if two runs saw the same data.

    Raises:
        ImageError: if a file isn't there any more.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        for file in pair.files():
            digest.update(as_bytes(f"{pair.name} {file[0]} {file[1]}\n") if file else b"-")
    return digest.hexdigest()[:16]


def size(image: Any) -> str:
    """Return "WIDTHxHEIGHT" of an image `(H, W, 3)`."""
    return f"{image.shape[1]}x{image.shape[0]}"


def _file(path: Path) -> File:
    try:
        return path.name, path.stat().st_size
    except OSError as error:
        raise ImageError(f"{path}: expected an image, but it can't be read ({error.strerror})") from error
