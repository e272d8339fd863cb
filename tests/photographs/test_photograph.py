"""A person's file comes back as it was, but for its colours. Files are made and read again by Pillow and tifffile."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from reblur_plugin.data.images import ImageError
from reblur_plugin.files import FileError
from reblur_plugin.photographs.photograph import Photograph

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SUFFIXES = (".png", ".jpg", ".webp", ".tif")
_DESCRIPTION = 0x010E
_LOSSY = 12  # grey levels that JPEG at quality 95 may move a smooth picture's pixel


def smooth(channels: int, dtype: type = np.uint8, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """A picture of ramps, different in each channel and not symmetric."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(1 + channel) * x + 3 * y + 10 * channel for channel in range(channels)]  # at most 223
    return (np.stack(planes, axis=2) * (257 if dtype is np.uint16 else 1)).astype(dtype)


def exif(orientation: int) -> bytes:
    notes = Image.Exif()
    notes[0x0112] = orientation
    notes[_DESCRIPTION] = "a bench"
    return notes.tobytes()


def brightened(photograph: Photograph) -> Photograph:
    return photograph.with_rgb(photograph.rgb() * 0.5 + 0.25)


class TestPixels:
    def test_unchanged_colours_give_the_same_picture(self, tmp_path: Path) -> None:
        for suffix in (".png", ".tif", ".webp", ".bmp"):
            Image.fromarray(smooth(3)).save(tmp_path / f"a{suffix}", lossless=True)
            photograph = Photograph.load(tmp_path / f"a{suffix}")
            photograph.with_rgb(photograph.rgb()).save(tmp_path / f"b{suffix}")
            with Image.open(tmp_path / f"b{suffix}") as picture:
                assert np.array_equal(np.asarray(picture.convert("RGB")), smooth(3))

    def test_jpeg_stays_close(self, tmp_path: Path) -> None:
        Image.fromarray(smooth(3)).save(tmp_path / "a.jpg", quality=95)
        photograph = Photograph.load(tmp_path / "a.jpg")
        photograph.with_rgb(photograph.rgb()).save(tmp_path / "b.jpg")
        with Image.open(tmp_path / "b.jpg") as picture:
            assert np.abs(np.asarray(picture).astype(int) - smooth(3)).max() <= _LOSSY

    def test_colours_are_rgb_in_order(self, tmp_path: Path) -> None:
        Image.fromarray(smooth(3)).save(tmp_path / "a.png")
        expected = torch.from_numpy(smooth(3).transpose(2, 0, 1))[None].float() / 255
        torch.testing.assert_close(Photograph.load(tmp_path / "a.png").rgb(), expected)

    def test_sixteen_bits_stay_sixteen(self, tmp_path: Path) -> None:
        for suffix in (".png", ".tif"):
            pixels = smooth(3, np.uint16)
            tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
            photograph = Photograph.load(tmp_path / "a.tif")
            photograph.with_rgb(photograph.rgb() + 1 / 65535).save(tmp_path / f"b{suffix}")
            again = Photograph.load(tmp_path / f"b{suffix}").pixels
            assert again.dtype == np.uint16
            assert np.array_equal(again, pixels + 1)  # a step that 8 bits don't have

    def test_alpha_is_kept_and_colours_under_it_change(self, tmp_path: Path) -> None:
        for suffix in (".png", ".webp", ".tif"):
            Image.fromarray(smooth(4)).save(tmp_path / f"a{suffix}", lossless=True, exact=True)
            brightened(Photograph.load(tmp_path / f"a{suffix}")).save(tmp_path / f"b{suffix}")
            with Image.open(tmp_path / f"b{suffix}") as picture:
                assert picture.mode == "RGBA"
                after = np.asarray(picture)
            assert np.array_equal(after[..., 3], smooth(4)[..., 3])
            assert np.array_equal(after[..., :3], np.round(smooth(4)[..., :3] * 0.5 + 0.25 * 255))

    def test_grey_stays_grey(self, tmp_path: Path) -> None:
        for suffix in (".png", ".tif", ".jpg"):
            Image.fromarray(smooth(1)[..., 0]).save(tmp_path / f"a{suffix}")
            photograph = Photograph.load(tmp_path / f"a{suffix}")
            assert photograph.rgb().shape == (1, 3, 24, 32)
            brightened(photograph).save(tmp_path / f"b{suffix}")
            with Image.open(tmp_path / f"b{suffix}") as picture:
                assert picture.mode == "L"

    def test_colours_are_clamped_and_rounded(self) -> None:
        photograph = Photograph(np.zeros((1, 2, 3), dtype=np.uint8))
        image = torch.tensor([[[[1.5, -0.5]], [[100.4 / 255, 100.6 / 255]], [[0.0, 1.0]]]])
        assert photograph.with_rgb(image).pixels.tolist() == [[[255, 100, 0], [0, 101, 255]]]


