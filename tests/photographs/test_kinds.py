"""Kinds of pictures: read as what they are, or named for what they are; what a result won't have of a file is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from reblur_plugin.core import memory
from reblur_plugin.data import images
from reblur_plugin.data.images import ImageError, decode_image
from reblur_plugin.photographs.photograph import Photograph

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_LOSSY = 12  # grey levels that JPEG may move a smooth picture's pixel


def smooth(channels: int, dtype: type = np.uint8, height: int = 24, width: int = 32) -> NDArray[Any]:
    """A picture of ramps, different in each channel and not symmetric."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(1 + channel) * x + 3 * y + 10 * channel for channel in range(channels)]  # at most 223
    return (np.stack(planes, axis=2) * (257 if dtype is np.uint16 else 1)).astype(dtype)


class TestKindsThatAreNotRead:
    """They are whole: the sentence says what they are, not that they are damaged."""

    @pytest.mark.parametrize(
        ("dtype", "channels", "kind", "reason"),
        [
            (np.uint8, 4, "separated", "expected grey or RGB, got CMYK; convert it to RGB"),
            (np.uint8, 3, "cielab", "expected grey or RGB, got CIELAB; convert it to RGB"),
            (np.float32, 3, "rgb", "expected 8 or 16 bits a channel, got float32; convert it to PNG"),
            (np.int16, 3, "rgb", "expected 8 or 16 bits a channel, got int16; convert it to PNG"),
            (np.uint8, 5, "rgb", "expected at most RGB and alpha, got 5 channels; save it with those"),
        ],
    )
    def test_are_named_by_both_readers(
        self, tmp_path: Path, dtype: type, channels: int, kind: str, reason: str
    ) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((8, 9, channels), dtype), photometric=kind)
        for read in (Photograph.load, decode_image):
            with pytest.raises(ImageError, match=f"^{path}: {reason}$"):
                read(path)

    def test_a_png_wider_than_its_library_reads_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        Image.new("1", (1_100_000, 1)).save(path)
        with pytest.raises(ImageError, match=r"at most 1,000,000 pixels each way, got 1100000x1; cut it$"):
            Photograph.load(path)


class TestKindsThatAreRead:
    @pytest.mark.parametrize(
        ("suffix", "kind"), [(".tif", "PNG"), (".tif", "JPEG"), (".png", "TIFF"), (".webp", "BMP")]
    )
    def test_content_counts_not_the_suffix(self, tmp_path: Path, suffix: str, kind: str) -> None:
        path = tmp_path / f"a{suffix}"
        Image.fromarray(smooth(3)).save(path, kind, quality=100)
        for pixels in (Photograph.load(path).pixels, decode_image(path)):
            assert np.abs(pixels.astype(int) - smooth(3)).max() <= _LOSSY

    def test_planes_are_pixels(self, tmp_path: Path) -> None:
        path, planes = tmp_path / "a.tif", smooth(3).transpose(2, 0, 1)
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
        assert np.array_equal(Photograph.load(path).pixels, smooth(3))
        assert np.array_equal(decode_image(path), smooth(3))

    def test_a_palette_and_two_levels_in_a_tiff(self, tmp_path: Path) -> None:
        drawn = Image.fromarray(smooth(1)[..., 0] // 128 * 255)
        for number, picture in enumerate((drawn.convert("P"), drawn.convert("1"))):
            picture.save(tmp_path / f"{number}.tif")
            assert np.array_equal(decode_image(tmp_path / f"{number}.tif")[..., 0], np.asarray(drawn))

    def test_memory_is_the_limit_of_pixels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.png"
        Image.fromarray(smooth(3)).save(path)
        monkeypatch.setattr(images, "_UNASKED", 24 * 32 * 12 - 1)
        monkeypatch.setattr(memory, "free", lambda: 24 * 32 * 12 - 1)
        with pytest.raises(ImageError, match=r"a\.png: expected 0\.0 GiB of memory for 32x24 pixels, got 0\.0; cut it"):
            Photograph.load(path)
        for free in (24 * 32 * 12, None):
            monkeypatch.setattr(memory, "free", lambda free=free: free)
            assert Photograph.load(path).pixels.shape == (24, 32, 3)

    def test_no_library_s_own_limit_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 24 * 32 // 3)
        Image.fromarray(smooth(3)).save(tmp_path / "a.png")
        assert Photograph.load(tmp_path / "a.png").pixels.shape == (24, 32, 3)


class TestAlpha:
    """Colours are what they were before a format multiplied them by alpha, by both readers."""

    def check(self, path: Path, expected: NDArray[Any]) -> None:
        colours = expected[..., :3] if expected.shape[2] == 4 else np.repeat(expected[..., :1], 3, axis=2)
        assert np.array_equal(Photograph.load(path).pixels, expected)
        assert np.array_equal(decode_image(path), colours)

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("channels", [2, 4])
    @pytest.mark.parametrize("kind", ["unassalpha", "unspecified"])
    def test_in_a_tiff_beside_colours_that_were_not_multiplied(
        self, tmp_path: Path, dtype: type, channels: int, kind: str
    ) -> None:
        photometric = "rgb" if channels == 4 else "minisblack"
        tifffile.imwrite(tmp_path / "a.tif", smooth(channels, dtype), photometric=photometric, extrasamples=(kind,))
        self.check(tmp_path / "a.tif", smooth(channels, dtype))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_in_a_tiff_that_multiplied_colours_is_divided_out(self, tmp_path: Path, dtype: type) -> None:
        largest = np.iinfo(dtype).max
        fifth = largest // 5  # 51 of 255 and 13107 of 65535: five times what is stored was there
        stored = np.array([[[40, 20, 0, fifth], [7, 8, 9, largest], [0, 0, 0, 0]]], dtype)
        shown = np.array([[[200, 100, 0, fifth], [7, 8, 9, largest], [0, 0, 0, 0]]], dtype)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=("assocalpha",))
        self.check(tmp_path / "a.tif", shown)

    @pytest.mark.parametrize("suffix", [".png", ".webp"])
    def test_in_other_formats_never_multiplies(self, tmp_path: Path, suffix: str) -> None:
        Image.fromarray(smooth(4), "RGBA").save(tmp_path / f"a{suffix}", lossless=True, exact=True)
        self.check(tmp_path / f"a{suffix}", smooth(4))

    def test_beside_lzw_is_read_in_8_bits(self, tmp_path: Path) -> None:
        Image.fromarray(smooth(4), "RGBA").save(tmp_path / "a.tif", compression="tiff_lzw")
        self.check(tmp_path / "a.tif", smooth(4))


