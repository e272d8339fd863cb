"""PSNR and SSIM of batches beside BasicSR's and scikit-image's, which the option files name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from reblur_plugin.errors import MetricError
from reblur_plugin.metrics import on_device
from reblur_plugin.metrics.ssim_metric import reblur_ssim

ROUNDING = 1e-10  # both sides compute in double precision


@pytest.fixture
def pairs(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Three pairs (H, W, 3) of odd size: noise and what is left of it in two ways, and smooth pictures."""
    sharp = rng.integers(0, 256, (3, 37, 52, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:37, :52]
    sharp[2] = (rows * 3 + columns)[..., None] % 256
    images = sharp.copy()
    images[0] = sharp[0] // 2 + 7
    images[1, :, :, 1] = 255 - sharp[1, :, :, 1]  # one channel alone
    images[2] = np.roll(sharp[2], 2, axis=1)
    return images, sharp


def batch(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


class TestSSIM:
    def test_is_scikit_images_for_each_image(self, pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        expected = [
            structural_similarity(
                image, sharp, channel_axis=-1, data_range=255, gaussian_weights=True, use_sample_covariance=False
            )
            for image, sharp in zip(*pairs, strict=True)
        ]
        found = on_device.ssim(*map(batch, pairs)).tolist()
        assert found == pytest.approx(expected, rel=ROUNDING)
        assert len({round(value, 3) for value in expected}) == 3

    def test_of_constant_images_by_hand(self) -> None:
        # no variance: (2 * 100 * 50 + C1) / (100^2 + 50^2 + C1), C1 = 2.55^2 = 6.5025
        images, sharp = torch.full((1, 1, 11, 11), 100.0), torch.full((1, 1, 11, 11), 50.0)
        assert on_device.ssim(images, sharp).item() == pytest.approx(10006.5025 / 12506.5025, rel=ROUNDING)

    def test_is_one_for_equal_images_and_nan_without_a_whole_window(self) -> None:
        image = torch.randint(0, 256, (2, 3, 11, 20), dtype=torch.uint8)
        assert on_device.ssim(image, image).tolist() == [1.0, 1.0]
        assert all(map(math.isnan, on_device.ssim(image[..., :10], image[..., :10]).tolist()))

    def test_pictures_become_batches_as_they_are(self, pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        image, sharp = (images[0][..., ::-1] for images in pairs)  # a view, as BasicSR's BGR is
        found = on_device.ssim(on_device.batch([image], "cpu"), on_device.batch([sharp], "cpu"))
        assert found.item() == pytest.approx(reblur_ssim(image, sharp), rel=ROUNDING)


class TestPSNR:
    def test_is_the_usual_one_for_each_image(self, pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        expected = [peak_signal_noise_ratio(sharp, image) for image, sharp in zip(*pairs, strict=True)]
        assert on_device.psnr(*map(batch, pairs)).tolist() == pytest.approx(expected, rel=ROUNDING)

    def test_by_hand(self) -> None:
        # a quarter of the values differs by 2: mean square 1, 20 log10 255
        sharp = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
        image = sharp.clone()
        image[..., 0] = 2
        assert on_device.psnr(image, sharp).item() == pytest.approx(20 * math.log10(255), rel=ROUNDING)
        assert on_device.psnr(sharp, sharp).item() == math.inf

    def test_is_basicsrs(self, pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
        from reblur_plugin import host

        host.prepare()
        from basicsr.metrics import calculate_psnr

        expected = [calculate_psnr(image, sharp, crop_border=0) for image, sharp in zip(*pairs, strict=True)]
        assert on_device.psnr(*map(batch, pairs)).tolist() == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("metric", [on_device.psnr, on_device.ssim])
def test_images_must_fit(metric: object) -> None:
    with pytest.raises(MetricError, match=r"of one shape, got \(1, 3, 12, 12\) and \(1, 3, 12, 13\); crop or resize"):
        metric(torch.zeros(1, 3, 12, 12), torch.zeros(1, 3, 12, 13))  # type: ignore[operator]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same(pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    for metric in (on_device.psnr, on_device.ssim):
        found = metric(*(batch(images).cuda() for images in pairs))
        torch.testing.assert_close(found.cpu(), metric(*map(batch, pairs)), rtol=1e-10, atol=0)
