"""NIQE of batches beside BasicSR's, which the option files name."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reblur_plugin.metrics import on_device
from reblur_plugin.metrics.niqe_metric import reblur_niqe
from reblur_plugin.metrics.niqe_on_device import niqe

# BasicSR halves the image in float32, by sums whose order its linear algebra library chooses.
TEXTURED = {"abs": 1e-5, "rel": 1e-6}
SMOOTH, TYPICAL = 2e-3, 1e-4  # where variances are what rounding leaves: at most 9e-4 on 45 photographs


@pytest.fixture
def textures(rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Return noise of four sorts, the last black and white, BGR, three blocks by two and a rest."""
    noise = rng.integers(0, 256, (4, 200, 290, 3), dtype=np.uint8)
    noise[0] //= 3
    noise[3] = 255 * (noise[3, ..., :1] // 128)
    return [noise[0], cv2.GaussianBlur(noise[1], (5, 5), 1.0), cv2.medianBlur(noise[2], 3), noise[3]]


def batch(pictures: list[NDArray[np.uint8]], device: str = "cpu") -> torch.Tensor:
    return on_device.batch([picture[..., ::-1] for picture in pictures], device)


class TestNiqe:
    def test_is_basicsrs_for_each_image(self, textures: list[NDArray[np.uint8]]) -> None:
        expected = [reblur_niqe(picture) for picture in textures]
        assert niqe(batch(textures)).tolist() == pytest.approx(expected, **TEXTURED)
        assert len({round(value, 1) for value in expected}) == 4

    def test_of_photographs_with_smooth_skies(self, shared: Path) -> None:
        paths = sorted((shared / "data" / "kodak24_500").glob("*.png"))[:6]
        pictures = [cv2.imread(str(path)) for path in paths]
        differences = niqe(batch(pictures)) - torch.tensor([reblur_niqe(picture) for picture in pictures])
        assert differences.abs().max() < SMOOTH
        assert differences.abs().median() < TYPICAL

    def test_flat_areas_are_smooth_not_rough(self, textures: list[NDArray[np.uint8]]) -> None:
        """A white sky: rounding must not make texture of it, at full size or at half."""
        picture = textures[1]
        picture[:100] = 255
        assert niqe(batch([picture])).item() == pytest.approx(reblur_niqe(picture), **TEXTURED)

    def test_an_image_without_texture_has_none(self, textures: list[NDArray[np.uint8]]) -> None:
        flat = np.full_like(textures[0], 77)
        one_block = flat.copy()
        one_block[5:90, 5:90] = textures[0][5:90, 5:90]
        *without, found = niqe(batch([flat, one_block, textures[0]])).tolist()
        assert all(map(math.isnan, [*without, reblur_niqe(one_block)]))
        assert found == pytest.approx(reblur_niqe(textures[0]), **TEXTURED)

    def test_nothing_has_to_be_imported_before(self) -> None:
        code = (
            "import torch; from reblur_plugin.metrics.niqe_on_device import niqe; "
            "assert niqe(torch.randint(0, 256, (1, 3, 96, 192), dtype=torch.uint8)) > 0"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    def test_a_gpu_gives_the_same(self, textures: list[NDArray[np.uint8]]) -> None:
        torch.testing.assert_close(niqe(batch(textures, "cuda")), niqe(batch(textures)), rtol=0, atol=1e-4)
