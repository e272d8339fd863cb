"""TIFF files to pixels: of any alpha, in planes or not, upright; kinds that aren't read are named for what they are."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from reblur_plugin.errors import ReblurError

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COMPRESSIONS = (1, 8, 32773, 32946)  # none, deflate, packbits, deflate's older number: tifffile knows them by itself
_ORIENTATION, _PROFILE = 274, 34675  # tags
_MULTIPLIED = 1  # of ExtraSamples: colours are stored multiplied by alpha
_GREY_OR_RGB = (0, 1, 2)  # of PhotometricInterpretation: grey from white or from black, RGB
_NAMES = {5: "CMYK", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "a camera's raw data", 4: "a mask"}


class TiffError(ReblurError):
    """A TIFF file of a kind that isn't read; the message is the reason."""


class Tiff(NamedTuple):
    """The first page of a file.

    Attributes:
        pixels: `(H, W, C)`: grey, grey and alpha, RGB, RGB and alpha; colours aren't multiplied by alpha.
        icc: its colour profile, None if there is none.
        pages: how many pictures the file has, but for smaller copies of others.
    """

    pixels: Pixels
    icc: bytes | None
    pages: int


def is_tiff(encoded: bytes) -> bool:
    """Return whether a file's content begins as TIFF's does."""
    return encoded[:4] in _MARKS


def tiff_size(file: BinaryIO) -> tuple[int, int]:
    """Return width and height of a TIFF file's first page, which isn't decoded.

    Raises:
        Exception: whatever a damaged file leads the decoders to.
    """
    with _in_silence(), tifffile.TiffFile(file) as found:
        page: Any = found.pages[0]
        return page.imagewidth, page.imagelength


def decode_tiff(encoded: bytes) -> Tiff:
    """Return the first page of a TIFF file.

    Raises:
        TiffError: with the reason, if it is of a kind that isn't read.
        Exception: whatever a damaged file leads the decoders to.
    """
    with _in_silence(), tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page: Any = file.pages[0]
        tags = {tag.code: tag.value for tag in page.tags}
        pages = _count(file.pages)
        pixels, icc = _page(page, tags, encoded), tags.get(_PROFILE)
    if pixels.ndim != 3 or not pixels.size:
        raise ValueError(f"pixels of shape {pixels.shape}")
    return Tiff(pixels, icc if isinstance(icc, bytes) else None, pages)


def _count(pages: Any) -> int:
    """Return how many pictures a file has, but for smaller copies; a chain of pages may lead back to its beginning."""
    seen: set[int] = set()
    count = 0
    for page in pages:
        if page.offset in seen:
            break
        seen.add(page.offset)
        count += not getattr(page, "is_reduced", False)
    return count


@contextmanager
def _in_silence() -> Iterator[None]:
    """Keep tifffile's log of what is wrong with a file to itself: the caller says it in one sentence."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels turned and mirrored so that EXIF's `orientation` (1 to 8) becomes upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _page(page: Any, tags: dict[int, Any], encoded: bytes) -> Pixels:
    kind = int(page.photometric)
    if kind in _NAMES:
        raise TiffError(f"expected grey or RGB, got {_NAMES[kind]}; convert it to RGB")
    if page.dtype is not None and page.dtype not in (np.uint8, np.uint16, np.bool_):
        raise TiffError(f"expected 8 or 16 bits a channel, got {page.dtype}; convert it to PNG")
    alphas = tuple(map(int, page.extrasamples))
    if page.samplesperpixel > 4 or len(alphas) > 1:
        raise TiffError(f"expected at most RGB and alpha, got {page.samplesperpixel} channels; save it with those")
    if kind not in _GREY_OR_RGB:  # a palette, or YCbCr
        return turn(_by_pillow(encoded, "RGB"), tags.get(_ORIENTATION, 1))
    if page.compression not in _COMPRESSIONS:
        return _packed(page, tags, encoded, alphas)
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if kind == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if alphas == (_MULTIPLIED,):
        pixels = _divided(pixels)
    return turn(pixels, tags.get(_ORIENTATION, 1))


def _packed(page: Any, tags: dict[int, Any], encoded: bytes, alphas: tuple[int, ...]) -> Pixels:
    """Return a page whose compression (LZW, JPEG) `tifffile` doesn't know by itself."""
    if alphas:  # OpenCV would multiply colours by it
        if page.bitspersample != 8:
            kind = f"{page.samplesperpixel} channels of {page.bitspersample} bits by {page.compression.name}"
            raise TiffError(f"expected alpha beside 8 bits, or without compression, got {kind}; save it without")
        mode = "LA" if page.samplesperpixel == 2 else "RGBA"
        return turn(_by_pillow(encoded, mode), tags.get(_ORIENTATION, 1))
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_UNCHANGED)  # upright
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise TiffError(f"got a damaged file, or a compression that isn't known, {page.compression.name}")
    return np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels[..., [2, 1, 0]])


def _by_pillow(encoded: bytes, mode: str) -> Pixels:
    with Image.open(io.BytesIO(encoded)) as picture:
        pixels = np.asarray(picture.convert(mode))
        return np.ascontiguousarray(pixels)


def _divided(pixels: Pixels) -> Pixels:
    """Return pixels whose colours were multiplied by alpha with those that were; 0 where alpha is."""
    largest = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.float64)
    colours = np.divide(pixels[..., :-1] * float(largest), alpha, out=np.zeros(pixels[..., :-1].shape), where=alpha > 0)
    result = pixels.copy()
    result[..., :-1] = colours.round().clip(0, largest).astype(pixels.dtype)
    return result
