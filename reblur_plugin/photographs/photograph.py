"""A photograph as a person's file: its pixels upright, and all that belongs to them kept for the result."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor

from reblur_plugin.data.images import SUFFIXES, ImageError, read_encoded, to_float, to_tensor
from reblur_plugin.data.tiff import Pixels, TiffError, decode_tiff, is_tiff, tiff_size, turn
from reblur_plugin.files import whole_file

_TIFF = (".tif", ".tiff")
_RGB = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}  # OpenCV's order of channels, and back
_ORIENTATION = 0x0112  # EXIF tag
_KINDS: dict[bytes, type[ImageFile]] = {b"\x89PNG": PngImageFile, b"RIFF": WebPImageFile, b"\xff\xd8": JpegImageFile}
_PNG, _COLOUR_TYPE, _GREY_AND_ALPHA = b"\x89PNG\r\n\x1a\n", 25, 4
_QUALITY = {".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95], ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95]}
_QUALITY |= {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}  # above 100: lossless


@dataclass(frozen=True)
class Photograph:
    """Pixels `(H, W, C)` in 8 or 16 bits with C = 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    Attributes:
        pixels: upright, as the camera's note says.
        icc: colour profile, None if there is none.
        exif: the camera's notes with the orientation set to "upright", None if there are none.
        told: sentences on what the result won't have of the file.
    """

    pixels: Pixels
    icc: bytes | None = None
    exif: bytes | None = None
    told: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Photograph:
        """Return the photograph in `path`.

        Raises:
            ImageError: if the file is missing, empty, damaged or of a kind that isn't read.
        """
        if path.suffix.lower() not in SUFFIXES:
            raise ImageError(f"{path}: expected one of {', '.join(SUFFIXES)}, got {path.suffix!r}")
        encoded = read_encoded(path, "a photograph")
        try:
            photograph = _decode(encoded)
        except TiffError as error:
            raise ImageError(f"{path}: {error}") from error
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise ImageError(f"{path}: expected a photograph, got a damaged or unknown file ({error})") from error
        if photograph is None:
            raise ImageError(f"{path}: expected a photograph, got a damaged or unknown file")
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
        if channels == 2 and suffix == ".png" and self.pixels.dtype == np.uint8:  # OpenCV knows no grey with alpha
            file = io.BytesIO()
            Image.fromarray(self.pixels, "LA").save(file, "PNG", icc_profile=self.icc, exif=self.exif or b"")
            return file.getvalue()
        colours = self.pixels if channels != 2 else self.pixels[..., [0, 0, 0, 1]]
        order = _RGB[colours.shape[2]]
        icc = self.icc if channels != 2 else None  # whose profile isn't for RGB
        notes = {cv2.IMAGE_METADATA_ICCP: icc, cv2.IMAGE_METADATA_EXIF: self.exif}
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


def size_of(path: Path) -> tuple[int, int] | None:
    """Return width and height as the file's header tells, before it is turned upright; nothing is decoded.

    None, where the header can't be read, or isn't that of a PNG, JPEG, WebP, BMP or TIFF file.
    """
    try:
        with path.open("rb") as file:
            mark = file.read(4)
            file.seek(0)
            if is_tiff(mark):
                return tiff_size(file)
            kinds: dict[bytes, type[ImageFile]] = {**_KINDS, b"BM": BmpImageFile}
            for start, kind in kinds.items():
                if mark.startswith(start):
                    return kind(file).size
            return None
    except Exception:  # decoders raise whatever a damaged file leads them to
        return None


def _decode(encoded: bytes) -> Photograph | None:
    if is_tiff(encoded):
        found = decode_tiff(encoded)
        return _checked(found.pixels, found.icc, None, _frames_note(found.pages, "pages"))
    read = cv2.imdecodeWithMetadata(np.frombuffer(encoded, dtype=np.uint8), flags=cv2.IMREAD_UNCHANGED)
    pixels, kinds, notes = read[:3]
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        return None
    note = {int(kind): bytes(value.ravel()) for kind, value in zip(np.ravel(kinds), notes, strict=True)}
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    pixels = pixels[..., _RGB[pixels.shape[2]]]
    if encoded.startswith(_PNG) and encoded[_COLOUR_TYPE] == _GREY_AND_ALPHA:
        pixels = pixels[..., [0, 3]]
    orientation, exif = _upright(note.get(cv2.IMAGE_METADATA_EXIF))
    icc, told = note.get(cv2.IMAGE_METADATA_ICCP), []
    kind = next((kind for mark, kind in _KINDS.items() if encoded.startswith(mark)), None)
    if kind is not None:
        with kind(io.BytesIO(encoded)) as picture:  # not Image.open, which refuses large ones
            icc = picture.info.get("icc_profile")  # OpenCV takes the index of a phone's second picture for it
            if kind is not JpegImageFile:  # phones put a second picture there, which nobody means
                told += _frames_note(getattr(picture, "n_frames", 1), "frames")
            if picture.mode == "CMYK":
                converted, why = _from_cmyk(picture, icc)
                pixels = pixels if converted is None else converted
                icc, told = None, [*told, why]
    return _checked(turn(pixels, orientation), icc, exif, told)


def _checked(pixels: Pixels, icc: bytes | None, exif: bytes | None, told: list[str]) -> Photograph:
    """Return the photograph, without a profile that is for other channels than it has."""
    expected = b"GRAY" if pixels.shape[2] < 3 else b"RGB "
    if icc and len(icc) > 20 and icc[16:20] != expected:
        spaces = (space.decode("ascii", "replace").strip() for space in (icc[16:20], expected))
        told = [*told, "its colour profile is left out: it is for {}, the pixels are {}".format(*spaces)]
        icc = None
    return Photograph(pixels, icc, exif, tuple(told))


def _frames_note(count: int, what: str) -> list[str]:
    return [f"{count} {what}: the first one alone is deblurred"] if count > 1 else []


def _from_cmyk(picture: Image.Image, icc: bytes | None) -> tuple[Pixels | None, str]:
    """Return sRGB pixels by the picture's profile, None where it has none that can be followed, and what was done."""
    try:
        if icc is None:
            raise ImageCms.PyCMSError("no profile")
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        found = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except ImageCms.PyCMSError:
        return None, "CMYK without a profile that can be followed: colours are converted by the plain formula"
    return np.asarray(found), "CMYK: converted to sRGB by its profile"


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
