"""Gradient energy beside the sharp image's, and grey levels off it: both by sums written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reblur_plugin.host import registry
from reblur_plugin.metrics.brightness_metric import reblur_brightness
from reblur_plugin.metrics.sharpness_metric import reblur_sharpness
from reblur_plugin.registration import register

# One row of neighbours that differ by 10 and 20, in each channel; rows are alike
SHARP = np.repeat(np.array([[[0], [10], [30]], [[0], [10], [30]]], dtype=np.uint8), 3, axis=2)


class TestSharpness:
    def test_it_is_the_ratio_of_mean_squared_differences(self) -> None:
        half = SHARP // 2  # differences 5 and 10: a quarter of the energy
        assert reblur_sharpness(SHARP, SHARP) == 1
        assert reblur_sharpness(half, SHARP) == pytest.approx((25 + 100) / (100 + 400))

    def test_both_directions_and_all_channels_count(self) -> None:
        standing = SHARP.transpose(1, 0, 2).copy()
        assert reblur_sharpness(standing, SHARP) == pytest.approx(1)
        one = SHARP.copy()
        one[..., 1:] = 0
        assert reblur_sharpness(one, SHARP) == pytest.approx(1 / 3)

    def test_a_change_of_brightness_is_none_of_sharpness(self) -> None:
        assert reblur_sharpness(SHARP + 100, SHARP) == 1

    def test_dark_to_bright_doesnt_wrap(self) -> None:
        steps = np.array([[[0], [255], [0]]] * 2, dtype=np.uint8)
        assert reblur_sharpness(steps, SHARP) == pytest.approx(2 * 255**2 / (100 + 400))

    def test_a_border_is_left_out(self) -> None:
        framed = np.pad(SHARP, ((1, 1), (1, 1), (0, 0)), constant_values=200)
        assert reblur_sharpness(framed, np.pad(SHARP // 2, ((1, 1), (1, 1), (0, 0))), crop_border=1) == pytest.approx(4)

    def test_without_gradient_there_is_no_ratio(self) -> None:
        assert math.isnan(reblur_sharpness(SHARP, np.full_like(SHARP, 9)))


class TestBrightness:
    def test_it_is_the_difference_of_means_whatever_its_sign(self) -> None:
        for change in (4, -3):
            moved = (SHARP.astype(int) + 50 + change).astype(np.uint8)
            assert reblur_brightness(moved, SHARP + 50) == pytest.approx(abs(change))

    def test_channels_dont_make_up_for_each_other(self) -> None:
        tinted = SHARP + np.array([6, 0, 0], dtype=np.uint8)
        pale = SHARP + np.array([0, 0, 6], dtype=np.uint8)
        assert reblur_brightness(tinted, pale) == pytest.approx((6 + 0 + 6) / 3)

    def test_a_border_is_left_out(self) -> None:
        framed = np.pad(SHARP, ((1, 1), (1, 1), (0, 0)), constant_values=200)
        assert reblur_brightness(framed, np.pad(SHARP, ((1, 1), (1, 1), (0, 0))), crop_border=1) == 0


def test_option_files_name_them() -> None:
    register()
    assert registry.METRIC_REGISTRY.get("reblur_sharpness") is reblur_sharpness
    assert registry.METRIC_REGISTRY.get("reblur_brightness") is reblur_brightness