class TestNotes:
    def test_the_colour_profile_is_kept(self, tmp_path: Path) -> None:
        for suffix in SUFFIXES:
            Image.fromarray(smooth(3)).save(tmp_path / f"a{suffix}", icc_profile=ICC)
            brightened(Photograph.load(tmp_path / f"a{suffix}")).save(tmp_path / f"b{suffix}")
            with Image.open(tmp_path / f"b{suffix}") as picture:
                assert picture.info["icc_profile"] == ICC

    def test_the_cameras_notes_are_kept_with_the_picture_upright(self, tmp_path: Path) -> None:
        for suffix in (".jpg", ".png", ".webp"):
            Image.fromarray(smooth(3)).save(tmp_path / f"a{suffix}", exif=exif(6), quality=95)
            brightened(Photograph.load(tmp_path / f"a{suffix}")).save(tmp_path / f"b{suffix}")
            with Image.open(tmp_path / f"b{suffix}") as picture:
                assert picture.size == (24, 32)
                assert picture.getexif()[_DESCRIPTION] == "a bench"
                assert picture.getexif().get(0x0112, 1) == 1

    def test_every_orientation_is_shown_as_pillow_shows_it(self, tmp_path: Path) -> None:
        for suffix, orientation in product((".png", ".tif"), range(1, 9)):
            source = Image.fromarray(smooth(3))
            file = io.BytesIO()
            source.save(file, "PNG", exif=exif(orientation))
            upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
            if suffix == ".tif":
                source.save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
            else:
                (tmp_path / "a.png").write_bytes(file.getvalue())
            assert np.array_equal(Photograph.load(tmp_path / f"a{suffix}").pixels, upright)


class TestPackedTiff:
    """Compressions that OpenCV reads for us."""

    def test_lzw_is_turned_upright_once(self, tmp_path: Path, rng: np.random.Generator) -> None:
        turns: dict[int, Any] = {
            1: lambda image: image,
            2: lambda image: image[:, ::-1],
            3: lambda image: image[::-1, ::-1],
            4: lambda image: image[::-1],
            6: lambda image: np.rot90(image, -1),
            8: lambda image: np.rot90(image),
        }
        for (orientation, upright), channels in product(turns.items(), (1, 3)):
            image = rng.integers(0, 256, (5, 7, channels), dtype=np.uint8)
            picture = Image.fromarray(image if channels > 1 else image[..., 0])
            notes = {"tiffinfo": {274: orientation}, "icc_profile": b"profile"}
            picture.save(tmp_path / "a.tif", compression="tiff_lzw", **notes)
            found = Photograph.load(tmp_path / "a.tif")
            assert np.array_equal(found.pixels, upright(image)), orientation
            assert found.icc == b"profile"

    def test_lzw_keeps_16_bits(self, tmp_path: Path, rng: np.random.Generator) -> None:
        image = rng.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / "a.tif"), image)
        assert np.array_equal(Photograph.load(tmp_path / "a.tif").pixels, image[..., ::-1])

    def test_jpeg_in_a_tiff_is_read(self, tmp_path: Path) -> None:
        Image.new("RGB", (16, 8), (200, 100, 50)).save(tmp_path / "a.tif", compression="jpeg")
        found = Photograph.load(tmp_path / "a.tif").pixels
        assert np.abs(found.astype(int) - [200, 100, 50]).max() <= 3  # JPEG's rounding


class TestRefusals:
    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        for suffix, content in product(SUFFIXES, (b"", b"no picture", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0")):
            path = tmp_path / f"a{suffix}"
            path.write_bytes(content)
            message = f"^{path}: expected a photograph, got (an empty file; .*|a damaged or unknown file.*)$"
            with pytest.raises(ImageError, match=message):
                Photograph.load(path)

    def test_a_missing_file_and_an_unknown_suffix_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"none\.png: expected a photograph, but it can't be read"):
            Photograph.load(tmp_path / "none.png")
        (tmp_path / "a.raw").touch()
        with pytest.raises(ImageError, match=r"a\.raw: expected one of \.png, .* got '\.raw'"):
            Photograph.load(tmp_path / "a.raw")

    def test_sixteen_bits_do_not_go_into_a_jpeg(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"b\.jpg: \.jpg holds 8 bits a channel, the photograph has 16"):
            Photograph(smooth(3, np.uint16)).save(tmp_path / "b.jpg")
        assert list(tmp_path.iterdir()) == []

    def test_nothing_half_written_stays_when_the_disk_refuses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(FileError, match=r"b\.png: can't be written \(No space left on device\)"):
            Photograph(smooth(3)).save(tmp_path / "b.png")
        assert list(tmp_path.iterdir()) == []
