"""Where the pairs lie: the published data sets as unzipped, and every way in which they can be incomplete."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin.data.layouts import gopro_pairs, list_pairs
from reblur_plugin.data.pairs import DatasetError, Pair


def touch(root: Path, *names: str) -> Path:
    """Create empty files; layouts look at names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def refusal(options: dict[str, Any]) -> str:
    with pytest.raises(DatasetError) as caught:
        list_pairs(options)
    return str(caught.value)


class TestPublishedData:
    def test_gopro_test_has_its_four_pairs_in_order(self, shared: Path) -> None:
        root = shared / "data" / "GOPRO_Large" / "test"
        pairs = list_pairs({"dataroot": str(root), "blur_key": "blur"})
        assert [pair.name for pair in pairs] == [
            "GOPR0384_11_00/000001",
            "GOPR0384_11_00/000014",
            "unknown_01/000001",
            "unknown_02/000001",
        ]
        sequence = root / "GOPR0384_11_00"
        blurry, sharp = (sequence / kind / "000014.png" for kind in ("blur", "sharp"))
        assert pairs[1] == Pair("GOPR0384_11_00/000014", blurry, sharp, "blur")

    def test_blur_gamma_is_the_kind_that_gopro_gets_by_itself(self, shared: Path) -> None:
        pairs = list_pairs({"layout": "gopro", "dataroot": str(shared / "data" / "GOPRO_averaged" / "train")})
        assert len(pairs) == 11
        assert {pair.blurry.parent.name for pair in pairs} == {"blur_gamma"}
        assert gopro_pairs(shared / "data" / "GOPRO_averaged" / "train") == pairs

    def test_the_kinds_of_blur_that_are_there_are_named(self, shared: Path) -> None:
        message = refusal({"dataroot": str(shared / "data" / "GOPRO_Large" / "test")})
        assert message.endswith(
            "GOPR0384_11_00: expected a folder 'blur_gamma', found blur; set blur_key to one of them"
        )

    def test_reds_has_every_fifth_frame_of_its_clip(self, shared: Path) -> None:
        root = shared / "data" / "REDS" / "train"
        pairs = list_pairs({"layout": "reds", "dataroot": str(root)})
        assert [pair.name for pair in pairs] == [f"020/{frame:08d}" for frame in range(0, 76, 5)]
        assert pairs[2].blurry == root / "train_blur" / "020" / "00000010.png"
        assert pairs[2].sharp == root / "train_sharp" / "020" / "00000010.png"

    def test_photographs_have_no_partner(self, shared: Path) -> None:
        pairs = list_pairs({"layout": "photographs", "dataroot": str(shared / "data" / "kodak24_500")})
        assert [pair.name for pair in pairs] == [f"kodim{number:02d}" for number in range(1, 25)]
        assert {pair.sharp for pair in pairs} == {None}


