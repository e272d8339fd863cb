"""Image files to arrays and back. Arrays are RGB, `(H, W, 3)`; a file that can't be used is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


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
    try:
        encoded = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ImageError(f"{path}: expected an image, but it can't be read ({error.strerror})") from error
    if encoded.size == 0:
        raise ImageError(f"{path}: expected an image, got an empty file; unzip or download it again")
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:  # a header that asks for too many pixels, say
        pixels = None
    if pixels is None:
        raise ImageError(f"{path}: expected an image, got a damaged or unknown file; unzip or download it again")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{path}: expected 8 or 16 bits a channel, got {pixels.dtype}; convert it to PNG")
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


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
