"""Which images a reproduction takes from a folder of data sets."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from reblur_plugin.data.packed import packed_pairs
from reproduction.data import DataError, check_apart, held_out_pairs, pack_once, spread, training_pairs, write_tests


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
            image(root / "REDS/val" / f"val_{kind}" / "002" / f"{frame:08d}.png", frame)
        image(root / "GOPRO_Large_all/train/GOPR9" / f"{frame:06d}.png")
    for kind in ("blur_gamma", "sharp"):
        image(root / "mine/train/GOPR2" / kind / "000001.png")
    for kind in ("blur", "sharp"):
        for sequence in ("GOPR3", "GOPR4"):
            image(root / "GOPRO_Large/test" / sequence / kind / "000001.png", 7 if kind == "sharp" else 9)
    return root


class TestFound:
    def test_every_train_part_and_the_known_test_parts(self, data: Path) -> None:
        training = {pair.name.partition("/")[0] for pair in training_pairs(data)}
        assert training == {"GOPR1", "GOPR2", "001"}  # raw frames are no pairs
        assert {pair.name.partition("/")[0] for pair in held_out_pairs(data)} == {"GOPR3", "GOPR4", "002"}

    def test_training_pairs_of_all_kinds_go_into_one_pack(self, data: Path, tmp_path: Path) -> None:
        pack_once(training_pairs(data), tmp_path / "pack")
        assert len(packed_pairs(tmp_path / "pack")) == 11
        before = (tmp_path / "pack" / "index.json").stat().st_mtime_ns
        pack_once(training_pairs(data), tmp_path / "pack")
        assert (tmp_path / "pack" / "index.json").stat().st_mtime_ns == before

    def test_a_shared_sequence_is_refused_by_name(self, data: Path) -> None:
        for kind in ("blur", "sharp"):
            image(data / "mine/train/GOPR3" / kind.replace("blur", "blur_gamma") / "000009.png")
        with pytest.raises(DataError, match="in both training and test data, got GOPR3; remove it from one"):
            check_apart(training_pairs(data), held_out_pairs(data), data)

    @pytest.mark.parametrize(("part", "named"), [("*/train", "train"), ("GOPRO_Large/test", "test")])
    def test_data_that_is_missing_is_named(self, data: Path, part: str, named: str) -> None:
        training, tests = training_pairs(data), held_out_pairs(data)
        given = ([], tests) if named == "train" else (training, [])
        with pytest.raises(DataError, match=rf"expected {re.escape(part)}/SEQUENCE/{{blur,sharp}}, found none"):
            check_apart(*given, data)


class TestSpread:
    def test_sequences_take_turns(self, data: Path) -> None:
        names = [pair.name.partition("/")[0] for pair in spread(training_pairs(data), 3)]
        assert sorted(names) == ["001", "GOPR1", "GOPR2"]

    def test_frames_are_spread_over_their_sequence(self, data: Path) -> None:
        frames = [pair.name for pair in spread([pair for pair in training_pairs(data) if "GOPR1" in pair.name], 3)]
        assert frames == ["GOPR1/000000", "GOPR1/000004", "GOPR1/000002"]

    def test_none_means_all(self, data: Path) -> None:
        pairs = training_pairs(data)
        assert sorted(pair.name for pair in spread(pairs, None)) == sorted(pair.name for pair in pairs)


class TestTests:
    def test_centres_are_cut_and_the_second_set_is_sharp_twice(self, data: Path, tmp_path: Path) -> None:
        pairs = spread([pair for pair in held_out_pairs(data) if "GOPR" in pair.name], None)
        blurry, sharp = write_tests(pairs, tmp_path / "out", (20, 16))
        for root, values in ((blurry, (9, 7)), (sharp, (7, 7))):
            for kind, value in zip(("blur", "sharp"), values, strict=True):
                picture = cv2.imread(str(root / "GOPR3" / kind / "000001.png"))
                assert picture.shape == (16, 20, 3)
                assert (picture[..., 0] == value).all()
                assert (picture[0, :, 1] == np.arange(10, 30)).all()  # of 40 columns

    def test_whole_images_stay_whole(self, data: Path, tmp_path: Path) -> None:
        blurry, _ = write_tests(held_out_pairs(data), tmp_path / "out", None)
        assert cv2.imread(str(blurry / "GOPR4" / "blur" / "000001.png")).shape == (24, 40, 3)

    def test_an_image_that_is_too_small_is_named(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"000001.png: expected 64x16 pixels or more, got 40x24"):
            write_tests(held_out_pairs(data)[:1], tmp_path / "out", (64, 16))
