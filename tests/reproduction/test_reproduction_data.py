"""Which images a reproduction takes from a folder of data sets."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from reblur_plugin.data.packed import packed_pairs
from reblur_plugin.data.pairs import Pair
from reproduction.data import (
    DataError,
    check_apart,
    held_out_sets,
    pack_once,
    spread,
    training_sets,
    write_photographs,
    write_tests,
)


def image(path: Path, value: int = 0, size: tuple[int, int] = (40, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = np.arange(size[0], dtype=np.uint8)
    picture = np.broadcast_to(columns[None, :, None], (size[1], size[0], 3)).copy()
    picture[..., 0] = value
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of GOPRO with one kind of blur, another set with the other, REDS, and raw frames."""
    root = tmp_path / "sets" / "all"
    for frame in range(5):
        for kind in ("blur", "sharp"):
            image(root / "GOPRO_Large/train/GOPR1" / kind / f"{frame:06d}.png", frame)
            image(root / "REDS/train" / f"train_{kind}" / "001" / f"{frame:08d}.png", frame)
            image(root / "REDS/val" / f"val_{kind}" / "001" / f"{frame:08d}.png", frame)  # another clip, as published
        image(root / "GOPRO_Large_all/train/GOPR9" / f"{frame:06d}.png")
    for kind in ("blur_gamma", "sharp"):
        image(root / "mine/train/GOPR2" / kind / "000001.png")
    for kind in ("blur", "sharp"):
        for sequence in ("GOPR3", "GOPR4"):
            image(root / "GOPRO_Large/test" / sequence / kind / "000001.png", 7 if kind == "sharp" else 9)
    return root


def names(sets: list[list[Pair]]) -> set[str]:
    return {pair.name.partition("/")[0] for pairs in sets for pair in pairs}


class TestFound:
    def test_every_train_part_and_the_known_test_parts(self, data: Path) -> None:
        assert names(training_sets(data)) == {"GOPR1", "GOPR2", "train-001"}  # raw frames are no pairs
        assert names(held_out_sets(data)) == {"GOPR3", "GOPR4", "val-001"}
        check_apart(training_sets(data), held_out_sets(data), data)

    def test_of_two_kinds_of_blur_each_sequence_has_the_linear_one(self, data: Path) -> None:
        image(data / "mine/train/GOPR5/blur/000001.png")
        image(data / "mine/train/GOPR5/blur_gamma/000001.png")
        image(data / "mine/train/GOPR5/sharp/000001.png")
        kinds = {pair.name: pair.blurry.parent.name for pairs in training_sets(data) for pair in pairs}
        assert (kinds["GOPR5/000001"], kinds["GOPR2/000001"]) == ("blur", "blur_gamma")

    def test_a_pair_of_two_sets_counts_once(self, data: Path) -> None:
        for kind in ("blur", "sharp"):
            for frame in (0, 9):
                image(data / "GOPRO_more/train/GOPR1" / kind / f"{frame:06d}.png")
        found = [pair for pairs in training_sets(data) for pair in pairs]
        assert len({pair.name for pair in found}) == len(found) == 12
        first = next(pair for pair in found if pair.name == "GOPR1/000000")
        assert "GOPRO_Large" in first.blurry.parts

    def test_an_image_without_its_partner_is_named(self, data: Path) -> None:
        image(data / "mine/train/GOPR2/blur_gamma/000002.png")
        with pytest.raises(DataError, match=r"000002.png: no partner of that name in .*sharp"):
            training_sets(data)

    def test_training_pairs_of_all_kinds_go_into_one_pack(self, data: Path, tmp_path: Path) -> None:
        pairs = spread(training_sets(data), None)
        pack_once(pairs, tmp_path / "pack")
        found = packed_pairs(tmp_path / "pack")
        assert (len(found), {pair.kind for pair in found}) == (11, {"mixed"})
        before = (tmp_path / "pack" / "index.json").stat().st_mtime_ns
        pack_once(pairs, tmp_path / "pack")
        assert (tmp_path / "pack" / "index.json").stat().st_mtime_ns == before

    def test_a_shared_sequence_is_refused_by_name(self, data: Path) -> None:
        for kind in ("blur_gamma", "sharp"):
            image(data / "mine/train/GOPR3" / kind / "000009.png")
        with pytest.raises(DataError, match="in both training and test data, got GOPR3; remove it from one"):
            check_apart(training_sets(data), held_out_sets(data), data)

    @pytest.mark.parametrize(("part", "named"), [("*/train", "train"), ("GOPRO_Large/test", "test")])
    def test_data_that_is_missing_is_named(self, data: Path, part: str, named: str) -> None:
        training, tests = training_sets(data), held_out_sets(data)
        given = ([], tests) if named == "train" else (training, [])
        with pytest.raises(DataError, match=rf"expected {re.escape(part)}/SEQUENCE/{{blur,sharp}}, found none"):
            check_apart(*given, data)