class TestGopro:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return touch(tmp_path, *(f"{name}/{kind}/1.png" for name in "ab" for kind in ("blur_gamma", "blur", "sharp")))

    def test_frames_keep_their_sequence(self, root: Path) -> None:
        assert [pair.name for pair in list_pairs({"dataroot": str(root)})] == ["a/1", "b/1"]

    def test_what_is_no_image_or_hidden_is_passed_over(self, root: Path) -> None:
        touch(root, "a/blur_gamma/Thumbs.db", "a/sharp/.DS_Store", "a/sharp/._1.png", ".cache/x.png", "list.txt")
        assert [pair.name for pair in list_pairs({"dataroot": str(root)})] == ["a/1", "b/1"]

    def test_a_sharp_image_may_have_another_format(self, root: Path) -> None:
        (root / "a" / "sharp" / "1.png").rename(root / "a" / "sharp" / "1.JPG")
        assert list_pairs({"dataroot": str(root)})[0].sharp == root / "a" / "sharp" / "1.JPG"

    def test_a_blurry_image_without_partner_is_named(self, root: Path) -> None:
        touch(root, "b/blur_gamma/2.png", "b/blur_gamma/3.png")
        assert refusal({"dataroot": str(root)}) == (
            f"{root}/b/blur_gamma/2.png: no partner of that name in {root}/b/sharp (and 1 more); "
            "unzip again or remove it"
        )

    def test_a_sharp_image_without_partner_is_named(self, root: Path) -> None:
        touch(root, "b/sharp/2.png")
        assert refusal({"dataroot": str(root)}) == (
            f"{root}/b/sharp/2.png: no partner of that name in {root}/b/blur_gamma; unzip again or remove it"
        )

    def test_a_sequence_without_the_kind_of_blur_is_named_with_those_it_has(self, root: Path) -> None:
        touch(root, "c/blur/1.png", "c/blur_raw/1.png", "c/sharp/1.png")
        assert refusal({"dataroot": str(root)}) == (
            f"{root}/c: expected a folder 'blur_gamma', found blur, blur_raw; set blur_key to one of them"
        )

    def test_a_sequence_without_any_blur_is_named(self, root: Path) -> None:
        touch(root, "c/sharp/1.png")
        assert refusal({"dataroot": str(root)}) == (
            f"{root}/c: expected a folder 'blur_gamma', found no other; unzip it again"
        )

    def test_a_sequence_without_sharp_images_is_named(self, root: Path) -> None:
        touch(root, "c/blur_gamma/1.png")
        assert refusal({"dataroot": str(root)}) == f"{root}/c/sharp: no such folder; expected images"

    def test_a_missing_folder_is_named_with_what_was_expected(self, tmp_path: Path) -> None:
        assert refusal({"dataroot": f"{tmp_path}/none"}) == (
            f"{tmp_path}/none: no such folder; expected the sequences of GOPRO_Large "
            "(SEQUENCE/blur_gamma, SEQUENCE/sharp)"
        )

    def test_an_empty_folder_is_named_with_what_was_expected(self, tmp_path: Path) -> None:
        root = tmp_path / "a" / "b" / "c"  # two levels up there is nothing of other tests
        root.mkdir(parents=True)
        message = refusal({"dataroot": str(root)})
        assert message.startswith(f"{root}: no folders in it; expected the sequences of GOPRO_Large")


class TestReds:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return touch(tmp_path, *(f"val_{kind}/{name}/0.png" for kind in ("blur", "sharp") for name in ("000", "001")))

    def test_the_validation_part_has_the_same_layout(self, root: Path) -> None:
        assert [pair.name for pair in list_pairs({"layout": "reds", "dataroot": str(root)})] == ["000/0", "001/0"]

    def test_other_kinds_of_blur_beside_it_do_no_harm(self, root: Path) -> None:
        touch(root, "val_blur_jpeg/000/0.jpg", "val_blur_bicubic/000/0.png")
        assert len(list_pairs({"layout": "reds", "dataroot": str(root)})) == 2

    def test_a_folder_without_blur_is_named(self, tmp_path: Path) -> None:
        touch(tmp_path, "train_sharp/000/0.png")
        assert refusal({"layout": "reds", "dataroot": str(tmp_path)}) == (
            f"{tmp_path}: expected one folder train_blur or val_blur, got 0"
        )

    def test_both_parts_in_one_folder_are_refused(self, root: Path) -> None:
        touch(root, "train_blur/000/0.png")
        assert refusal({"layout": "reds", "dataroot": str(root)}) == (
            f"{root}: expected one folder train_blur or val_blur, got 2"
        )

    def test_a_sequence_without_sharp_images_is_named(self, root: Path) -> None:
        touch(root, "val_blur/002/0.png")
        assert refusal({"layout": "reds", "dataroot": str(root)}) == (
            f"{root}/val_sharp/002: no such folder; expected images"
        )

    def test_a_missing_and_an_empty_folder_are_named(self, tmp_path: Path) -> None:
        expected = "expected REDS' train_blur or val_blur"
        assert refusal({"layout": "reds", "dataroot": f"{tmp_path}/none"}) == (
            f"{tmp_path}/none: no such folder; {expected}"
        )
        assert refusal({"layout": "reds", "dataroot": str(tmp_path)}) == f"{tmp_path}: no folders in it; {expected}"