def profile(space: bytes) -> bytes:
    """Return a profile whose header says that it is for another colour space."""
    return ICC[:16] + space + ICC[20:]


class TestProfiles:
    def test_that_of_grey_with_alpha_stays(self, tmp_path: Path) -> None:
        grey = profile(b"GRAY")
        Image.fromarray(smooth(2), "LA").save(tmp_path / "a.png", icc_profile=grey)
        photograph = Photograph.load(tmp_path / "a.png")
        assert (photograph.pixels.shape[2], photograph.told) == (2, ())
        photograph.save(tmp_path / "b.png")
        with Image.open(tmp_path / "b.png") as picture:
            assert (picture.mode, picture.info["icc_profile"]) == ("LA", grey)
            assert np.array_equal(np.asarray(picture), smooth(2))

    @pytest.mark.parametrize(("mode", "space"), [("RGB", b"GRAY"), ("L", b"RGB "), ("RGB", b"CMYK")])
    def test_one_for_other_pixels_is_left_out_and_told(self, tmp_path: Path, mode: str, space: bytes) -> None:
        pixels = smooth(3) if mode == "RGB" else smooth(1)[..., 0]
        Image.fromarray(pixels).save(tmp_path / "a.tif", icc_profile=profile(space))
        photograph = Photograph.load(tmp_path / "a.tif")
        assert photograph.icc is None
        (told,) = photograph.told
        assert told.startswith(f"its colour profile is left out: it is for {space.decode().strip()}, ")

    def test_cmyk_becomes_rgb_without_its_profile(self, tmp_path: Path) -> None:
        Image.new("CMYK", (32, 24), (0, 255, 255, 0)).save(tmp_path / "a.jpg", icc_profile=profile(b"CMYK"), quality=95)
        photograph = Photograph.load(tmp_path / "a.jpg")
        assert photograph.icc is None
        assert photograph.told == (
            "CMYK without a profile that can be followed: colours are converted by the plain formula",
        )
        assert np.abs(photograph.pixels.astype(int) - [255, 0, 0]).max() <= _LOSSY


class TestFrames:
    @pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
    def test_that_are_left_out_are_told(self, tmp_path: Path, suffix: str) -> None:
        frames = [Image.fromarray(smooth(3)), Image.fromarray(255 - smooth(3)), Image.fromarray(smooth(3) // 2)]
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        (told,) = Photograph.load(tmp_path / f"a{suffix}").told
        assert told == f"3 {'pages' if suffix == '.tif' else 'frames'}: the first one alone is deblurred"

    def test_a_phones_second_picture_in_a_jpeg_is_not(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(smooth(3)), Image.fromarray(smooth(3) // 2)]
        frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:])
        assert Photograph.load(tmp_path / "a.jpg").told == ()

    def test_a_chain_of_pages_that_leads_back_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        with tifffile.TiffWriter(path, byteorder="<") as file:
            for _ in range(2):
                file.write(smooth(3), photometric="rgb")
        content = bytearray(path.read_bytes())

        def link(page: int) -> int:  # where a page's entry on the next one is
            return page + 2 + 12 * int.from_bytes(content[page : page + 2], "little")

        first = int.from_bytes(content[4:8], "little")
        second = int.from_bytes(content[link(first) : link(first) + 4], "little")
        content[link(second) : link(second) + 4] = first.to_bytes(4, "little")
        path.write_bytes(content)
        assert Photograph.load(path).told == ("2 pages: the first one alone is deblurred",)

    def test_a_thumbnail_in_a_tiff_is_not(self, tmp_path: Path) -> None:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(smooth(3), photometric="rgb")
            file.write(smooth(3)[::2, ::2], photometric="rgb", subfiletype=1)
        assert Photograph.load(tmp_path / "a.tif").told == ()
