"""SSIM against Wang et al.'s formula written out in NumPy, and against values worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d
from skimage.metrics import structural_similarity

from reblur_plugin import host
from reblur_plugin.errors import MetricError
from reblur_plugin.metrics.ssim_metric import Window, reblur_ssim

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
ORDER_OF_SUMS = 1e-10  # all are float64; they add in different orders


def ssim_of_wang(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return SSIM of one channel: 11x11 Gaussian of sigma 1.5 that sums to 1, only where it lies within the image."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(taps, taps) / taps.sum() ** 2

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return convolve2d(values, window, mode="valid")

    x, y = x.astype(np.float64), y.astype(np.float64)
    mean_x, mean_y = mean(x), mean(y)
    variance_x, variance_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return float((numerator / ((mean_x**2 + mean_y**2 + C1) * (variance_x + variance_y + C2))).mean())


@pytest.fixture
def pair(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a smooth random image and a noisy copy, of odd size; channels differ in their noise."""
    y, x = np.mgrid[:37, :45]
    clean = 127 + 90 * np.sin(x / 7)[..., None] * np.cos(y[..., None] / (3, 5, 9))
    noisy = clean + rng.normal(0, (5, 15, 40), clean.shape)
    return clean.astype(np.uint8), np.clip(noisy, 0, 255).astype(np.uint8)


class TestSsim:
    def test_it_is_wangs_formula_by_channel_without_the_borders(
        self, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    ) -> None:
        channels = [ssim_of_wang(pair[0][..., channel], pair[1][..., channel]) for channel in range(3)]
        assert max(channels) - min(channels) > 0.3
        assert reblur_ssim(*pair) == pytest.approx(np.mean(channels), rel=ORDER_OF_SUMS, abs=0)

    @pytest.mark.parametrize(("level", "other"), [(0, 255), (100, 150), (7, 8)])
    def test_flat_images_differ_by_their_means_alone(self, level: int, other: int) -> None:
        images = (np.full((16, 16, 3), value, dtype=np.uint8) for value in (level, other))
        # no variance: the second factor is C2 / C2 = 1
        expected = (2 * level * other + C1) / (level**2 + other**2 + C1)
        assert reblur_ssim(*images) == pytest.approx(expected, rel=ORDER_OF_SUMS, abs=0)

    def test_an_image_is_like_itself(self, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        assert reblur_ssim(pair[1], pair[1]) == pytest.approx(1, rel=ORDER_OF_SUMS, abs=0)

    def test_both_orders_of_channels_and_of_images_give_the_same(
        self, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    ) -> None:
        value = reblur_ssim(*pair)
        assert reblur_ssim(pair[1], pair[0]) == pytest.approx(value, rel=ORDER_OF_SUMS, abs=0)
        assert reblur_ssim(pair[0][..., ::-1], pair[1][..., ::-1]) == pytest.approx(value, rel=ORDER_OF_SUMS, abs=0)

    def test_the_border_is_left_out_at_each_edge(self, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        spoilt = pair[1].copy()
        spoilt[:4] = spoilt[-4:] = 0
        spoilt[:, :4] = spoilt[:, -4:] = 255
        channels = [ssim_of_wang(pair[0][4:-4, 4:-4, channel], pair[1][4:-4, 4:-4, channel]) for channel in range(3)]
        assert reblur_ssim(pair[0], spoilt, crop_border=4) == pytest.approx(np.mean(channels), rel=ORDER_OF_SUMS, abs=0)


def test_an_image_below_the_window_has_none_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    small = np.zeros((10, 30, 3), dtype=np.uint8)
    with caplog.at_level("WARNING", logger="basicsr"):
        assert math.isnan(reblur_ssim(small, small))
    assert "SSIM: expected at least 11x11 pixels, got 30x10; left out" in caplog.text


def matlabs_volume(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return MATLAB's `ssim` of two colour images: one window over rows, columns and channels, edges repeated."""
    taps = torch.exp(-(torch.arange(-5, 6, dtype=torch.float64) ** 2) / (2 * 1.5**2))
    window = torch.einsum("i,j,k->ijk", taps, taps, taps) / taps.sum() ** 3

    def mean(values: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(values[None, None], (5,) * 6, mode="replicate")
        return torch.nn.functional.conv3d(padded, window[None, None])[0, 0]

    a, b = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y.astype(np.float64))
    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    top = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return float((top / ((mean_a**2 + mean_b**2 + C1) * (variances + C2))).mean())


class TestForms:
    def test_uniform_is_scikit_images_default(self, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        expected = structural_similarity(*pair, channel_axis=-1)
        assert reblur_ssim(*pair, window="uniform") == pytest.approx(expected, rel=ORDER_OF_SUMS, abs=0)

    def test_volume_is_matlabs(self, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        found = reblur_ssim(*pair, window="volume")
        assert found == pytest.approx(matlabs_volume(*pair), rel=ORDER_OF_SUMS, abs=0)
        assert abs(found - reblur_ssim(*pair)) > 0.01  # and no other form

    def test_on_real_photographs_each_form_is_its_references(self, shared: Path) -> None:
        folder = shared / "data" / "GOPRO_Large" / "test"
        pairs = sorted(folder.rglob("blur/*.png"))
        assert len(pairs) == 4
        for path in pairs:
            blurry, sharp = (cv2.imread(str(one)) for one in (path, path.parent.parent / "sharp" / path.name))
            gaussian = structural_similarity(
                blurry, sharp, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
            )
            uniform = structural_similarity(blurry, sharp, channel_axis=-1)
            of_basicsr = host.registry.METRIC_REGISTRY.get("calculate_ssim")(blurry, sharp, crop_border=0)
            assert reblur_ssim(blurry, sharp) == pytest.approx(gaussian, rel=ORDER_OF_SUMS, abs=0)
            assert reblur_ssim(blurry, sharp) == pytest.approx(of_basicsr, rel=ORDER_OF_SUMS, abs=0)
            assert reblur_ssim(blurry, sharp, window="uniform") == pytest.approx(uniform, rel=ORDER_OF_SUMS, abs=0)

    def test_an_image_as_small_as_a_window_has_each_form(self) -> None:
        small = np.arange(11 * 11 * 3, dtype=np.uint8).reshape(11, 11, 3)
        assert [reblur_ssim(small, small, window=form) for form in get_args(Window)] == pytest.approx([1, 1, 1])

    def test_an_unknown_form_is_refused_with_the_known_ones(self) -> None:
        small = np.zeros((16, 16, 3), dtype=np.uint8)
        with pytest.raises(MetricError, match="window: expected a known form, got 'gausian'; did you mean gaussian"):
            reblur_ssim(small, small, window="gausian")  # type: ignore[arg-type]
