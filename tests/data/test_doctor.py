"""The doctor on the real samples, on whole data, and on a dozen kinds of damage, each with its own sentence."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from reblur_plugin.data import __main__ as command
from reblur_plugin.data import published
from reblur_plugin.data.doctor import Diagnosis, check, find_blocks
from reblur_plugin.data.images import decode_image
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.packed import pack
from reblur_plugin.data.pair_dataset import DeblurPairDataset
from reblur_plugin.data.pairs import DatasetError

KINDS = ("blur", "blur_gamma", "sharp")


def examine(root: Path, blur_key: str | None = None, look: bool = True) -> Diagnosis:
    (diagnosis,) = check(find_blocks(root, blur_key), look)
    return diagnosis


@pytest.fixture
def sequences() -> tuple[str, ...]:
    return ("A", "B", "C")


@pytest.fixture
def root(tmp_path: Path, sequences: tuple[str, ...], rng: np.random.Generator) -> Path:
    """Somebody's own data in GOPRO's layout: sequences of three pairs of 24x20 pixels, both kinds of blur."""
    for name in sequences:
        for frame in range(3):
            sharp = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            images = (cv2.blur(sharp, (3, 3)), cv2.blur(sharp, (5, 5)), sharp)
            for kind, image in zip(KINDS, images, strict=True):
                path = tmp_path / "data" / name / kind / f"{frame:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    return tmp_path / "data"


class TestRealSamples:
    def test_gopro_test_pairs(self, shared: Path) -> None:
        diagnosis = examine(shared / "data" / "GOPRO_Large")
        assert (diagnosis.title, diagnosis.pairs, diagnosis.sequences, diagnosis.published) == (
            "GOPRO_Large, test part",
            4,
            3,
            1111,
        )
        assert diagnosis.blur_kind == "blur"
        assert diagnosis.images == ("4 of 1280x720, 8 bits",)
        assert diagnosis.problems == ()
        assert diagnosis.notes == tuple(f"unknown_0{n}: no sequence of GOPRO_Large, test part" for n in (1, 2))
        assert diagnosis.verdict == "incomplete"
        assert not diagnosis.good

    def test_pairs_averaged_from_gopros_frames(self, shared: Path) -> None:
        diagnosis = examine(shared / "data" / "GOPRO_averaged")
        assert (diagnosis.title, diagnosis.pairs, diagnosis.published) == ("GOPRO_Large, training part", 11, 2103)
        assert (diagnosis.blur_kind, diagnosis.problems, diagnosis.notes) == ("blur_gamma", (), ())

    def test_reds(self, shared: Path) -> None:
        diagnosis = examine(shared / "data" / "REDS" / "train")
        assert (diagnosis.title, diagnosis.pairs, diagnosis.published) == ("REDS, training part", 16, 24000)
        assert (diagnosis.blur_kind, diagnosis.problems, diagnosis.verdict) == ("reds", (), "incomplete")

    def test_photographs(self, shared: Path) -> None:
        diagnosis = examine(shared / "data" / "kodak24_500")
        assert (diagnosis.pairs, diagnosis.published, diagnosis.images) == (24, None, ("24 of 500x500, 8 bits",))
        assert diagnosis.verdict == "fine"

    def test_folders_swapped(self, shared: Path, tmp_path: Path) -> None:
        sequence = shared / "data" / "GOPRO_Large" / "test" / "GOPR0384_11_00"
        for kind, other in (("blur", "sharp"), ("sharp", "blur")):
            (tmp_path / "data" / "S").mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / "S" / kind).symlink_to(sequence / other)
        assert examine(tmp_path / "data").problems == (
            f"{tmp_path}/data/S/blur: its images are sharper than their partners in 2 of 2 pairs; "
            "were the two folders swapped?",
        )


class TestWhole:
    def test_own_data_are_fine(self, root: Path) -> None:
        diagnosis = examine(root)
        assert (diagnosis.title, diagnosis.pairs, diagnosis.sequences, diagnosis.published) == ("", 9, 3, None)
        assert (diagnosis.blur_kind, diagnosis.images) == ("blur_gamma", ("9 of 24x20, 8 bits",))
        assert diagnosis.notes == ("blur is there in 3 sequences; --blur_key blur checks it",)
        assert (diagnosis.problems, diagnosis.verdict, diagnosis.good) == ((), "fine", True)

    def test_the_fingerprint_is_the_data_sets(self, root: Path) -> None:
        block = {"phase": "val", "dataroot": str(root), "blur_key": "blur"}
        assert examine(root, "blur").fingerprint == DeblurPairDataset(block).fingerprint()

    def test_the_options_it_names_make_the_data_set(self, root: Path) -> None:
        block = examine(root).block
        assert len(DeblurPairDataset({"phase": "val", **block})) == 9

    def test_a_pack_is_verified(self, root: Path, tmp_path: Path) -> None:
        pack(list_pairs({"dataroot": str(root)}), tmp_path / "out")
        diagnosis = examine(tmp_path / "out")
        assert (diagnosis.pairs, diagnosis.blur_kind, diagnosis.verdict) == (9, "blur_gamma", "fine")
        assert diagnosis.fingerprint == examine(root).fingerprint
        content = bytearray((tmp_path / "out" / "A" / "000001.npy").read_bytes())
        content[-1] ^= 1
        (tmp_path / "out" / "A" / "000001.npy").write_bytes(content)
        assert examine(tmp_path / "out").problems == (
            f"{tmp_path}/out/A/000001.npy: its pixels have changed since they were packed; delete it and pack again",
        )

    def test_several_parts_each_have_a_diagnosis(self, root: Path) -> None:
        shutil.copytree(root, root.parent / "both" / "test")
        root.rename(root.parent / "both" / "train")
        blocks = find_blocks(root.parent / "both")
        assert [Path(block["dataroot"]).name for block in blocks] == ["test", "train"]

    def test_hide_and_realblur_are_known(self, root: Path, tmp_path: Path) -> None:
        hide, realblur = tmp_path / "HIDE_dataset", tmp_path / "RealBlur"
        for source, place in (
            ("blur/000000.png", hide / "test" / "test-close-ups" / "x.png"),
            ("sharp/000000.png", hide / "GT" / "x.png"),
            ("blur/000001.png", realblur / "J" / "scene001" / "blur" / "blur_1.png"),
            ("sharp/000001.png", realblur / "J" / "scene001" / "gt" / "gt_1.png"),
        ):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / "A" / source, place)
        (realblur / "RealBlur_J_test_list.txt").write_text("J/scene001/gt/gt_1.png J/scene001/blur/blur_1.png \n")
        for diagnosis, title, count in (
            (examine(hide / "test"), "HIDE, test part", 2025),
            (examine(realblur), "RealBlur-J, test part", 980),
        ):
            assert (diagnosis.title, diagnosis.pairs, diagnosis.published) == (title, 1, count)
            assert (diagnosis.problems, diagnosis.verdict) == ((), "incomplete")

    def test_two_folders_are_checked_as_pairs(self, root: Path) -> None:
        block = {"layout": "folders", "dataroot_lq": f"{root}/A/blur", "dataroot_gt": f"{root}/A/sharp"}
        (diagnosis,) = check([block])
        assert (diagnosis.pairs, diagnosis.problems, diagnosis.verdict) == (3, (), "fine")

    def test_a_published_data_set_is_whole_by_its_count(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(published, "GOPRO", (published.Split("small", 9, frozenset("ABC")),))
        assert (examine(root).verdict, examine(root).good) == ("whole", True)


class TestPublished:
    def test_counts_are_the_published_ones(self) -> None:
        assert [split.pairs for split in published.GOPRO] == [2103, 1111]
        assert [len(split.sequences) for split in published.GOPRO] == [22, 11]
        assert not published.GOPRO[0].sequences & published.GOPRO[1].sequences
        assert [split.pairs for split in published.REDS.values()] == [24000, 3000]
        assert [len(split.sequences) * 100 for split in published.REDS.values()] == [24000, 3000]
        assert sum(split.pairs for split in published.HIDE.values()) == 8422
        assert sum(split.pairs for name, split in published.REALBLUR.items() if "_J_" in name) == 4738


def missing_partner(root: Path) -> str:
    (root / "B" / "sharp" / "000001.png").unlink()
    return "{}/B/blur_gamma/000001.png: no partner of that name in {}/B/sharp; unzip again or remove it"


def truncated(root: Path) -> str:
    image = root / "B" / "sharp" / "000001.png"
    image.write_bytes(image.read_bytes()[:-30])
    return "{}/B/sharp/000001.png: expected an image, got a damaged or unknown file; unzip or download it again"


def wrong_size(root: Path) -> str:
    Image.new("RGB", (20, 24)).save(root / "B" / "sharp" / "000001.png")
    return (
        "{}/B/blur_gamma/000001.png: expected the size of its sharp partner 20x24, got 24x20; "
        "unzip the data set again or remove the pair"
    )


def swapped_folders(root: Path) -> str:
    sequence = root / "B"
    (sequence / "sharp").rename(sequence / "x")
    (sequence / "blur_gamma").rename(sequence / "sharp")
    (sequence / "x").rename(sequence / "blur_gamma")
    return "{}/B/blur_gamma: its images are sharper than their partners in 3 of 3 pairs; were the two folders swapped?"


def duplicate(root: Path) -> str:
    for kind in ("blur_gamma", "sharp"):
        shutil.copy(root / "A" / kind / "000000.png", root / "C" / kind / "000009.png")
    return "{}/C/blur_gamma/000009.png: the same pair as A/000000; remove one of them"


def two_of_one_name(root: Path) -> str:
    shutil.copy(root / "B" / "sharp" / "000001.png", root / "B" / "sharp" / "000001.bmp")
    return "{}/B/sharp/000001.png: a second image named '000001' beside 000001.bmp; rename one of them"


def zero_bytes(root: Path) -> str:
    (root / "B" / "blur_gamma" / "000001.png").write_bytes(b"")
    return "{}/B/blur_gamma/000001.png: expected an image, got an empty file; unzip or download it again"


def sixteen_bits(root: Path) -> str:
    image = root / "B" / "blur_gamma" / "000001.png"
    pixels = decode_image(image).astype(np.uint16) * 257
    assert cv2.imwrite(str(image), pixels)
    return "{}/B/blur_gamma/000001.png: 16 bits a channel where most have 8; replace it"


def text_as_png(root: Path) -> str:
    (root / "B" / "sharp" / "000001.png").write_text("Google Drive - Quota exceeded")
    return "{}/B/sharp/000001.png: expected an image, got a damaged or unknown file; unzip or download it again"


def blurry_copied_to_sharp(root: Path) -> str:
    shutil.copy(root / "B" / "blur_gamma" / "000001.png", root / "B" / "sharp" / "000001.png")
    return "{}/B/blur_gamma/000001.png: the same picture as its sharp partner; unzip both again"


def kind_missing_in_one(root: Path) -> str:
    shutil.rmtree(root / "B" / "blur_gamma")
    return "{}/B: expected a folder 'blur_gamma' as in the other sequences, found blur; unzip again"


def kinds_mixed(root: Path) -> str:
    shutil.rmtree(root / "B" / "blur_gamma")
    shutil.copytree(root / "B" / "blur", root / "B" / "blur_gamma")
    return "{}/B/blur: the same files as in blur_gamma; one of the two was copied, unzip both again"


def no_sharp_folder(root: Path) -> str:
    shutil.rmtree(root / "B" / "sharp")
    return "{}/B/sharp: no such folder; expected images"


DAMAGE = [
    missing_partner,
    truncated,
    wrong_size,
    swapped_folders,
    duplicate,
    two_of_one_name,
    zero_bytes,
    sixteen_bits,
    text_as_png,
    blurry_copied_to_sharp,
    kind_missing_in_one,
    kinds_mixed,
    no_sharp_folder,
]


class TestDamage:
    @pytest.mark.parametrize("spoil", DAMAGE, ids=lambda spoil: spoil.__name__)
    def test_each_has_its_own_sentence_and_no_other(self, root: Path, spoil: Callable[[Path], str]) -> None:
        sentence = spoil(root).replace("{}", str(root))
        diagnosis = examine(root)
        assert diagnosis.problems == (sentence,)
        assert (diagnosis.verdict, diagnosis.good) == ("damaged", False)

    def test_all_that_is_damaged_is_named_at_once(self, root: Path) -> None:
        expected = {spoil(root).replace("{}", str(root)) for spoil in (zero_bytes, duplicate)}
        (root / "A" / "sharp" / "000002.png").unlink()
        assert set(examine(root).problems) == expected | {
            f"{root}/A/blur_gamma/000002.png: no partner of that name in {root}/A/sharp; unzip again or remove it"
        }

    @pytest.mark.parametrize(("swapped", "told"), [(1, False), (2, True)])
    def test_most_pairs_decide_whether_folders_were_swapped(self, root: Path, swapped: int, told: bool) -> None:
        for frame in range(swapped):
            first, second = (root / "B" / kind / f"{frame:06d}.png" for kind in ("blur_gamma", "sharp"))
            pixels = first.read_bytes()
            first.write_bytes(second.read_bytes())
            second.write_bytes(pixels)
        assert any("in 2 of 3 pairs; were the two folders swapped?" in line for line in examine(root).problems) is told

    def test_among_sixteen_bits_eight_are_odd(self, root: Path) -> None:
        for image in root.rglob("*.png"):
            assert cv2.imwrite(str(image), decode_image(image).astype(np.uint16) * 257)
        assert (examine(root).problems, examine(root).images) == ((), ("9 of 24x20, 16 bits",))
        for kind in ("blur_gamma", "sharp"):
            image = root / "B" / kind / "000001.png"
            Image.fromarray((decode_image(image) // 257).astype(np.uint8)).save(image)
        assert examine(root).problems == (
            f"{root}/B/blur_gamma/000001.png: 8 bits a channel where most have 16; replace it",
        )

    def test_files_of_equal_sizes_are_no_copies(self, root: Path) -> None:
        for image in list(root.rglob("blur*/*.png")):
            Image.open(image).save(image.with_suffix(".bmp"))
            image.unlink()
        assert len({image.stat().st_size for image in root.rglob("*.bmp")}) == 1
        assert examine(root).problems == ()

    def test_both_images_of_a_pair_are_named(self, root: Path) -> None:
        for kind in ("blur_gamma", "sharp"):
            (root / "A" / kind / "000000.png").write_bytes(b"")
        assert len(examine(root).problems) == 2

    @pytest.mark.parametrize("kind", ["sharp", "blur_gamma"])
    def test_an_unreadable_folder(self, root: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        scandir = os.scandir

        def refuse(folder: Any) -> Any:
            if str(folder).endswith(f"B/{kind}"):
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        monkeypatch.setattr("reblur_plugin.data.doctor._same_files", lambda *_: False)
        assert examine(root).problems == (f"{root}/B/{kind}: this folder can't be read (Permission denied)",)

    def test_names_alone_are_looked_at_where_that_is_asked_for(self, root: Path) -> None:
        zero_bytes(root)
        diagnosis = examine(root, look=False)
        assert (diagnosis.problems, diagnosis.images) == ((), ())

    def test_there_is_no_fingerprint_where_a_training_would_refuse(self, root: Path) -> None:
        missing_partner(root)
        assert examine(root).fingerprint == ""

    def test_reds_with_a_renamed_clip(self, root: Path, tmp_path: Path) -> None:
        for name in "AB":
            for kind, part in (("blur", "train_blur"), ("sharp", "train_sharp")):
                shutil.copytree(root / name / kind, tmp_path / "train" / part / f"00{ord(name) - 65}")
        (tmp_path / "train" / "train_sharp" / "001").rename(tmp_path / "train" / "train_sharp" / "1")
        folder = tmp_path / "train"
        assert examine(folder).problems == (
            f"{folder}/train_blur/001: no sequence of that name in {folder}/train_sharp; unzip again or rename it",
            f"{folder}/train_sharp/1: no sequence of that name in {folder}/train_blur; unzip again or rename it",
        )
        assert examine(folder).pairs == 3


class TestPartsOfGopro:
    @pytest.fixture
    def sequences(self) -> tuple[str, ...]:
        return ("GOPR0384_11_00", "GOPR0384_11_05")

    def test_a_half_unzipped_data_set_is_incomplete(self, root: Path) -> None:
        diagnosis = examine(root)
        assert (diagnosis.title, diagnosis.pairs, diagnosis.published) == ("GOPRO_Large, test part", 6, 1111)
        assert (diagnosis.problems, diagnosis.verdict, diagnosis.good) == ((), "incomplete", False)

    def test_a_renamed_sequence_is_named_with_its_name(self, root: Path) -> None:
        (root / "GOPR0384_11_05").rename(root / "GOPR0384_11_05 (1)")
        assert examine(root).problems == (
            "GOPR0384_11_05 (1): no sequence of GOPRO_Large, test part; did you mean GOPR0384_11_05?",
        )


class TestCommand:
    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "reblur_plugin.data", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def test_its_exit_code_is_the_verdict(self, root: Path) -> None:
        done = self.run("check", root)
        assert (done.returncode, done.stderr) == (0, "")
        assert "  verdict     fine\n" in done.stdout
        sentence = zero_bytes(root).replace("{}", str(root))
        done = self.run("check", root)
        assert done.returncode == 1
        assert f"  problem     {sentence}\n" in done.stdout

    def test_pack_writes_and_then_verifies(self, root: Path, tmp_path: Path) -> None:
        done = self.run("pack", root, tmp_path / "out", "--blur_key", "blur")
        assert (done.returncode, done.stdout) == (
            0,
            f"{tmp_path}/out: packed. In option files: layout: packed, dataroot: {tmp_path}/out\n",
        )
        assert self.run("pack", root, tmp_path / "out", "--blur_key", "blur").stdout.startswith(
            f"{tmp_path}/out: verified; all was there."
        )
        assert self.run("check", tmp_path / "out").returncode == 0

    def test_pack_takes_one_data_set(self, root: Path, tmp_path: Path) -> None:
        shutil.copytree(root, tmp_path / "both" / "a")
        shutil.copytree(root, tmp_path / "both" / "b")
        done = self.run("pack", tmp_path / "both", tmp_path / "out")
        both = tmp_path / "both"
        assert done.stderr == f"error: {both}: expected one data set, got 2; give {both}/a or {both}/b\n"
        assert done.returncode == 1

    @pytest.mark.parametrize(
        ("place", "message"),
        [
            ("none", "no such folder; expected a data set"),
            ("data/A", "expected a whole data set, got a part of {}/data; check that"),
        ],
    )
    def test_a_folder_that_is_no_data_set_is_refused(
        self, root: Path, tmp_path: Path, place: str, message: str
    ) -> None:
        done = self.run("check", tmp_path / place)
        assert (done.returncode, done.stderr) == (1, f"error: {tmp_path}/{place}: {message.format(tmp_path)}\n")

    def test_checking_needs_no_torch(self, root: Path) -> None:
        code = (
            "import sys; from reblur_plugin.data.__main__ import main; "
            "main(); assert not {'torch', 'basicsr'} & sys.modules.keys()"
        )
        done = subprocess.run([sys.executable, "-c", code, "check", str(root)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_arguments_are_read_before_anything_heavy(self) -> None:
        heavy = "import sys, reblur_plugin.data.__main__; assert not {'numpy', 'cv2', 'torch'} & sys.modules.keys()"
        assert subprocess.run([sys.executable, "-c", heavy], check=False).returncode == 0
        assert command.parse(["check", "x", "--quick"]).quick

    def test_a_long_list_of_problems_is_cut(self, root: Path) -> None:
        for image in root.rglob("*.png"):
            image.write_bytes(b"")
        diagnosis = examine(root)
        assert len(diagnosis.problems) == 18 + 3  # 9 pairs; and blur is a copy of blur_gamma, both being empty
        assert diagnosis.text().count("  problem ") == 21
        assert "and 1 more" in diagnosis.text()

    def test_an_empty_folder_is_damaged(self, tmp_path: Path) -> None:
        diagnosis = examine(tmp_path)
        assert diagnosis.problems[0].startswith(f"{tmp_path}: expected images (.png, ")


def test_a_layout_error_of_a_list_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "RealBlur_R_test_list.txt").write_text("a.png b.png\n")
    assert examine(tmp_path).problems == tuple(
        f"{tmp_path}/{name}.png: no such file, but RealBlur_R_test_list.txt names it in line 1; unzip it again"
        for name in "ba"
    )
    with pytest.raises(DatasetError):
        list_pairs(examine(tmp_path).block)