class TestSpread:
    def test_data_sets_take_turns_and_sequences_within_them(self) -> None:
        """As with the published numbers: REDS' clips, which sort before GOPRO's, leave it its half."""
        clips = [Pair(f"train-{clip:03d}/{frame}", Path(), None) for clip in range(20) for frame in range(3)]
        gopro = [Pair(f"GOPR{number}/{frame}", Path(), None) for number in range(3) for frame in range(40)]
        found = [pair.name for pair in spread([clips, gopro], 12)]
        assert sum(name.startswith("GOPR") for name in found) == 6
        assert sorted({name.partition("/")[0] for name in found if name.startswith("GOPR")}) == [
            "GOPR0",
            "GOPR1",
            "GOPR2",
        ]
        assert len({name.partition("/")[0] for name in found if name.startswith("train")}) == 6

    def test_frames_are_spread_over_their_sequence(self) -> None:
        pairs = [Pair(f"GOPR1/{frame}", Path(), None) for frame in range(5)]
        assert [pair.name for pair in spread([pairs], 3)] == ["GOPR1/0", "GOPR1/4", "GOPR1/2"]

    def test_none_means_all(self, data: Path) -> None:
        assert len(spread(training_sets(data), None)) == 11


class TestTests:
    def test_centres_are_cut_and_the_second_set_is_sharp_twice(self, data: Path, tmp_path: Path) -> None:
        pairs = [pair for pair in spread(held_out_sets(data), None) if "GOPR" in pair.name]
        blurry, sharp = write_tests(pairs, tmp_path / "out", (20, 16))
        for root, values in ((blurry, (9, 7)), (sharp, (7, 7))):
            for kind, value in zip(("blur", "sharp"), values, strict=True):
                picture = cv2.imread(str(root / "GOPR3" / kind / "000001.png"))
                assert picture.shape == (16, 20, 3)
                assert (picture[..., 0] == value).all()
                assert (picture[0, :, 1] == np.arange(10, 30)).all()  # of 40 columns

    def test_whole_images_stay_whole(self, data: Path, tmp_path: Path) -> None:
        blurry, _ = write_tests(spread(held_out_sets(data), None), tmp_path / "out", None)
        assert cv2.imread(str(blurry / "GOPR4" / "blur" / "000001.png")).shape == (24, 40, 3)

    def test_an_image_that_is_too_small_is_named(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"000001.png: expected 64x16 pixels or more, got 40x24"):
            write_tests(spread(held_out_sets(data), 1), tmp_path / "out", (64, 16))

    def test_photographs_are_cut_where_they_are_larger(self, tmp_path: Path) -> None:
        image(tmp_path / "in/large.png", size=(60, 50))
        image(tmp_path / "in/small.png", size=(20, 30))
        pairs = [Pair(name, tmp_path / "in" / f"{name}.png", None) for name in ("large", "small")]
        write_photographs(pairs, tmp_path / "out", (40, 24))
        shapes = [cv2.imread(str(tmp_path / "out" / f"{name}.png")).shape for name in ("large", "small")]
        assert shapes == [(24, 40, 3), (24, 20, 3)]
