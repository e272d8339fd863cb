"""Pairs from frames and photographs: GOPRO's own bit for bit, closed forms, and nothing made twice or by halves."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage.data import astronaut

from reblur_plugin.data import synthesis
from reblur_plugin.data.doctor import check, find_blocks
from reblur_plugin.data.images import ImageError, decode_image, through_jpeg, write_image
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.pairs import DatasetError
from reblur_plugin.data.recipes import Films, Settings, Shakes
from reblur_plugin.data.synthesis import SETTINGS, from_frames, from_photographs
from reblur_plugin.errors import ReblurError

FIVE_SIGMA = 5.0


def flat(folder: Path, *levels: int) -> Path:
    """Write frames of one grey level each."""
    for number, level in enumerate(levels):
        write_image(folder / f"{number:03d}.png", np.full((12, 15, 3), level, dtype=np.uint8))
    return folder


def names(out: Path) -> list[str]:
    return [pair.name for pair in list_pairs({"dataroot": str(out), "blur_key": kind(out)})]


def kind(out: Path) -> str:
    return "blur_gamma" if any(out.glob("*/blur_gamma")) else "blur"


def level(out: Path, folder: str, name: str) -> int:
    sequence, frame = name.split("/")
    pixels = decode_image(out / sequence / folder / f"{frame}.png")
    assert pixels.min() == pixels.max()
    return int(pixels.min())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_eight_raw_gopro_frames_make_the_published_pair_bit_for_bit(shared: Path, tmp_path: Path) -> None:
    raw, averaged = (
        shared / "data" / name / "train" / "GOPR0477_11_00" for name in ("GOPRO_Large_all", "GOPRO_averaged")
    )
    pairs = (165, 178, 198)
    for pair in pairs:
        (tmp_path / "frames" / str(pair)).mkdir(parents=True)
        for name in (f"{number:06d}.png" for number in range(pair + 1, pair + 9)):
            (tmp_path / "frames" / str(pair) / name).symlink_to(raw / name)
    words = ["synthesise", tmp_path / "frames", tmp_path / "out", "--frames", "8"]
    done = subprocess.run(
        [sys.executable, "-m", "reblur_plugin.data", *map(str, words)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for pair, folder in product(pairs, ("blur_gamma", "sharp")):
        published, made = averaged / folder / f"{pair:06d}.png", f"{pair}/{folder}/{pair + 5:06d}.png"
        with Image.open(tmp_path / "out" / made) as ours, Image.open(published) as theirs:
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), strict=True)


class TestFrames:
    # windows of two: (0, 100), (20, 40), (9, 10); the mean at gamma 1 is cut, the sharp image the later frame
    def test_windows_follow_each_other_and_leave_the_rest(self, tmp_path: Path) -> None:
        frames = flat(tmp_path / "walk", 0, 100, 20, 40, 9, 10, 250)
        assert from_frames(frames, tmp_path / "out", Films(gamma=1, least=2, most=2)) == 3
        out = tmp_path / "out"
        assert names(out) == ["walk/001", "walk/003", "walk/005"]
        assert [level(out, "blur", name) for name in names(out)] == [50, 30, 9]
        assert [level(out, "sharp", name) for name in names(out)] == [100, 40, 10]

    def test_the_stride_may_overlap_or_leave_out(self, tmp_path: Path) -> None:
        frames = flat(tmp_path / "f", 0, 1, 2, 3, 4, 5, 6)
        for stride, sharp in {1: [1, 2, 3, 4, 5], 2: [1, 3, 5], 3: [1, 4], 4: [1, 5], 6: [1]}.items():
            out = tmp_path / f"out{stride}"
            from_frames(frames, out, Films(gamma=1, least=3, most=3, stride=stride))
            assert [level(out, "sharp", name) for name in names(out)] == sharp
            assert [level(out, "blur", name) for name in names(out)] == sharp

    def test_lengths_are_drawn_between_the_bounds_by_the_seed(self) -> None:
        lengths = synthesis._lengths(Films(least=7, most=13), "a")
        drawn = [next(lengths) for _ in range(700)]
        counts = np.bincount(drawn, minlength=14)[7:]
        assert counts.sum() == 700
        assert np.all(abs(counts - 100) < FIVE_SIGMA * np.sqrt(700 * 6 / 49))
        again, other = (synthesis._lengths(Films(seed=seed), "a") for seed in (0, 1))
        assert [next(again) for _ in range(20)] == drawn[:20]
        assert [next(other) for _ in range(20)] != drawn[:20]

    def test_each_folder_is_a_sequence_and_hidden_ones_are_not(self, tmp_path: Path) -> None:
        for name in ("a", "b", ".c"):
            flat(tmp_path / "in" / name, 1, 2, 3)
        from_frames(tmp_path / "in", tmp_path / "out", Films(least=3, most=3))
        assert names(tmp_path / "out") == ["a/001", "b/001"]

    def test_a_film_gives_its_frames_in_order(self, tmp_path: Path) -> None:
        film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"FFV1"), 240, (16, 8))
        if not film.isOpened():
            pytest.skip("this OpenCV writes no films")
        for red in (10, 30, 50, 70):
            film.write(np.full((8, 16, 3), (0, 0, red), dtype=np.uint8))  # BGR
        film.release()
        from_frames(tmp_path / "film.avi", tmp_path / "out", Films(gamma=1, least=2, most=2))
        assert names(tmp_path / "out") == ["film/000001", "film/000003"]
        for name, expected in (("000001", (20, 30)), ("000003", (60, 70))):
            for folder, red in zip(("blur", "sharp"), expected, strict=True):
                pixel = decode_image(tmp_path / "out" / "film" / folder / f"{name}.png")[4, 8]
                np.testing.assert_allclose(pixel, (red, 0, 0), atol=1)  # FFV1 keeps YUV, which rounds

    def test_the_result_is_a_data_set_in_gopros_layout(self, tmp_path: Path, rng: np.random.Generator) -> None:
        picture = cv2.blur(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8), (3, 3))
        for number in range(8):
            write_image(tmp_path / "in" / "pan" / f"{number}.png", picture[:, number : number + 40])
        from_frames(tmp_path / "in", tmp_path / "out", Films(least=4, most=4))
        (diagnosis,) = check(find_blocks(tmp_path / "out"))
        assert (diagnosis.pairs, diagnosis.blur_kind, diagnosis.problems) == (2, "blur_gamma", ())


class TestPhotographs:
    def test_a_path_without_length_changes_nothing(self, tmp_path: Path, rng: np.random.Generator) -> None:
        picture = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        write_image(tmp_path / "in" / "x" / "a.png", picture)
        from_photographs(tmp_path / "in", tmp_path / "out", Shakes(shortest=0, longest=0, rotation=0, count=2))
        assert names(tmp_path / "out") == ["x_a/000001", "x_a/000002"]
        for folder in ("blur_gamma", "sharp"):
            np.testing.assert_array_equal(decode_image(tmp_path / "out" / "x_a" / folder / "000002.png"), picture)

    def test_pairs_differ_and_their_edges_are_cut(self, tmp_path: Path, rng: np.random.Generator) -> None:
        write_image(tmp_path / "in" / "a.png", rng.integers(0, 256, (60, 70, 3), dtype=np.uint8))
        from_photographs(tmp_path / "in", tmp_path / "out", Shakes(shortest=5, longest=10, rotation=0, count=2))
        first, second = (decode_image(tmp_path / "out" / "a" / "blur_gamma" / f"00000{n}.png") for n in (1, 2))
        assert first.shape == second.shape == (60 - 2 * 7, 70 - 2 * 7, 3)  # 0.65 * 10 pixels, rounded up
        assert not np.array_equal(first, second)

    # Every corner of the result must lie within the photograph in every pose; the poses are inverted here by hand.
    @pytest.mark.parametrize(("length", "rotation"), [(12.0, 0.02), (2.0, 0.1)])
    def test_no_mirrored_edge_is_left(self, length: float, rotation: float) -> None:
        outside = 0
        for seed in range(40):
            rng = np.random.default_rng(seed)
            marked = np.zeros((80, 90, 3), dtype=np.uint8)
            settings = Shakes(shortest=length, longest=length, rotation=rotation, gamma=1)
            cut = (90 - settings.make(marked, rng)[0].shape[1]) // 2
            path = synthesis_path(settings, np.random.default_rng(seed))
            corners = np.array([[x, y] for x in (cut, 89 - cut) for y in (cut, 79 - cut)], dtype=np.float64) - (
                44.5,
                39.5,
            )
            for (x, y), angle in zip(path.shifts, path.angles, strict=True):
                turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
                seen = (corners - (x, y)) @ turn.T + (44.5, 39.5)
                outside += int((seen.min(axis=0) < 0).any() or (seen.max(axis=0) > (89, 79)).any())
        assert outside == 0

    def test_a_photograph_too_small_for_the_path_is_refused(self, tmp_path: Path) -> None:
        flat(tmp_path / "in", 3)
        with pytest.raises(DatasetError, match=r"shake: a photograph of 15x12 is too small for paths of 20\.0 pixels"):
            from_photographs(tmp_path / "in", tmp_path / "out", Shakes())


def synthesis_path(settings: Shakes, rng: np.random.Generator) -> Any:
    """Return the path that `Shakes.make` takes."""
    from reblur_plugin.data.blur import random_path

    length = rng.uniform(settings.shortest, settings.longest)
    return random_path(rng, settings.poses, length, 0, settings.spread, settings.rotation)


class TestSettings:
    def test_noise_has_its_sigma_and_leaves_the_sharp_image(self) -> None:
        frame: NDArray[np.uint8] = np.full((200, 200, 3), 100, dtype=np.uint8)
        blurry, sharp = Films(noise=3).make([frame] * 7, np.random.default_rng(0))
        np.testing.assert_array_equal(sharp, frame)
        noise = blurry.astype(float) - 100
        assert abs(noise.mean()) < FIVE_SIGMA * 3 / np.sqrt(noise.size)
        # rounding adds a variance of 1/12
        assert noise.std() == pytest.approx(np.sqrt(9 + 1 / 12), rel=FIVE_SIGMA / np.sqrt(2 * noise.size))

    def test_noise_differs_from_pair_to_pair_and_from_sequence_to_sequence(self, tmp_path: Path) -> None:
        for name in "ab":
            flat(tmp_path / "in" / name, *[100] * 6)
        from_frames(tmp_path / "in", tmp_path / "out", Films(least=3, most=3, noise=3))
        images = {path.read_bytes() for path in (tmp_path / "out").glob("*/blur_gamma/*.png")}
        assert len(images) == 4

    def test_noise_is_clipped(self) -> None:
        dark = np.zeros((9, 9, 3), dtype=np.uint8)
        assert Films(noise=3).make([dark] * 7, np.random.default_rng(0))[0].max() < 30

    def test_jpeg_artefacts_are_those_of_a_file_of_that_quality(self) -> None:
        frame = astronaut()[:96, :128]
        file = BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=60)
        blurry, sharp = Films(gamma=1, jpeg=(60, 60)).make([frame] * 7, np.random.default_rng(0))
        np.testing.assert_array_equal(sharp, frame)
        np.testing.assert_array_equal(blurry, np.asarray(Image.open(file)))

    def test_jpeg_qualities_are_drawn_from_all_of_the_range(self) -> None:
        frame, rng = astronaut()[:32, :32], np.random.default_rng(0)
        files = [through_jpeg(frame, quality).tobytes() for quality in (80, 81, 82)]
        found = {
            Shakes(longest=0, shortest=0, gamma=1, rotation=0, jpeg=(80, 82)).make(frame, rng)[0].tobytes()
            for _ in range(30)
        }
        assert found == set(files)

    # 0, 0, 255 x 1: a white frame of three counts four times: min(4 * 255 / 3, 255) = 255; twice: 170; once: 85
    def test_white_may_have_been_brighter(self) -> None:
        frames = [np.full((1, 1, 3), value, dtype=np.uint8) for value in (0, 0, 255)]
        for highlights, expected in {4: 255, 2: 170, 1: 85}.items():
            blurry = Films(gamma=1, highlights=highlights).make(frames, np.random.default_rng(0))[0]
            assert blurry.ravel().tolist() == [expected] * 3

    @pytest.mark.parametrize(
        ("kind", "values", "message"),
        [
            (Settings, {"gamma": 1.8}, r"gamma: expected 2\.2 \(blur_gamma\) or 1 \(blur\), got 1\.8"),
            (Settings, {"highlights": 0.5}, r"highlights: expected a number >= 1, got 0\.5"),
            (Settings, {"noise": -1}, r"noise: expected a number >= 0, got -1"),
            (Settings, {"jpeg": (95, 70)}, r"jpeg: expected qualities such as 70-95, got 95-70"),
            (Settings, {"jpeg": (0, 70)}, r"jpeg: expected qualities such as 70-95, got 0-70"),
            (Films, {"least": 9, "most": 7}, r"frames: expected such as 7-13 or 8, got 9-7"),
            (Films, {"least": 0}, r"frames: expected such as 7-13 or 8, got 0-13"),
            (Films, {"stride": 0}, r"stride and interpolate: expected whole numbers, stride > 0 and interpolate >= 0"),
            (Films, {"between": -1}, r"stride and interpolate: expected whole numbers"),
            (Shakes, {"shortest": 9, "longest": 7}, r"shake: expected lengths such as 2-20, got 9-7"),
        ],
    )
    def test_senseless_values_are_refused(self, kind: type[Settings], values: dict[str, Any], message: str) -> None:
        with pytest.raises(ReblurError, match=message):
            kind(**values)

    def test_an_even_number_of_poses_is_refused(self) -> None:
        with pytest.raises(ReblurError, match=r"random_path: poses: expected an odd number from 3, got 16"):
            Shakes(poses=16).make(np.zeros((90, 90, 3), dtype=np.uint8), np.random.default_rng(0))


class TestGoingOn:
    SETTINGS = Films(least=2, most=4, noise=2.0, jpeg=(70, 95))

    @pytest.fixture
    def frames(self, tmp_path: Path) -> Path:
        for name in "ab":
            flat(tmp_path / "in" / name, *range(0, 120, 10))
        return tmp_path / "in"

    @pytest.fixture
    def whole(self, frames: Path, tmp_path: Path) -> dict[str, bytes]:
        from_frames(frames, tmp_path / "whole", self.SETTINGS)
        return content(tmp_path / "whole")

    @pytest.mark.parametrize("writes", [0, 1, 2, 5])
    def test_a_stopped_one_ends_as_an_unbroken_one(
        self, frames: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
    ) -> None:
        left = [writes]

        def stopping(path: Path, pixels: NDArray[np.uint8]) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write_image(path, pixels)

        monkeypatch.setattr(synthesis, "write_image", stopping)
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            from_frames(frames, out, self.SETTINGS)
        assert json.loads((out / SETTINGS).read_text())["pairs"] is None
        if writes >= 2:
            (diagnosis,) = check(find_blocks(out), look=False)
            assert diagnosis.problems[0] == (
                f"{out}: expected all pairs of a synthesis, got a part; start the same synthesise again"
            )
        monkeypatch.setattr(synthesis, "write_image", write_image)
        (out / ".000000.png.123.part").touch()  # a kill would have left it
        from_frames(frames, out, self.SETTINGS)
        assert content(out) == whole

    def test_pairs_that_are_there_are_not_made_again(
        self, frames: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr(synthesis, "decode_image", refuse)
        from_frames(frames, tmp_path / "whole", self.SETTINGS)
        assert content(tmp_path / "whole") == whole

    @pytest.mark.usefixtures("whole")
    def test_other_settings_are_refused(self, frames: Path, tmp_path: Path) -> None:
        with pytest.raises(
            DatasetError, match=r"whole: was begun with other settings \(jpeg, most, noise\); use those or"
        ):
            from_frames(frames, tmp_path / "whole", Films(least=2, most=5))

    def test_what_was_begun_before_there_was_jpeg_goes_on(self, frames: Path, tmp_path: Path) -> None:
        from_frames(frames, tmp_path / "out", Films(least=2, most=4))
        noted = json.loads((tmp_path / "out" / SETTINGS).read_text())
        del noted["settings"]["jpeg"]
        (tmp_path / "out" / SETTINGS).write_text(json.dumps(noted))
        assert from_frames(frames, tmp_path / "out", Films(least=2, most=4)) == noted["pairs"]

    def test_a_folder_with_something_else_is_left_alone(self, frames: Path) -> None:
        with pytest.raises(DatasetError, match=r"in: expected an empty folder or one begun by synthesise; choose"):
            from_frames(frames, frames, self.SETTINGS)


class TestRefusals:
    def test_nothing_to_make_pairs_of(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetError, match=r"none: no such file or folder; expected a film or frames"):
            from_frames(tmp_path / "none", tmp_path / "out", Films())
        with pytest.raises(DatasetError, match=r"in: expected at least 13 frames in in, got fewer"):
            from_frames(flat(tmp_path / "in", 1, 2), tmp_path / "out", Films())

    def test_a_file_that_is_no_film(self, tmp_path: Path) -> None:
        (tmp_path / "film.mp4").write_text("not a film")
        with pytest.raises(DatasetError, match=r"film\.mp4: expected a film or a folder of frames, got a file without"):
            from_frames(tmp_path / "film.mp4", tmp_path / "out", Films())

    def test_two_films_of_one_name(self, tmp_path: Path) -> None:
        for name in ("a.mp4", "a.mov"):
            (tmp_path / "in").mkdir(exist_ok=True)
            (tmp_path / "in" / name).touch()
        with pytest.raises(DatasetError, match=r"in: expected sequences of different names, got 'a' twice; rename one"):
            from_frames(tmp_path / "in", tmp_path / "out", Films())

    def test_frames_of_sixteen_bits(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "in" / "a.png")
        with pytest.raises(DatasetError, match=r"a\.png: expected frames of 8 bits a channel, got 16; convert them"):
            from_frames(tmp_path / "in", tmp_path / "out", Films(least=1, most=1))

    def test_a_damaged_frame_is_named(self, tmp_path: Path) -> None:
        flat(tmp_path / "in", 1, 2)
        (tmp_path / "in" / "001.png").write_bytes(b"GIF")
        with pytest.raises(ImageError, match=r"001\.png: expected an image, got a damaged or unknown file"):
            from_frames(tmp_path / "in", tmp_path / "out", Films(least=2, most=2))


class TestCommand:
    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "reblur_plugin.data", "synthesise", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def test_photographs_are_shaken(self, tmp_path: Path, rng: np.random.Generator) -> None:
        write_image(tmp_path / "in" / "a.png", rng.integers(0, 256, (60, 70, 3), dtype=np.uint8))
        out = tmp_path / "out"
        done = self.run(tmp_path / "in", out, "--shake", "2-8", "--count", 3, "--gamma", 1, "--seed", 4)
        assert done.stdout == f"{out}: 3 pairs. In option files: layout: gopro, dataroot: {out}\n"
        settings = json.loads((out / SETTINGS).read_text())["settings"]
        assert settings == json.loads(json.dumps(vars(Shakes(gamma=1, seed=4, shortest=2, longest=8, count=3))))
        assert len(list((out / "a" / "blur").iterdir())) == 3

    def test_all_that_frames_take_is_passed_on(self, tmp_path: Path) -> None:
        frames, out = flat(tmp_path / "in", *range(10)), tmp_path / "out"
        words = ("--frames", "3-4", "--stride", 2, "--interpolate", 1, "--highlights", 2, "--noise", 1.5, "--seed", 7)
        words += ("--jpeg", "70-95")
        assert self.run(frames, out, *words).returncode == 0
        settings = json.loads((out / SETTINGS).read_text())["settings"]
        expected = Films(highlights=2, noise=1.5, jpeg=(70, 95), seed=7, least=3, most=4, stride=2, between=1)
        assert settings == json.loads(json.dumps(vars(expected)))

    def test_as_many_frames_between_as_motion_has_pixels_are_a_word(self, tmp_path: Path) -> None:
        frames, out = flat(tmp_path / "in", 1, 2), tmp_path / "out"
        assert self.run(frames, out, "--frames", 2, "--interpolate", "auto").returncode == 0
        assert json.loads((out / SETTINGS).read_text())["settings"]["between"] is None

    def test_senseless_words_are_refused(self, tmp_path: Path) -> None:
        frames = flat(tmp_path / "in", 1, 2)
        messages = {
            ("--frames", "many"): "expected such as 7-13 or 8, got 'many'",
            ("--interpolate", "some"): "--interpolate: expected auto or a whole number, got 'some'",
            ("--gamma", "3"): "gamma: expected 2.2 (blur_gamma) or 1 (blur), got 3.0",
        }
        for words, message in messages.items():
            done = self.run(frames, tmp_path / "out", *words)
            assert done.returncode in (1, 2)
            assert message in done.stderr
        assert not (tmp_path / "out").exists()


def test_gaps_between_frames_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 4, 5, 6, 9):
        write_image(tmp_path / "film" / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
    from_frames(tmp_path / "film", tmp_path / "out", Films(least=3, most=3))
    assert f"{tmp_path}/film: no frame 3, 7-8: averages across them jump" in capsys.readouterr().err