class TestFolders:
    def test_equal_names_are_pairs_sub_folders_included(self, tmp_path: Path) -> None:
        touch(tmp_path, "in/b.png", "in/x/a.png", "out/b.jpg", "out/x/a.png")
        pairs = list_pairs({"layout": "folders", "dataroot_lq": f"{tmp_path}/in", "dataroot_gt": f"{tmp_path}/out"})
        assert pairs == [
            Pair("b", tmp_path / "in" / "b.png", tmp_path / "out" / "b.jpg", "unknown"),
            Pair("x/a", tmp_path / "in" / "x" / "a.png", tmp_path / "out" / "x" / "a.png", "unknown"),
        ]

    def test_two_images_of_one_name_are_refused(self, tmp_path: Path) -> None:
        touch(tmp_path, "in/a.jpg", "in/a.png", "out/a.png")
        options = {"layout": "folders", "dataroot_lq": f"{tmp_path}/in", "dataroot_gt": f"{tmp_path}/out"}
        assert refusal(options) == f"{tmp_path}/in/a.png: a second image named 'a' beside a.jpg; rename one of them"

    def test_a_missing_key_is_named_with_its_layout(self, tmp_path: Path) -> None:
        for key in ("dataroot_lq", "dataroot_gt"):
            options = {"layout": "folders", "dataroot_lq": str(tmp_path), "dataroot_gt": str(tmp_path)}
            del options[key]
            assert refusal(options) == f"{key}: missing; the layout 'folders' needs this folder"

    def test_a_folder_without_images_is_named(self, tmp_path: Path) -> None:
        touch(tmp_path, "in/a.txt", "out/a.png")
        options = {"layout": "folders", "dataroot_lq": f"{tmp_path}/in", "dataroot_gt": f"{tmp_path}/out"}
        assert refusal(options).startswith(f"{tmp_path}/in: expected images (.png, .jpg, ")
        assert refusal(options).endswith("), found none")


class TestPhotographs:
    def test_names_are_unique_and_sorted_across_sub_folders(self, tmp_path: Path) -> None:
        touch(tmp_path, "b/1.png", "a/1.png", "1.webp", "note.txt")
        pairs = list_pairs({"layout": "photographs", "dataroot": str(tmp_path)})
        assert [pair.name for pair in pairs] == ["1", "a/1", "b/1"]

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        assert refusal({"layout": "photographs", "dataroot": f"{tmp_path}/none"}) == (
            f"{tmp_path}/none: no such folder; expected images"
        )

    def test_the_home_folder_is_understood(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(touch(tmp_path, "photos/1.png")))
        assert len(list_pairs({"layout": "photographs", "dataroot": "~/photos"})) == 1


class TestLayoutKeys:
    def test_an_unknown_layout_is_refused_with_the_known_ones(self) -> None:
        message = "layout: expected one of gopro, reds, hide, realblur, folders, photographs, packed, got 'GoPro'"
        with pytest.raises(DatasetError, match=re.escape(message)):
            list_pairs({"layout": "GoPro", "dataroot": "x"})

    def test_a_missing_dataroot_is_named_with_its_layout(self) -> None:
        for layout in ("gopro", "reds", "hide", "photographs", "packed"):
            assert refusal({"layout": layout}) == f"dataroot: missing; the layout {layout!r} needs this folder"


