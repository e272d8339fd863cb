"""Image files against pictures whose bytes are put together here or written by Pillow; nothing asks OpenCV."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from reblur_plugin.data.images import SUFFIXES, ImageError, read_image, to_tensor, to_uint8, write_image
from reblur_plugin.files import FileError

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels: grey, grey + alpha, RGB, RGBA in the PNG specification
UNKNOWN = "expected an image, got a damaged or unknown file"
JPEG_ROUNDING = 2 / 255  # two roundings (to YCbCr and back) at quality 100 on flat areas


def png(pixels: NDArray[Any], size: tuple[int, int] | None = None) -> bytes:
    """Return a PNG file of `(H, W, C)` pixels, 8 or 16 bits by their type, by the specification; no filters."""
    height, width = size or pixels.shape[:2]
    depth = 8 * pixels.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, depth, COLOUR_TYPES[pixels.shape[2]], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def read_bytes(folder: Path, content: bytes, name: str = "image.png") -> NDArray[np.float32]:
    (folder / name).write_bytes(content)
    return read_image(folder / name)


def noise(height: int = 20, width: int = 30) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: NDArray[np.uint8], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=100)
    return file.getvalue()


class TestReadImage:
    def test_channels_are_red_green_blue_in_unit_range(self, tmp_path: Path) -> None:
        image = read_bytes(tmp_path, png(np.array([[[255, 0, 51]]], dtype=np.uint8)))
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, np.array([[[1, 0, 0.2]]], dtype=np.float32))

    def test_all_8_bit_levels_are_kept(self, tmp_path: Path) -> None:
        levels = np.arange(256).reshape(16, 16, 1).repeat(3, axis=2)
        image = read_bytes(tmp_path, png(levels.astype(np.uint8)))
        np.testing.assert_array_equal(image, (levels / 255).astype(np.float32))

    def test_all_16_bit_levels_are_kept(self, tmp_path: Path) -> None:
        levels = np.arange(65536).reshape(256, 256, 1)
        for channels in (1, 2, 3, 4):
            image = read_bytes(tmp_path, png(levels.repeat(channels, axis=2).astype(np.uint16)))
            assert image.shape == (256, 256, 3)
            np.testing.assert_array_equal(image, (levels / 65535).astype(np.float32).repeat(3, axis=2))

    def test_grey_becomes_three_equal_channels(self, tmp_path: Path) -> None:
        for kind in (np.uint8, np.uint16):
            top = np.iinfo(kind).max
            image = read_bytes(tmp_path, png(np.array([[[0], [top // 5], [top]]], dtype=kind)))
            np.testing.assert_array_equal(image, np.array([[[0] * 3, [0.2] * 3, [1] * 3]], dtype=np.float32))

    def test_alpha_is_dropped_and_leaves_the_colours_alone(self, tmp_path: Path) -> None:
        for kind in (np.uint8, np.uint16):
            top = np.iinfo(kind).max
            pixels = np.array([[[top, 0, top // 5, 0], [0, top, 0, top // 2]]], dtype=kind)
            image = read_bytes(tmp_path, png(pixels))
            np.testing.assert_array_equal(image, np.array([[[1, 0, 0.2], [0, 1, 0]]], dtype=np.float32))

    def test_a_palette_gives_its_colours(self, tmp_path: Path) -> None:
        picture = Image.new("P", (2, 1))
        picture.putpalette([255, 0, 0, 0, 51, 255])
        picture.putdata([1, 0])
        picture.save(tmp_path / "image.png")
        np.testing.assert_array_equal(
            read_image(tmp_path / "image.png"), np.array([[[0, 0.2, 1], [1, 0, 0]]], dtype=np.float32)
        )

    # The stored quarters are a b / c d. EXIF names the sides on which the stored row 0 and column 0 lie: 6 is right
    # and top, so that the row a b runs down the right side and the column a c along the top: c a / d b.
    def test_the_cameras_orientation_is_applied(self, tmp_path: Path) -> None:
        levels = {"a": 40, "b": 100, "c": 160, "d": 220}
        stored = np.kron(np.array([[40, 100], [160, 220]], dtype=np.uint8), np.ones((16, 24), dtype=np.uint8))
        orders = ("abcd", "badc", "dcba", "cdab", "acbd", "cadb", "dbca", "bdac")
        for orientation, quarters in enumerate(orders, start=1):
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray(stored).convert("RGB").save(tmp_path / "photo.jpg", quality=100, exif=exif)
            image = read_image(tmp_path / "photo.jpg")
            assert image.shape == ((32, 48, 3) if orientation <= 4 else (48, 32, 3))
            rows, columns = image.shape[0] // 4, image.shape[1] // 4
            centres = image[rows :: 2 * rows, columns :: 2 * columns, 0].ravel()
            np.testing.assert_allclose(centres, [levels[name] / 255 for name in quarters], rtol=0, atol=JPEG_ROUNDING)


class TestReadImageRefuses:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"none\.png: expected an image, but it can't be read \(No such file"):
            read_image(tmp_path / "none.png")

    def test_a_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=rf"{tmp_path}: expected an image, but it can't be read \(Is a directory"):
            read_image(tmp_path)

    def test_an_empty_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"image\.png: expected an image, got an empty file; unzip or download"):
            read_bytes(tmp_path, b"")

    def test_a_file_that_is_no_picture_is_named(self, tmp_path: Path) -> None:
        for content in (b"<html>404 Not Found</html>\n", b"\0" * 1000, png(noise())[:8]):
            with pytest.raises(ImageError, match=rf"image\.png: {UNKNOWN}; unzip or"):
                read_bytes(tmp_path, content)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
    def test_a_file_cut_short_is_named_and_gives_no_picture(self, tmp_path: Path, kind: str) -> None:
        content = encoded(noise(), kind)
        for part in (0.3, 0.6, 0.95):
            with pytest.raises(ImageError, match=rf"cut\.{kind.lower()}: {UNKNOWN}"):
                read_bytes(tmp_path, content[: int(len(content) * part)], f"cut.{kind.lower()}")

    def test_a_photograph_that_lacks_its_last_bytes_gives_no_picture(self, tmp_path: Path, shared: Path) -> None:
        content = (shared / "data" / "REDS" / "train" / "train_sharp" / "020" / "00000000.png").read_bytes()
        for missing in (1, 4, 8, 12, 13, 16, 20, 200, 100_000):
            with pytest.raises(ImageError, match=rf"image\.png: {UNKNOWN}"):
                read_bytes(tmp_path, content[:-missing])

    def test_a_damaged_png_gives_no_picture(self, tmp_path: Path) -> None:
        content = bytearray(png(noise()))
        content[len(content) // 2] ^= 1
        with pytest.raises(ImageError, match=r"image\.png: expected an image, got a damaged"):
            read_bytes(tmp_path, bytes(content))

    def test_a_picture_of_floats_is_named_with_its_type(self, tmp_path: Path) -> None:
        assert cv2.imwrite(str(tmp_path / "float.tiff"), np.zeros((4, 4, 3), dtype=np.float32))
        with pytest.raises(ImageError, match=r"float\.tiff: expected 8 or 16 bits a channel, got float32; convert it"):
            read_image(tmp_path / "float.tiff")

    def test_a_header_that_claims_ten_gigapixels_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            ImageError, match=r"image\.png: expected 111\.8 GiB of memory for 100000x100000 pixels, got "
        ):
            read_bytes(tmp_path, png(noise(1, 1), size=(100_000, 100_000)))


class TestWriteImage:
    def test_another_reader_finds_the_same_pixels(self, tmp_path: Path) -> None:
        pixels = noise()
        for suffix in (".png", ".bmp", ".tif", ".TIFF", ".PNG"):
            path = tmp_path / "deep" / suffix / f"image{suffix}"
            write_image(path, pixels)
            with Image.open(path) as picture:
                np.testing.assert_array_equal(np.asarray(picture), pixels)

    def test_an_older_file_is_replaced_and_nothing_else_is_left(self, tmp_path: Path) -> None:
        for level in (10, 20):
            write_image(tmp_path / "image.png", np.full((4, 4, 3), level, dtype=np.uint8))
        assert [path.name for path in tmp_path.iterdir()] == ["image.png"]
        with Image.open(tmp_path / "image.png") as picture:
            assert picture.getpixel((0, 0)) == (20, 20, 20)

    def test_an_unknown_suffix_is_refused_and_nothing_created(self, tmp_path: Path) -> None:
        expected = f"expected a picture and one of the suffixes {', '.join(SUFFIXES)}, got"
        for name in ("image.xyz", "image"):
            with pytest.raises(ImageError, match=f"{name}: {expected}"):
                write_image(tmp_path / "folder" / name, noise())
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_the_older_file_and_no_part(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        (tmp_path / "image.png").write_bytes(b"older")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(FileError, match=r"image\.png: can't be written \(No space left on device\)"):
            write_image(tmp_path / "image.png", noise())
        assert [path.name for path in tmp_path.iterdir()] == ["image.png"]
        assert (tmp_path / "image.png").read_bytes() == b"older"

    def test_a_folder_of_that_name_is_named_and_no_part_left(self, tmp_path: Path) -> None:
        (tmp_path / "image.png").mkdir()
        with pytest.raises(FileError, match=r"image\.png: can't be written \(Is a directory\)"):
            write_image(tmp_path / "image.png", noise())
        assert [path.name for path in tmp_path.iterdir()] == ["image.png"]

    def test_a_file_in_the_folders_place_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "results").write_text("a file")
        with pytest.raises(FileError, match=r"results/image\.png: can't be written"):
            write_image(tmp_path / "results" / "image.png", noise())


class TestTensors:
    def test_to_tensor_puts_the_channels_first(self) -> None:
        tensor = to_tensor(np.arange(6, dtype=np.float32).reshape(1, 2, 3))
        assert torch.equal(tensor, torch.tensor([[[0.0, 3.0]], [[1.0, 4.0]], [[2.0, 5.0]]]))

    def test_to_tensor_takes_flipped_views(self) -> None:
        tensor = to_tensor(np.arange(6, dtype=np.float32).reshape(1, 2, 3)[:, ::-1])
        assert torch.equal(tensor, torch.tensor([[[3.0, 0.0]], [[4.0, 1.0]], [[5.0, 2.0]]]))

    # levels 0.4 / 0.6 / 127.5 / 254.6 round to 0 / 1 / 128 / 255 and not, as by cutting, to 0 / 0 / 127 / 254
    def test_to_uint8_clamps_and_then_rounds(self) -> None:
        levels = {-0.1: 0, 0.0: 0, 0.4 / 255: 0, 0.6 / 255: 1, 0.5: 128, 254.6 / 255: 255, 1.0: 255, 1.7: 255}
        found = {value: to_uint8(torch.full((3, 1, 1), value)) for value in levels}
        assert {value: pixels.tolist() for value, pixels in found.items()} == {
            value: [[[level] * 3]] for value, level in levels.items()
        }
        assert {pixels.dtype for pixels in found.values()} == {np.dtype(np.uint8)}

    def test_to_uint8_puts_the_channels_last(self) -> None:
        expected = np.array([[[10, 30, 50], [20, 40, 60]]], dtype=np.uint8)
        for shape in ((3, 1, 2), (1, 3, 1, 2)):
            image = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0, 60.0]).div(255).reshape(shape)
            np.testing.assert_array_equal(to_uint8(image), expected, strict=True)

    def test_to_uint8_leaves_its_input_alone(self) -> None:
        image = torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1).requires_grad_()
        pixels = to_uint8(image)
        pixels[:] = 7
        assert torch.equal(image.detach().ravel(), torch.tensor([-1.0, 0.5, 2.0]))
        assert image.requires_grad

    def test_to_uint8_takes_every_float(self) -> None:
        for dtype in (torch.bfloat16, torch.float16, torch.float64):
            assert to_uint8(torch.full((3, 1, 1), 0.25, dtype=dtype)).ravel().tolist() == [64, 64, 64]  # 63.75
