"""Packed pairs: the patches that the image files give, no whole frames read, nothing half done or unnoticed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reblur_plugin import files
from reblur_plugin.data import packed
from reblur_plugin.data.images import ImageError
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.packed import BEGUN, INDEX, PackedPair, pack, packed_pairs
from reblur_plugin.data.pair_dataset import DeblurPairDataset, Draw
from reblur_plugin.data.pairs import DatasetError, Pair, fingerprint
from reblur_plugin.files import FileError

SIZES = {"a/1": (30, 40), "a/2": (50, 33), "b/1": (31, 47)}  # height, width


def write(path: Path, seed: int, size: tuple[int, int], bits: int = 8) -> None:
    """Write noise as PNG: colour with 8 bits, grey with 16 (Pillow has no colour of 16)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    if bits == 8:
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    else:
        Image.fromarray(rng.integers(0, 65536, size, dtype=np.uint16)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pairs of three odd sizes in two sequences of GOPRO's layout."""
    for number, (name, size) in enumerate(SIZES.items()):
        sequence, frame = name.split("/")
        write(tmp_path / "data" / sequence / "blur" / f"{frame}.png", number, size)
        write(tmp_path / "data" / sequence / "sharp" / f"{frame}.png", 100 + number, size)
    return tmp_path / "data"


@pytest.fixture
def pairs(root: Path) -> list[Pair]:
    return list_pairs({"dataroot": str(root), "blur_key": "blur"})


@pytest.fixture
def out(tmp_path: Path, pairs: list[Pair]) -> Path:
    assert pack(pairs, tmp_path / "out")
    return tmp_path / "out"


def dataset(folder: Path, layout: str, **options: Any) -> DeblurPairDataset:
    block = {"dataroot": str(folder), "layout": layout, "phase": "train", "gt_size": 24, "seed": 3, "blur_key": "blur"}
    return DeblurPairDataset(block | options)


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return torch.equal(first["lq"], second["lq"]) and torch.equal(first["gt"], second["gt"])


class TestSameAsTheImages:
    def test_patches_are_bit_for_bit_the_same(self, root: Path, out: Path) -> None:
        for augment in ("nah", "flip", "none"):
            images, packs = (
                dataset(folder, layout, augment=augment) for folder, layout in ((root, "gopro"), (out, "packed"))
            )
            draws = [Draw(number % len(SIZES), number) for number in range(30)]
            assert all(same(images[draw], packs[draw]) for draw in draws), augment

    def test_whole_images_names_and_sizes_are_the_same(self, root: Path, out: Path) -> None:
        images, packs = (dataset(folder, layout, phase="val") for folder, layout in ((root, "gopro"), (out, "packed")))
        assert len(images) == len(packs) == 3
        for index, (name, size) in enumerate(SIZES.items()):
            assert packs[index]["name"] == name
            assert packs[index]["lq"].shape == (3, *size)
            assert same(images[index], packs[index])

    @pytest.mark.parametrize(("blurry", "sharp"), [(16, 16), (8, 16), (16, 8)])
    def test_sixteen_bits_stay_exact_also_beside_eight(self, tmp_path: Path, blurry: int, sharp: int) -> None:
        write(tmp_path / "data" / "a" / "blur" / "1.png", 0, (256, 256), blurry)
        write(tmp_path / "data" / "a" / "sharp" / "1.png", 1, (256, 256), sharp)
        pack(list_pairs({"dataroot": str(tmp_path / "data"), "blur_key": "blur"}), tmp_path / "out")
        (entry,) = json.loads((tmp_path / "out" / INDEX).read_text())["pairs"]
        assert entry["dtype"] == "uint16"
        images, packs = (
            dataset(tmp_path / folder, layout, phase="val") for folder, layout in (("data", "gopro"), ("out", "packed"))
        )
        assert same(images[0], packs[0])

    def test_fingerprint_and_kind_are_the_sources(self, root: Path, out: Path) -> None:
        images, packs = dataset(root, "gopro"), dataset(out, "packed")
        assert packs.fingerprint() == images.fingerprint()
        assert packs.blur_kind == images.blur_kind == "blur"
        assert json.loads((out / INDEX).read_text())["fingerprint"] == images.fingerprint()

    def test_sequences_are_held_out_alike(self, root: Path, out: Path) -> None:
        images, packs = (
            dataset(folder, layout, without=["a"]) for folder, layout in ((root, "gopro"), (out, "packed"))
        )
        assert [pair.name for pair in packs.pairs] == ["b/1"]
        assert packs.fingerprint() == images.fingerprint()

    def test_real_pairs_are_the_same(self, shared: Path, tmp_path: Path) -> None:
        root = shared / "data" / "GOPRO_Large" / "test"
        pack(list_pairs({"dataroot": str(root), "blur_key": "blur"}), tmp_path)
        images, packs = (
            dataset(folder, layout, gt_size=256) for folder, layout in ((root, "gopro"), (tmp_path, "packed"))
        )
        for number in range(4):
            assert same(images[Draw(number, number)], packs[Draw(number, number)])


class TestFile:
    def test_numpy_alone_reads_it(self, root: Path, out: Path) -> None:
        pixels = np.load(out / "b" / "1.npy")
        for kind, stored in zip(("blur", "sharp"), pixels, strict=True):
            np.testing.assert_array_equal(stored, np.asarray(Image.open(root / "b" / kind / "1.png")), strict=True)

    def test_a_window_reads_its_rows_and_no_more(self, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        counts = []
        fromfile = np.fromfile

        def counting(*args: Any, **options: Any) -> Any:
            counts.append(options["count"])
            return fromfile(*args, **options)

        monkeypatch.setattr(np, "fromfile", counting)
        blurry, sharp = packed_pairs(out)[0].images()
        assert counts == []
        assert sharp[5:12, 3:9].shape == (7, 6, 3)
        assert counts == [7 * 40 * 3]
        np.testing.assert_array_equal(blurry[5:12, 3:9], np.load(out / "a" / "1.npy")[0, 5:12, 3:9])


class TestResuming:
    def test_a_killed_pack_goes_on_and_has_no_index_before_its_end(
        self, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        save = np.save
        saved: list[str] = []

        def killed(file: Any, pixels: Any) -> None:
            if len(saved) == 2:
                raise KeyboardInterrupt
            saved.append(file.name)
            save(file, pixels)

        monkeypatch.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            pack(pairs, out, workers=1)
        assert not (out / INDEX).exists()
        assert len(list(out.rglob("*.npy"))) == 2
        assert list(out.rglob("*.part")) == []
        with pytest.raises(DatasetError, match=r"out: expected a finished pack with index\.json; start the same pack"):
            packed_pairs(out)
        first = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")}
        monkeypatch.setattr(np, "save", save)
        assert pack(pairs, out)
        assert {path: path.stat().st_mtime_ns for path in first} == first  # not written again
        assert not (out / BEGUN).exists()
        for pair in packed_pairs(out):
            assert isinstance(pair, PackedPair)
            pair.verify()

    def test_what_a_killed_writer_left_is_removed(self, pairs: list[Pair], tmp_path: Path) -> None:
        out = tmp_path / "out"
        pack(pairs, out)
        (out / INDEX).rename(out / BEGUN)  # it holds the fingerprint too
        (out / "a" / ".000001.npy.123.part").touch()
        assert pack(pairs, out)
        assert sorted(path.name for path in out.rglob("*") if path.is_file()) == ["1.npy", "1.npy", "2.npy", INDEX]

    def test_a_pair_that_was_damaged_meanwhile_is_named(self, pairs: list[Pair], out: Path) -> None:
        (out / INDEX).rename(out / BEGUN)
        spoilt = out / "a" / "2.npy"
        whole = spoilt.read_bytes()
        for length in (0, 100, 1000):  # nothing, a torn header, torn pixels
            spoilt.write_bytes(whole[:length])
            with pytest.raises(
                DatasetError, match=r"a/2\.npy: expected packed images, got a damaged file; delete it and"
            ):
                pack(pairs, out)

    def test_it_goes_on_by_the_same_data_alone(self, pairs: list[Pair], root: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        (out / BEGUN).write_text('{"fingerprint": "0123"}')
        with pytest.raises(DatasetError, match=r"out: holds other data \(fingerprint 0123, not [0-9a-f]{16}\); delete"):
            pack(pairs, out)

    def test_a_finished_pack_is_compared_with_its_checksums(self, pairs: list[Pair], out: Path) -> None:
        assert not pack(pairs, out)
        content = bytearray((out / "a" / "2.npy").read_bytes())
        content[-1] ^= 1
        (out / "a" / "2.npy").write_bytes(content)
        with pytest.raises(
            ImageError, match=r"a/2\.npy: its pixels have changed since they were packed; delete it and"
        ):
            pack(pairs, out)

    def test_a_finished_pack_of_other_data_is_left_alone(self, pairs: list[Pair], out: Path) -> None:
        with pytest.raises(DatasetError, match=r"out: holds other data"):
            pack(pairs[:1], out)
        assert len(packed_pairs(out)) == 3

    def test_a_folder_with_something_else_is_left_alone(self, pairs: list[Pair], tmp_path: Path) -> None:
        (tmp_path / "photo.jpg").touch()
        with pytest.raises(DatasetError, match=r"expected an empty folder or one of a pack; choose another place"):
            pack(pairs, tmp_path)

    def test_a_damaged_image_is_named_and_leaves_no_index(self, pairs: list[Pair], root: Path, tmp_path: Path) -> None:
        (root / "b" / "blur" / "1.png").write_bytes(b"x")
        with pytest.raises(ImageError, match=r"b/blur/1\.png: expected an image, got a damaged or unknown file"):
            pack(pairs, tmp_path / "out")
        assert not (tmp_path / "out" / INDEX).exists()

    def test_a_full_disk_is_a_sentence(
        self, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(packed.np, "save", full)
        with pytest.raises(FileError, match=r"\.npy: can't be written \(No space left on device\); free the disk and"):
            pack(pairs, tmp_path / "out")
        assert list((tmp_path / "out").rglob("*.npy")) == []


@pytest.mark.skipif(files.fcntl is None, reason="this system has no POSIX locks")
def test_two_processes_do_not_pack_to_one_folder(pairs: list[Pair], tmp_path: Path) -> None:
    held = "import sys, pathlib; from reblur_plugin import files\nwith files.locked(pathlib.Path(sys.argv[1])):\n"
    command = [sys.executable, "-c", held + " print(flush=True); input()", str(tmp_path / "pack")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(FileError, match=rf"pack: expected no other run to write there, got process {other.pid} of"):
            pack(pairs, tmp_path / "pack")
        other.communicate(b"\n")
    assert pack(pairs, tmp_path / "pack")


class TestRefusals:
    def test_photographs_have_nothing_to_pack(self, root: Path, tmp_path: Path) -> None:
        found = list_pairs({"layout": "photographs", "dataroot": str(root)})
        with pytest.raises(DatasetError, match=r"layout: expected pairs to pack, got photographs without sharp images"):
            pack(found, tmp_path / "out")

    def test_another_kind_of_blur_than_asked_for_is_refused(self, out: Path) -> None:
        with pytest.raises(DatasetError, match=r"out: expected the kind of blur 'blur_gamma', got 'blur'; pack that"):
            dataset(out, "packed", blur_key="blur_gamma")

    def test_what_is_no_pack_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            DatasetError, match=r"expected a finished pack with index\.json; python -m reblur_plugin\.d"
        ):
            packed_pairs(tmp_path)

    def test_a_damaged_index_is_refused(self, out: Path) -> None:
        part = '{"format": "reblur_plugin pairs 1", "blur_kind": "blur", "pairs": [{"name": "a"}]}'
        for text in ("", "[]", "{}", part):
            (out / INDEX).write_text(text)
            with pytest.raises(
                DatasetError, match=r"index\.json: expected the index of a pack, got a damaged file; delete"
            ):
                packed_pairs(out)

    def test_a_name_that_leads_out_of_the_folder_is_refused(self, out: Path) -> None:
        text, first = (out / INDEX).read_text(), json.dumps(packed_pairs(out)[0].name)
        assert first in text
        for name in ("../a", "b/../../a", "/a"):
            (out / INDEX).write_text(text.replace(first, json.dumps(name)))
            with pytest.raises(DatasetError, match="got a damaged file"):
                packed_pairs(out)

    def test_an_index_of_another_version_is_refused(self, out: Path) -> None:
        (out / INDEX).write_text('{"format": "reblur_plugin pairs 2"}')
        with pytest.raises(DatasetError, match=r"index\.json: expected the format '.* 1', got '.* 2'; pack again"):
            packed_pairs(out)

    def test_a_file_cut_short_grown_or_gone_is_named(self, out: Path) -> None:
        first, second, _ = packed_pairs(out)
        stored = first.images()[1]
        whole = first.blurry.read_bytes()
        for content in (whole + b"\0", whole[:-1]):
            first.blurry.write_bytes(content)
            with pytest.raises(
                ImageError, match=r"a/1\.npy: expected packed images, got a file of another size; pack again"
            ):
                first.images()
        with pytest.raises(ImageError, match=r"a/1\.npy: expected packed images, got a file cut short; pack the data"):
            stored[:]
        second.blurry.unlink()
        with pytest.raises(ImageError, match=r"a/2\.npy: expected packed images, but it can't be read \(No such file"):
            second.images()

    def test_a_patch_that_does_not_fit_is_refused(self, out: Path) -> None:
        with pytest.raises(ImageError, match=r"a/1\.npy: 40x30 is smaller than gt_size 31; lower gt_size"):
            dataset(out, "packed", gt_size=31)[Draw(0, 0)]

    def test_the_fingerprint_of_part_of_a_pack_is_that_of_part_of_its_source(
        self, out: Path, pairs: list[Pair]
    ) -> None:
        assert fingerprint(packed_pairs(out)[1:]) == fingerprint(pairs[1:])