class TestWrongLevel:
    """dataroot a level or two off: the message names the folder to give."""

    GOPRO = "expected the sequences of GOPRO_Large (SEQUENCE/blur_gamma, SEQUENCE/sharp), found none; set dataroot to "
    REDS = "expected REDS' train_blur or val_blur, found none; set dataroot to "

    @pytest.fixture
    def gopro(self, tmp_path: Path) -> Path:
        names = (f"{part}/SEQ/{kind}/1.png" for part in ("test", "train") for kind in ("blur_gamma", "sharp"))
        return touch(tmp_path / "mine" / "datasets" / "GOPRO_Large", *names)

    def test_gopro_one_or_two_levels_too_high(self, gopro: Path) -> None:
        for above in (".", ".."):
            root = (gopro / above).resolve()
            assert refusal({"dataroot": str(root)}) == f"{root}: {self.GOPRO}{gopro}/test or {gopro}/train"

    def test_gopro_inside_a_sequence(self, gopro: Path) -> None:
        for inside in ("SEQ", "SEQ/sharp", "SEQ/blur_gamma"):
            root = gopro / "train" / inside
            assert refusal({"dataroot": str(root)}) == f"{root}: {self.GOPRO}{gopro}/train"

    def test_reds_off_by_a_level_or_two(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/train_blur/000/0.png", "train/train_sharp/000/0.png")
        for inside in (".", "train/train_blur", "train/train_blur/000"):
            root = (tmp_path / inside).resolve()
            assert refusal({"layout": "reds", "dataroot": str(root)}) == f"{root}: {self.REDS}{tmp_path}/train"

    def test_hide_off_by_a_level(self, tmp_path: Path) -> None:
        touch(tmp_path, "test/test-close-ups/1.png", "GT/1.png")
        for inside in (".", "GT", "test/test-close-ups"):
            root = (tmp_path / inside).resolve()
            message = refusal({"layout": "hide", "dataroot": str(root)})
            assert message.startswith(f"{root}: expected HIDE_dataset's train or test, with GT beside it")
            assert message.endswith(f"; set dataroot to {tmp_path}/test")

    def test_where_nothing_fits_nothing_is_proposed(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "a" / "b" / "c", "d/1.png")
        assert refusal({"dataroot": str(root)}) == f"{root}/d: expected a folder 'blur_gamma', found no other; " + (
            "unzip it again"
        )


class TestHidden:
    def test_images_in_hidden_folders_are_passed_over(self, tmp_path: Path) -> None:
        touch(tmp_path, "a/1.png", "a/.thumbnails/1.png", ".cache/2.png")
        assert [pair.name for pair in list_pairs({"layout": "photographs", "dataroot": str(tmp_path)})] == ["a/1"]

    def test_a_folder_that_cannot_be_read_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        touch(tmp_path, "a/1.png", "b/1.png")
        scandir = os.scandir

        def refuse(folder: str) -> Any:
            if str(folder).endswith("b"):
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        assert refusal({"layout": "photographs", "dataroot": str(tmp_path)}) == (
            f"{tmp_path}/b: this folder can't be read (Permission denied)"
        )


class TestHide:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        names = ("train/a.png", "test/test-close-ups/b.png", "test/test-long-shot/c.png")
        return touch(tmp_path, *names, "GT/a.png", "GT/b.png", "GT/c.png", "train.txt")

    def test_both_parts_find_their_partners_in_gt(self, root: Path) -> None:
        train = list_pairs({"layout": "hide", "dataroot": str(root / "train")})
        assert train == [Pair("a", root / "train" / "a.png", root / "GT" / "a.png", "hide")]
        test = list_pairs({"layout": "hide", "dataroot": str(root / "test")})
        assert [(pair.name, pair.sharp) for pair in test] == [
            ("test-close-ups/b", root / "GT" / "b.png"),
            ("test-long-shot/c", root / "GT" / "c.png"),
        ]

    def test_an_image_without_partner_is_named(self, root: Path) -> None:
        (root / "GT" / "c.png").unlink()
        assert refusal({"layout": "hide", "dataroot": str(root / "test")}) == (
            f"{root}/test/test-long-shot/c.png: no partner of that name in {root}/GT; unzip again or remove it"
        )

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        assert refusal({"layout": "hide", "dataroot": f"{tmp_path}/none"}) == (
            f"{tmp_path}/none: no such folder; expected HIDE_dataset's train or test, with GT beside it"
        )


class TestRealBlur:
    FOLDER = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"

    @pytest.fixture
    def line(self) -> Callable[[str, int], str]:
        """A line as in the published lists, which end in a space."""
        return lambda scene, number: (
            f"{self.FOLDER}/{scene}/gt/gt_{number}.png {self.FOLDER}/{scene}/blur/blur_{number}.png \n"
        )

    @pytest.fixture
    def root(self, tmp_path: Path, line: Callable[[str, int], str]) -> Path:
        touch(tmp_path, *line("scene183", 7).split(), *line("scene010", 2).split())
        (tmp_path / "RealBlur_J_train_list.txt").write_text(line("scene183", 7) + line("scene010", 2) + "\n")
        return tmp_path

    @staticmethod
    def options(root: Path, lines: str = "RealBlur_J_train_list.txt") -> dict[str, str]:
        return {"layout": "realblur", "dataroot": str(root), "meta_info_file": lines}

    def test_the_list_names_the_sharp_image_first(self, root: Path) -> None:
        scene = root / self.FOLDER / "scene010"
        first, second = list_pairs(self.options(root))
        assert first == Pair(
            "scene010/blur/blur_2", scene / "blur" / "blur_2.png", scene / "gt" / "gt_2.png", "realblur"
        )
        assert second.name == "scene183/blur/blur_7"
        assert second.sequence == "scene183"

    def test_a_missing_list_is_named_with_those_that_are_there(self, root: Path) -> None:
        assert refusal(self.options(root, "train.txt")) == (
            f"{root}/train.txt: expected a list of pairs (No such file or directory); "
            "lists here: RealBlur_J_train_list.txt"
        )
        options = self.options(root)
        del options["meta_info_file"]
        assert refusal(options) == "meta_info_file: missing; the layout 'realblur' needs this file"

    def test_a_list_that_is_none_is_refused(self, root: Path) -> None:
        messages = {
            "a.png\n": ", line 1: expected a sharp and a blurry image, got 'a.png'",
            "gt/a.png ../a.png\n": ", line 1: expected a sharp and a blurry image, got 'gt/a.png ../a.png'",
            "\n": ": expected a list of pairs, found none; download it again",
        }
        for text, message in messages.items():
            (root / "other_list.txt").write_text(text)
            assert refusal(self.options(root, "other_list.txt")) == f"{root}/other_list.txt{message}"

    def test_a_line_given_twice_is_refused(self, root: Path, line: Callable[[str, int], str]) -> None:
        (root / "twice_list.txt").write_text(line("scene010", 2) * 2)
        assert refusal(self.options(root, "twice_list.txt")) == (
            f"{root}/twice_list.txt, line 2: {self.FOLDER}/scene010/blur/blur_2.png is named twice; "
            "remove one of the lines"
        )

    def test_a_missing_image_is_named_with_its_line(self, root: Path) -> None:
        for kind in ("gt", "blur"):
            image = root / self.FOLDER / "scene010" / kind / f"{kind}_2.png"
            image.unlink()
            assert refusal(self.options(root)) == (
                f"{image}: no such file, but RealBlur_J_train_list.txt names it in line 2; unzip it again"
            )
            image.touch()


class TestHoldOut:
    @pytest.fixture
    def gopro(self, tmp_path: Path) -> dict[str, Any]:
        names = (
            f"GOPR{name}/{kind}/{frame}.png" for name in "abc" for kind in ("blur_gamma", "sharp") for frame in "12"
        )
        return {"dataroot": str(touch(tmp_path, *names))}

    def names(self, options: dict[str, Any]) -> list[str]:
        return sorted({pair.sequence for pair in list_pairs(options)})

    def test_training_and_validation_part_a_data_set(self, gopro: dict[str, Any]) -> None:
        held = ["GOPRb"]
        assert self.names({**gopro, "only": held}) == held
        assert self.names({**gopro, "without": held}) == ["GOPRa", "GOPRc"]
        both = list_pairs({**gopro, "only": held}) + list_pairs({**gopro, "without": held})
        assert sorted(pair.name for pair in both) == [pair.name for pair in list_pairs(gopro)]

    def test_both_keys_together_leave_what_one_names_and_the_other_does_not(self, gopro: dict[str, Any]) -> None:
        assert self.names({**gopro, "only": ["GOPRa", "GOPRb"], "without": ["GOPRb"]}) == ["GOPRa"]

    def test_reds_has_clips(self, tmp_path: Path) -> None:
        touch(tmp_path, *(f"val_{kind}/{clip}/0.png" for kind in ("blur", "sharp") for clip in ("000", "001")))
        assert self.names({"layout": "reds", "dataroot": str(tmp_path), "without": ["000"]}) == ["001"]

    def test_an_unknown_sequence_is_refused_with_the_nearest(self, gopro: dict[str, Any]) -> None:
        for key in ("only", "without"):
            assert refusal({**gopro, key: ["GOPRd"]}).startswith(f"{key}: no sequence 'GOPRd'; did you mean GOPR")

    def test_where_nothing_is_left_it_says_so(self, gopro: dict[str, Any]) -> None:
        assert refusal({**gopro, "only": ["GOPRa"], "without": ["GOPRa"]}) == (
            "only, without: expected a sequence to be left, got none; name fewer under without"
        )

    def test_a_data_set_without_sequences_has_none_to_hold_out(self, tmp_path: Path) -> None:
        options = {"layout": "photographs", "dataroot": str(touch(tmp_path, "1.png")), "without": ["a"]}
        assert refusal(options) == "without: expected names of sequences, but this data set has none; remove without"


def test_the_block_that_asks_for_another_blur_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "SEQ/blur/1.png", "SEQ/sharp/1.png")
    assert refusal({"dataroot": str(tmp_path), "name": "val"}) == (
        f"{tmp_path}/SEQ: expected a folder 'blur_gamma', found blur; set blur_key to one of them (data set val)"
    )
