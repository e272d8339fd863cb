"""Where the pairs lie: the published data sets as unzipped, and every way in which they can be incomplete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reblur_plugin.data.layouts import DatasetError, Pair, gopro_pairs, list_pairs


def touch(root: Path, *names: str) -> Path:
    """Create empty files; layouts look at names only."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def refusal(options: dict[str, str]) -> str:
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
        assert pairs[1] == Pair(pairs[1].name, sequence / "blur" / "000014.png", sequence / "sharp" / "000014.png")

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
        assert refusal({"dataroot": str(tmp_path)}).startswith(
            f"{tmp_path}: no folders in it; expected the sequences of GOPRO_Large"
        )


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
            Pair("b", tmp_path / "in" / "b.png", tmp_path / "out" / "b.jpg"),
            Pair("x/a", tmp_path / "in" / "x" / "a.png", tmp_path / "out" / "x" / "a.png"),
        ]

    def test_two_images_of_one_name_are_refused(self, tmp_path: Path) -> None:
        touch(tmp_path, "in/a.jpg", "in/a.png", "out/a.png")
        options = {"layout": "folders", "dataroot_lq": f"{tmp_path}/in", "dataroot_gt": f"{tmp_path}/out"}
        assert refusal(options) == f"{tmp_path}/in/a.png: a second image named 'a' beside a.jpg; rename one of them"

    @pytest.mark.parametrize("key", ["dataroot_lq", "dataroot_gt"])
    def test_a_missing_key_is_named_with_its_layout(self, tmp_path: Path, key: str) -> None:
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
        message = "layout: expected one of gopro, reds, folders, photographs, got 'GoPro'"
        with pytest.raises(DatasetError, match=re.escape(message)):
            list_pairs({"layout": "GoPro", "dataroot": "x"})

    @pytest.mark.parametrize("layout", ["gopro", "reds", "photographs"])
    def test_a_missing_dataroot_is_named_with_its_layout(self, layout: str) -> None:
        assert refusal({"layout": layout}) == f"dataroot: missing; the layout {layout!r} needs this folder"


def test_the_folder_above_train_and_test_is_told_from_a_sequence(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "SEQ" / "sharp").mkdir(parents=True)
    assert refusal({"dataroot": str(tmp_path)}) == (
        f"{tmp_path}: expected sequences, got train and test; point dataroot at one of these two"
    )
