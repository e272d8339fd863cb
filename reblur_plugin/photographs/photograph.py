"""A photograph as a person's file: its pixels upright, and all that belongs to them kept for the result."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reblur_plugin.data.images import SUFFIXES, ImageError, Pixels, to_float, to_tensor
from reblur_plugin.files import whole_file

_TIFF = (".tif", ".tiff")
_TIFF_COMPRESSIONS = (1, 8, 32773, 32946)  # none, deflate, packbits, deflate's older number
_RGB = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}  # OpenCV's order of channels, and back
_ORIENTATION = 0x0112  # EXIF tag
_QUALITY = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}
_QUALITY |= {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}  # above 100: lossless


@dataclass(frozen=True)
class Photograph:
    """Pixels `(H, W, C)` in 8 or 16 bits with C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    Attributes:
        pixels: upright, as the camera's note says.
        icc: colour profile, None if there is none.
        exif: the camera's notes with the orientation set to "upright", None if there are none.
    """

    pixels: Pixels
    icc: bytes | None = None
    exif: bytes | None = None

    @classmethod
    def load(cls, path: Path) -> Photograph:
        """Return the photograph in `path`.

        Raises:
            ImageError: if the file is missing, empty, damaged or of a kind that isn't read.
        """
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise ImageError(f"{path}: expected a photograph, but it can't be read ({error.strerror})") from error
        if path.suffix.lower() not in SUFFIXES:
            raise ImageError(f"{path}: expected one of {', '.join(SUFFIXES)}, got {path.suffix!r}")
        photograph, reason = None, ""
        try:
            photograph = _decode_tiff(encoded) if path.suffix.lower() in _TIFF else _decode(encoded)
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            reason = f" ({error})"
        if photograph is None:
            raise ImageError(f"{path}: expected a photograph, got an empty, damaged or unknown file{reason}")
        return photograph

    def rgb(self) -> Tensor:
        """Return the colours as float `(1, 3, H, W)` in [0, 1]; grey three times, alpha left out."""
        colours = to_float(self.pixels)[..., : 3 if self.pixels.shape[2] > 2 else 1]
        return to_tensor(colours)[None].expand(1, 3, -1, -1)

    def with_rgb(self, image: Tensor) -> Photograph:
        """Return this photograph with other colours, float `(1, 3, H, W)`: clamped, rounded, grey again if it was."""
        channels = self.pixels.shape[2]
        largest = np.iinfo(self.pixels.dtype).max
        result = self.pixels.copy()
        planes = image[0] if channels > 2 else image[0].detach().double().clamp(0, 1).mean(dim=0, keepdim=True)
        for channel, plane in enumerate(planes):  # one by one: in double precision they are large
            levels = plane.detach().double().clamp(0, 1).mul(largest).round()
            result[..., channel] = levels.cpu().numpy().astype(self.pixels.dtype)
        return replace(self, pixels=result)

    def save(self, path: Path) -> None:
        """Write the photograph; its suffix says the format. The file is complete or not there.

        Raises:
            ImageError: if the format can't hold it.
        """
        suffix = path.suffix.lower()
        if suffix in (".jpg", ".jpeg", ".webp", ".bmp") and self.pixels.dtype == np.uint16:
            raise ImageError(f"{path}: {suffix} holds 8 bits a channel, the photograph has 16; use .png or .tif")
        encoded = self._encode_tiff() if suffix in _TIFF else self._encode(suffix)
        if encoded is None:
            raise ImageError(f"{path}: {suffix} can't hold this photograph; use .png")
        with whole_file(path) as file:
            file.write(encoded)

    def _encode(self, suffix: str) -> bytes | None:
        channels = self.pixels.shape[2]
        colours = self.pixels if channels != 2 else self.pixels[..., [0, 0, 0, 1]]  # OpenCV knows no grey with alpha
        order = _RGB[colours.shape[2]]
        notes = {cv2.IMAGE_METADATA_ICCP: self.icc, cv2.IMAGE_METADATA_EXIF: self.exif}
        kept = {kind: np.frombuffer(note, dtype=np.uint8) for kind, note in notes.items() if note}
        if suffix == ".bmp":
            kept = {}
        done, encoded = cv2.imencodeWithMetadata(
            suffix, np.ascontiguousarray(colours[..., order]), list(kept), list(kept.values()), _QUALITY.get(suffix, [])
        )
        return encoded.tobytes() if done else None

    def _encode_tiff(self) -> bytes:
        channels = self.pixels.shape[2]
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            self.pixels if channels != 1 else self.pixels[..., 0],
            photometric="rgb" if channels > 2 else "minisblack",
            extrasamples=("unassalpha",) if channels in (2, 4) else None,
            planarconfig="contig" if channels > 1 else None,
            iccprofile=self.icc,
            compression="zlib",
        )
        return file.getvalue()


def _decode(encoded: bytes) -> Photograph | None:
    if not encoded:
        return None
    read = cv2.imdecodeWithMetadata(np.frombuffer(encoded, dtype=np.uint8), flags=cv2.IMREAD_UNCHANGED)
    pixels, kinds, notes = read[:3]
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    note = {int(kind): bytes(value.ravel()) for kind, value in zip(np.ravel(kinds), notes, strict=True)}
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., _RGB[pixels.shape[2]]]
    orientation, exif = _upright(note.get(cv2.IMAGE_METADATA_EXIF))
    return Photograph(_turn(pixels, orientation), note.get(cv2.IMAGE_METADATA_ICCP), exif)


def _decode_tiff(encoded: bytes) -> Photograph | None:
    with tifffile.TiffFile(io.BytesIO(encoded)) as file:
        page: Any = file.pages[0]
        tags = {tag.code: tag.value for tag in page.tags}
        if page.compression not in _TIFF_COMPRESSIONS:
            return _decode_by_opencv(encoded, page, tags.get(34675))
        pixels = page.asarray()
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
        return None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = np.iinfo(pixels.dtype).max - pixels
    if pixels.shape[2] > 4 or page.photometric not in (0, 1, 2):
        return None
    return Photograph(_turn(pixels, tags.get(274, 1)), tags.get(34675))


def _decode_by_opencv(encoded: bytes, page: Any, icc: bytes | None) -> Photograph | None:
    """Return a TIFF whose compression (LZW, JPEG) `tifffile` doesn't know by itself.

    OpenCV turns it upright; it would multiply colours by alpha.
    """
    if page.photometric not in (1, 2, 6) or page.samplesperpixel not in (1, 3):
        kind = f"{page.photometric.name}, {page.samplesperpixel} channels, compression {page.compression.name}"
        raise ValueError(f"{kind}; save it without")
    pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return Photograph(np.ascontiguousarray(pixels[..., _RGB[pixels.shape[2]]]), icc)


def _upright(exif: bytes | None) -> tuple[int, bytes | None]:
    """Return the orientation that a camera noted, and its notes with the orientation set to upright."""
    if exif is None:
        return 1, None
    notes = Image.Exif()
    try:
        notes.load(exif)
        orientation = notes.get(_ORIENTATION, 1)
        if orientation != 1:
            notes[_ORIENTATION] = 1
            exif = notes.tobytes().removeprefix(b"Exif\0\0")
    except Exception:  # notes that nobody can read raise whatever; the picture is what matters
        return 1, None
    return orientation, exif


def _turn(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels turned and mirrored so that EXIF's `orientation` (1 to 8) becomes upright."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
