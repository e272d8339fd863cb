"""Folders are taken for what they are: GOPRO's sequences, pairs in two folders, frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reblur_plugin.data.doctor import check, find_blocks
from reblur_plugin.data.images import write_image
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.pairs import DatasetError

Block = dict[str, str]


def images(root: Path, *names: str) -> Path:
    for name in names:
        write_image(root / name, np.zeros((4, 4, 3), np.uint8))
    return root


def folders(root: Path, blurry: str, sharp: str) -> Block:
    return {"layout": "folders", "dataroot_lq": str(root / blurry), "dataroot_gt": str(root / sharp)}


@pytest.mark.parametrize(
    ("blurry", "sharp"),
    [
        ("blur", "sharp"),
        ("input", "target"),
        ("lq", "gt"),
        ("LQ", "GT"),
        ("A", "B"),
        ("Blurry", "Sharp"),
        ("blur", "gt"),
    ],
)
def test_two_folders_are_pairs(tmp_path: Path, blurry: str, sharp: str) -> None:
    root = images(
        tmp_path / "GoPro", *(f"{part}/{kind}/1.png" for part in ("train", "test") for kind in (blurry, sharp))
    )
    expected = [folders(root / part, blurry, sharp) for part in ("test", "train")]
    assert find_blocks(root) == expected
    assert find_blocks(root / "train") == expected[1:]
    assert len(list_pairs(expected[1])) == 1


@pytest.mark.parametrize("place", ["", "train"])
def test_a_training_on_them_is_told_the_keys_to_copy(tmp_path: Path, place: str) -> None:
    root = images(
        tmp_path / "data" / "GoPro",  # other tests' folders are three levels up
        *(f"{part}/{kind}/1.png" for part in ("train", "test") for kind in ("blur", "sharp")),
    )
    keys = f"layout: folders, dataroot_lq: {root}/train/blur, dataroot_gt: {root}/train/sharp"
    with pytest.raises(DatasetError, match=rf"found none; it holds pairs in folders: .*{keys}$"):
        list_pairs({"layout": "gopro", "dataroot": str(root / place), "blur_key": "blur"})


def test_gopros_sequences_stay_sequences(tmp_path: Path) -> None:
    root = images(tmp_path / "mine", "one/blur/1.png", "one/sharp/1.png", "two/blur/1.png", "two/sharp/1.png")
    assert find_blocks(root) == [{"layout": "gopro", "dataroot": str(root), "blur_key": "blur"}]
    with pytest.raises(DatasetError, match=r"mine/one: expected a whole data set, got a part of .*mine; check that$"):
        find_blocks(root / "one")


@pytest.mark.parametrize("place", ["", "train", "train/GOPR0372_07_00"])
def test_gopros_frames_are_named(tmp_path: Path, place: str) -> None:
    frames = "train/GOPR0372_07_00/000001.png", "train/GOPR0372_07_01/000001.png"
    root = images(tmp_path / "data" / "GOPRO_Large_all", *frames)  # other tests' folders are three levels up
    if place.count("/"):  # one sequence's frames are just pictures
        assert find_blocks(root / place) == [{"layout": "photographs", "dataroot": str(root / place)}]
        return
    with pytest.raises(DatasetError, match=rf"got the sharp frames of GOPRO_Large_all; .*synthesise {root}/train OUT"):
        find_blocks(root / place)
    with pytest.raises(DatasetError, match=rf"{root}/train holds frames: python -m reblur_plugin.data synthesise"):
        list_pairs({"layout": "gopro", "dataroot": str(root / place)})


def test_photographs_stay_photographs(tmp_path: Path) -> None:
    root = images(tmp_path / "shots", "summer/a.png", "blurry_ones/b.png", "c.png")
    assert find_blocks(root) == [{"layout": "photographs", "dataroot": str(root)}]


def test_all_missing_partners_are_problems_and_a_training_counts_them(tmp_path: Path) -> None:
    root = images(tmp_path / "test", *(f"test-close-ups/{number}.png" for number in range(1, 5)))
    images(tmp_path / "GT", "1.png")
    (found,) = check([{"layout": "hide", "dataroot": str(root)}])
    alone = [problem for problem in found.problems if "no partner of that name" in problem]
    assert (found.pairs, len(alone), found.verdict) == (1, 3, "damaged")
    with pytest.raises(DatasetError, match=r"/2\.png: no partner of that name in .*GT; unzip .* \(and 2 more problems"):
        list_pairs({"layout": "hide", "dataroot": str(root)})
