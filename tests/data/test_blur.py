"""How blur is formed: GOPRO's own pairs bit for bit, closed forms by hand, and the geometry of camera paths."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reblur_plugin.data.blur import (
    BlurError,
    CameraPath,
    Frame,
    average_frames,
    random_path,
    shake,
    with_frames_between,
)

LINSPACE_ROUNDING = 1e-16  # the middle of linspace(-0.5, 0.5, poses) is 0 but for the last bit
FLOAT64 = 1e-12


def frame(*levels: int) -> Frame:
    """Return one row of grey pixels."""
    return np.array(levels, dtype=np.uint8).reshape(1, -1, 1)


def read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    assert image is not None, path
    return image


def still(poses: int) -> CameraPath:
    return CameraPath(np.zeros((poses, 2)), np.zeros(poses))


def shifted(*shifts: tuple[float, float]) -> CameraPath:
    return CameraPath(np.array(shifts, dtype=np.float64), np.zeros(len(shifts)))


@pytest.fixture
def picture(rng: np.random.Generator) -> Frame:
    return rng.integers(0, 256, (21, 34, 3), dtype=np.uint8)


class TestAverageFrames:
    def test_eight_raw_gopro_frames_make_the_published_pair_bit_for_bit(self, shared: Path) -> None:
        raw = shared / "data" / "GOPRO_Large_all" / "train" / "GOPR0477_11_00"
        made = shared / "data" / "GOPRO_averaged" / "train" / "GOPR0477_11_00" / "blur_gamma"
        for pair in (165, 178, 198):
            blurry = average_frames(read(raw / f"{pair + number:06d}.png") for number in range(1, 9))
            np.testing.assert_array_equal(blurry, read(made / f"{pair:06d}.png"))

    # gamma 1: (100 + 200) / 2 = 150, 255 / 2 = 127.5, (10 + 20 + 21) / 3 = 17, (0 + 1) / 2 = 0.5: cut, not rounded.
    # gamma 2.2: 255 * 0.5^(1/2.2) = 255 * 0.72974 = 186.08; 100 * ((1 + 2^2.2) / 2)^(1/2.2) = 100 * 1.59614 = 159.61
    def test_levels_are_averaged_in_linear_light_and_cut(self) -> None:
        means = {
            (1, (100, 200)): 150,
            (1, (0, 255)): 127,
            (1, (10, 20, 21)): 17,
            (1, (0, 1)): 0,
            (2.2, (0, 255)): 186,
            (2.2, (100, 200)): 159,
            (2.2, (255, 255, 255, 255, 0, 0, 0, 0)): 186,
        }
        assert {
            (gamma, levels): average_frames([frame(level) for level in levels], gamma).item() for gamma, levels in means
        } == means

    def test_the_usual_gamma_is_2_2(self) -> None:
        assert average_frames([frame(0), frame(255)]).item() == 186

    def test_what_stands_still_is_unchanged_at_every_level(self) -> None:
        levels = frame(*range(256))
        for gamma, count in product((1.0, 2.2), (1, 3, 7, 8, 13)):
            np.testing.assert_array_equal(average_frames([levels] * count, gamma), levels)

    def test_pixels_and_channels_are_averaged_by_themselves(self) -> None:
        first = np.array([[[0, 10, 100], [4, 4, 4]]], dtype=np.uint8)
        second = np.array([[[10, 20, 200], [4, 6, 8]]], dtype=np.uint8)
        np.testing.assert_array_equal(
            average_frames([first, second], 1), np.array([[[5, 15, 150], [4, 5, 6]]], dtype=np.uint8), strict=True
        )

    def test_the_frames_come_one_by_one_and_stay_as_they_are(self) -> None:
        frames = [frame(0, 50), frame(255, 50)]
        alive: list[Frame] = []

        def film() -> Iterator[Frame]:
            for each in frames:
                alive.append(each)
                yield each

        np.testing.assert_array_equal(average_frames(film(), 1), frame(127, 50))
        assert [each.ravel().tolist() for each in alive] == [[0, 50], [255, 50]]

    def test_no_frame_is_refused(self) -> None:
        with pytest.raises(BlurError, match=r"average_frames: expected at least one frame, got none"):
            average_frames([])

    def test_frames_of_several_sizes_are_refused_with_both(self) -> None:
        with pytest.raises(
            BlurError, match=r"average_frames: expected frames of one size, got \(1, 2, 1\) and \(1, 3, 1\)"
        ):
            average_frames([frame(1, 2), frame(1, 2, 3)])


class TestHighlights:
    # (2 * 255 + 100) / 2 = 305, cut at white; (2 * 250 + 0) / 4 = 125; 249 isn't white
    def test_light_of_white_counts_twice_and_is_cut(self) -> None:
        means = {(255, 100): 255, (250, 0, 0, 0): 125, (249, 249, 0): 166, (255,): 255}
        found = {levels: average_frames([frame(level) for level in levels], 1, highlights=2).item() for levels in means}
        assert found == means

    def test_it_is_light_that_counts_and_not_levels(self) -> None:
        # (2 * 255^2.2 / 4)^(1/2.2) = 255 * 0.5^(1/2.2) = 186.08
        assert average_frames([frame(255), *[frame(0)] * 3], 2.2, highlights=2).item() == 186

    def test_a_shaken_light_leaves_a_brighter_streak(self) -> None:
        line = np.tile(frame(0, 0, 255, 0, 0), (3, 1, 3))
        path = shifted((-1, 0), (0, 0), (1, 0), (2, 0))
        np.testing.assert_array_equal(shake(line, path, 1, highlights=2)[1, :, 0], [0, 127, 127, 127, 127])
        np.testing.assert_array_equal(shake(line, path, 1)[1, :, 0], [0, 63, 63, 63, 63])


class TestFramesBetween:
    FLOW = 2.0  # levels by which a frame between may differ where the flow is a little off

    @staticmethod
    def texture(shift: float) -> Frame:
        """Return a smooth pattern, moved to the right by `shift` pixels."""
        y, x = np.mgrid[:64, :96].astype(np.float64)
        waves = np.sin((x - shift) / 5) + np.sin((x - shift) / 9 + y / 6) + np.sin(y / 4)
        return np.round(127.5 + 40 * waves).astype(np.uint8)[..., None].repeat(3, axis=2)

    def test_none_between_leaves_the_frames_as_they_are(self) -> None:
        frames = [self.texture(shift) for shift in (0, 4, 8)]
        for before, after in zip(frames, with_frames_between(frames, 0), strict=True):
            assert after is before

    def test_what_stands_still_is_repeated(self) -> None:
        for count, channels in product((1, 3), (1, 3)):
            still_frame = self.texture(0)[..., :channels]
            frames = list(with_frames_between([still_frame] * 3, count))
            assert len(frames) == 3 + 2 * count
            for each in frames:
                np.testing.assert_array_equal(each, still_frame, strict=True)

    def test_what_moves_is_found_on_its_way(self) -> None:
        inside = np.s_[8:-8, 12:-12]
        for shift in (4, -6):
            frames = list(with_frames_between([self.texture(0), self.texture(shift)], 3))
            assert len(frames) == 5
            for number, found in enumerate(frames):
                expected = self.texture(shift * number / 4)
                assert np.abs(found[inside].astype(int) - expected[inside]).mean() < self.FLOW, (shift, number)

    # The mean of both neighbours gives 28.0 dB, the flow of the first one alone 37.2
    def test_a_real_frame_is_found_between_two_that_are_six_apart(self, shared: Path) -> None:
        frames = shared / "data" / "GOPRO_Large_all" / "train" / "GOPR0477_11_00"
        first, middle, last = (read(frames / f"{166 + number:06d}.png")[..., ::-1] for number in (0, 3, 6))
        found = list(with_frames_between([first, last], 1))[1]
        error = np.mean((found.astype(float) - middle) ** 2)
        assert 10 * np.log10(255**2 / error) > 37.5

    def test_the_nearer_frame_weighs_more(self) -> None:
        for expected in ([100, 125, 150, 175, 200], [200, 150, 100]):
            frames = [np.full((16, 16, 3), level, dtype=np.uint8) for level in (expected[0], expected[-1])]
            found = [int(each[8, 8, 0]) for each in with_frames_between(frames, len(expected) - 2)]
            assert found == expected

    # Samples a pixel apart of a wave of 24 pixels: amplitude sin(7 pi / 24) / (7 sin(pi / 24)) = 0.868 of 7 samples;
    # the two frames alone, six pixels apart, give cos(pi / 4) = 0.707
    def test_the_blur_of_a_wave_is_that_of_steady_motion(self) -> None:
        y, x = np.mgrid[:64, :144].astype(np.float64)
        first, second = (
            np.round(127.5 + 80 * np.sin(2 * np.pi * (x - shift) / 24) + 20 * np.sin(y / 3)).astype(np.uint8)[..., None]
            for shift in (0, 6)
        )

        def amplitude(image: Frame) -> float:
            middle = image[16:48, 24:120, 0].mean(axis=0)
            return float(abs(np.fft.rfft(middle)[96 // 24]) * 2 / 96 / 80)

        assert amplitude(average_frames([first, second], 1)) == pytest.approx(0.707, abs=0.01)
        assert amplitude(average_frames(with_frames_between([first, second], 5), 1)) == pytest.approx(0.868, abs=0.01)

    def test_as_many_as_motion_has_pixels(self) -> None:
        for shift, count in ((0.0, 0), (3.6, 3), (5.6, 5)):
            frames = [self.texture(0), self.texture(shift)]
            assert len(list(with_frames_between(frames))) == pytest.approx(2 + count, abs=1 if shift else 0), shift

    def test_never_more_than_fifteen(self, rng: np.random.Generator) -> None:
        picture = cv2.GaussianBlur(rng.integers(0, 256, (128, 256, 3), dtype=np.uint8), (0, 0), 4)
        frames = [cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)[:, start : start + 200] for start in (0, 40)]
        assert len(list(with_frames_between(frames))) == 2 + 15

    def test_frames_too_small_or_of_two_sizes_are_refused(self) -> None:
        message = r"frames between: expected one size of at least 12 pixels a side, got \(1, 2, 1\) and \(1, 2, 1\)"
        with pytest.raises(BlurError, match=message):
            list(with_frames_between([frame(1, 2), frame(1, 2)]))
        with pytest.raises(BlurError, match=r"got \(64, 96, 3\) and \(64, 90, 3\)"):
            list(with_frames_between([self.texture(0), self.texture(0)[:, :90]]))


class TestShake:
    def test_a_camera_that_stands_still_leaves_every_level_alone(self) -> None:
        levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        for gamma, poses in product((1.0, 2.2), (1, 17)):
            np.testing.assert_array_equal(shake(levels, still(poses), gamma), levels)

    def test_a_camera_that_stands_still_leaves_a_photograph_alone(self, shared: Path) -> None:
        photograph = read(shared / "data" / "kodak24_500" / "kodim01.png")
        np.testing.assert_array_equal(shake(photograph, still(5)), photograph)

    def test_one_whole_shift_moves_the_picture(self, picture: Frame) -> None:
        height, width = picture.shape[:2]
        for x, y in ((3, 0), (0, 2), (-4, 5), (3, -2)):
            moved = shake(picture, shifted((x, y)))
            # the pixel at (u, v) comes from (u - x, v - y) where that lies within the picture
            inside = np.s_[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
            origin = np.s_[max(-y, 0) : height + min(-y, 0), max(-x, 0) : width + min(-x, 0)]
            np.testing.assert_array_equal(moved[inside], picture[origin])

    def test_edges_are_mirrored(self, picture: Frame) -> None:
        moved = shake(picture, shifted((2, 0)))
        np.testing.assert_array_equal(moved[:, :2], picture[:, 1::-1])

    def test_a_quarter_turn_turns_about_the_centre(self, rng: np.random.Generator) -> None:
        picture = rng.integers(0, 256, (15, 15, 3), dtype=np.uint8)
        turned = shake(picture, CameraPath(np.zeros((1, 2)), np.array([np.pi / 2])))
        np.testing.assert_array_equal(turned, np.rot90(picture))

    # A step 0 0 255 255 seen half the time where it is and half the time one pixel to the right: the first bright
    # pixel gets half the light: 255 / 2 at gamma 1, 255 * 0.5^(1/2.2) = 186.08 at gamma 2.2. Half a pixel: the same.
    def test_poses_are_averaged_in_linear_light(self) -> None:
        step = np.tile(frame(0, 0, 255, 255), (3, 1, 3))
        for (gamma, half), path in product(((1.0, 127), (2.2, 186)), (shifted((0, 0), (1, 0)), shifted((0.5, 0)))):
            np.testing.assert_array_equal(shake(step, path, gamma), np.tile(frame(0, 0, half, 255), (3, 1, 3)))

    def test_the_order_of_the_poses_is_of_no_account(self, picture: Frame, rng: np.random.Generator) -> None:
        path = random_path(rng, 5, 4.0, rotation=0.01)
        backwards = CameraPath(path.shifts[::-1], path.angles[::-1])
        difference = shake(picture, path).astype(int) - shake(picture, backwards)
        assert np.abs(difference).max() <= 1  # sums of float32 in another order may cross a whole number

    def test_the_photograph_stays_as_it_is(self, picture: Frame) -> None:
        before = picture.copy()
        shake(picture, shifted((1.5, 0.5), (0, 0)))
        np.testing.assert_array_equal(picture, before)


class TestRandomPath:
    def test_the_middle_pose_is_the_sharp_images(self, rng: np.random.Generator) -> None:
        for poses in (3, 7, 17, 49, 99):
            path = random_path(rng, poses, 20.0, rotation=0.1)
            assert path.shifts.shape == (poses, 2)
            assert path.angles.shape == (poses,)
            np.testing.assert_array_equal(path.shifts[poses // 2], [0, 0])
            assert abs(path.angles[poses // 2]) <= LINSPACE_ROUNDING

    def test_the_ends_are_length_apart_along_the_direction(self, rng: np.random.Generator) -> None:
        for direction in (0.0, 0.7, np.pi / 2, 3.0):
            path = random_path(rng, 9, 6.0, direction, spread=0.0)
            expected = 6 * np.array([np.cos(direction), np.sin(direction)])
            np.testing.assert_allclose(path.shifts[-1] - path.shifts[0], expected, rtol=0, atol=FLOAT64)

    def test_the_spread_bounds_the_direction(self, rng: np.random.Generator) -> None:
        def headings(spread: float) -> NDArray[np.float64]:
            ends = [random_path(rng, 3, 1.0, 0.5, spread).shifts for _ in range(300)]
            x, y = np.array([end[-1] - end[0] for end in ends]).T
            return np.arctan2(y, x) - 0.5

        narrow = headings(0.3)
        assert np.abs(narrow).max() <= 0.3 + FLOAT64
        assert narrow.min() < -0.25
        assert narrow.max() > 0.25
        quarters = np.floor((headings(np.pi) + 0.5) / (np.pi / 2))
        assert len(np.unique(quarters)) == 4  # any direction

    def test_the_camera_never_goes_back_and_bends_and_changes_its_speed(self, rng: np.random.Generator) -> None:
        paths = [random_path(rng, 17, 10.0, spread=0.0).shifts for _ in range(50)]
        steps = [np.diff(shifts[:, 0]) for shifts in paths]
        assert min(step.min() for step in steps) > 0
        assert np.median([step.max() / step.min() for step in steps]) > 1.5
        assert np.median([np.ptp(shifts[:, 1]) for shifts in paths]) > 0.3

    def test_the_rotation_is_even_and_within_its_bound(self, rng: np.random.Generator) -> None:
        paths = [random_path(rng, 9, 1.0, rotation=0.02) for _ in range(200)]
        ends = np.array([path.angles[-1] for path in paths])
        assert 0.018 < ends.max() <= 0.02
        assert -0.02 <= ends.min() < -0.018
        for path in paths:
            np.testing.assert_allclose(path.angles, path.angles[-1] * np.linspace(-1, 1, 9), rtol=0, atol=FLOAT64)

    def test_there_is_no_rotation_where_none_is_asked_for(self, rng: np.random.Generator) -> None:
        assert not random_path(rng, 9, 1.0).angles.any()

    def test_the_seed_decides(self) -> None:
        first, again, other = (random_path(np.random.default_rng(seed), 5, 3.0).shifts for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other)

    def test_poses_without_a_middle_are_refused(self, rng: np.random.Generator) -> None:
        for poses in (-1, 0, 1, 2, 4, 16):
            with pytest.raises(BlurError, match=rf"random_path: poses: expected an odd number from 3, got {poses}$"):
                random_path(rng, poses, 5.0)
