"""Image files to arrays and back. Arrays are RGB, `(H, W, 3)`; a file that can't be used is named."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**40))  # memory is the limit; read when cv2 is loaded
import cv2

from reblur_plugin.core import memory
from reblur_plugin.data.tiff import Pixels, TiffError, decode_tiff, is_tiff
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


_DAMAGED = "expected an image, got a damaged or unknown file; unzip or download it again"
_PNG, _MOST_OF_PNG = b"\x89PNG\r\n\x1a\n", 1_000_000
_BYTES = 12  # a pixel, while a picture of 16 bits is read
_UNASKED = 2**28  # bytes that are there, without a look at the system's files for each training image


class ImageError(ReblurError):
    """An image file that can't be read, doesn't fit its partner or its format; the message names it."""


def read_image(path: Path) -> NDArray[np.float32]:
    """Return the picture in `path` as float32 `(H, W, 3)`, RGB in [0, 1]; as `decode_image`, in floats.

    Raises:
        ImageError: if the file is missing, empty, truncated or no picture.
    """
    return to_float(decode_image(path))


def decode_image(path: Path) -> Pixels:
    """Return the picture in `path` as it is stored, `(H, W, 3)`, RGB in 8 or 16 bits.

    Grey becomes three equal channels, alpha is dropped, the orientation noted by a camera is applied.

    Raises:
        ImageError: if the file is missing, empty, truncated or no picture.
    """
    encoded = read_encoded(path, "an image")
    if is_tiff(encoded):
        try:
            pixels = decode_tiff(encoded).pixels
        except TiffError as error:
            raise ImageError(f"{path}: {error}") from error
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            raise ImageError(f"{path}: {_DAMAGED}") from error
        colours = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
        return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    found: Any = None
    with contextlib.suppress(cv2.error):  # a header that it doesn't believe, say
        found = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if found is None:
        raise ImageError(f"{path}: {_DAMAGED}")
    if found.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: expected 8 or 16 bits a channel, got {found.dtype}; convert it to PNG")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def read_encoded(path: Path, what: str) -> bytes:
    """Return the content of a picture's file whose pixels fit into memory.

    Raises:
        ImageError: if the file can't be read, is empty, or its header claims more pixels than there is memory for.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: expected {what}, but it can't be read ({error.strerror})") from error
    if not encoded:
        raise ImageError(f"{path}: expected {what}, got an empty file; unzip or download it again")
    width, height = _claimed(encoded)
    if max(width, height) > _MOST_OF_PNG and encoded.startswith(_PNG):
        most = f"at most {_MOST_OF_PNG:,} pixels each way"
        raise ImageError(f"{path}: expected an image of {most}, got {width}x{height}; cut it")
    needed = width * height * _BYTES
    free = memory.free() if needed > _UNASKED else None
    if free is not None and needed > free:
        sizes = f"{needed / 2**30:.1f} GiB of memory for {width}x{height} pixels, got {free / 2**30:.1f}"
        raise ImageError(f"{path}: expected {sizes}; cut it, or use a machine with more")
    return encoded


def _claimed(encoded: bytes) -> tuple[int, int]:
    """Return width and height as a header claims them, (0, 0) where the format bounds them itself or isn't known."""
    if encoded.startswith(_PNG):
        return int.from_bytes(encoded[16:20], "big"), int.from_bytes(encoded[20:24], "big")
    if encoded.startswith(b"BM"):
        width, height = (int.from_bytes(encoded[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(width), abs(height)
    return 0, 0


def to_float(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return 8- or 16-bit pixels as float32 in [0, 1]; floats as they are."""
    if pixels.dtype == np.float32:
        return pixels
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write 8-bit RGB `(H, W, 3)` to `path`; its suffix says the format. A file is complete or not there.

    Raises:
        ImageError: if the format is unknown.
    """
    try:
        done, encoded = cv2.imencode(path.suffix, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        expected = f"a picture and one of the suffixes {', '.join(SUFFIXES)}"
        raise ImageError(f"{path}: expected {expected}, got {pixels.shape} and {path.suffix!r}") from error
    if not done:
        raise ImageError(f"{path}: {path.suffix} can't hold {pixels.shape[1]}x{pixels.shape[0]} pixels; use .png")
    with whole_file(path) as file:
        file.write(encoded.tobytes())


def through_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return 8-bit RGB `(H, W, 3)` as a JPEG file of a quality in 1..100 would give it back."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def to_tensor(pixels: NDArray[Any]) -> Tensor:
    """Return `(H, W, 3)` as a tensor `(3, H, W)` of the same type."""
    import torch  # here, since files can be read and checked without it

    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """Return a float image `(1, 3, H, W)` or `(3, H, W)` as 8-bit RGB `(H, W, 3)`: clamped to [0, 1], then rounded.

    `image` itself is left alone.
    """
    import torch

    image = image.detach().reshape(image.shape[-3:]).float().clamp(0, 1)
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
