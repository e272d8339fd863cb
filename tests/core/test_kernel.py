"""The kernel between two images: found back where it is known, and equal to the dense solution of the same problem."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d
from torch import Tensor

from reblur_plugin.core.kernel import KernelError, least_squares_kernel, residual_kernel

SIDE, SIZE = 96, 9
EXACT = 1e-10  # regularisation so weak that kernels of noise-free images are found to six digits


def scene(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return chance in the middle of grey, far enough from the edge for a kernel of nine pixels."""
    pixels = np.full((SIDE, SIDE), 0.5)
    pixels[20:-20, 20:-20] += rng.uniform(-0.4, 0.4, (SIDE - 40, SIDE - 40))
    return pixels


def tensor(pixels: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(pixels)[None, None].expand(1, 3, -1, -1)


def motion() -> NDArray[np.float64]:
    """Return a bent stroke without any symmetry, of sum 1."""
    kernel = np.zeros((SIZE, SIZE))
    for row, column, weight in ((2, 1, 1), (3, 2, 2), (4, 4, 2), (4, 5, 1), (5, 7, 4)):
        kernel[row, column] = weight / 10
    return kernel


class TestResidualKernel:
    def test_a_known_kernel_is_found_back(self, rng: np.random.Generator) -> None:
        sharp = scene(rng)
        blurry = convolve2d(sharp, motion(), mode="same", boundary="symm")
        found = residual_kernel(tensor(sharp), tensor(blurry), SIZE, beta=EXACT)
        np.testing.assert_allclose(found, motion(), atol=1e-6)

    def test_of_two_equal_images_it_is_a_point(self, rng: np.random.Generator) -> None:
        point = torch.zeros(SIZE, SIZE, dtype=torch.float64)
        point[SIZE // 2, SIZE // 2] = 1
        image = tensor(scene(rng))
        assert torch.equal(residual_kernel(image, image, SIZE), point)

    def test_on_a_photograph_it_is_a_point_or_the_blur(self, shared: Path) -> None:
        pixels = cv2.imread(str(shared / "data" / "kodak24_500" / "kodim23.png")) / 255
        stroke = np.full((1, 7), 1 / 7)
        blurry = np.stack([convolve2d(pixels[..., c], stroke, "same", "symm") for c in range(3)], axis=-1)
        sharp, blurred = (torch.from_numpy(image.transpose(2, 0, 1))[None] for image in (pixels, blurry))
        assert residual_kernel(sharp, sharp, 15)[7, 7] == 1
        found = residual_kernel(sharp, blurred, 15)
        np.testing.assert_allclose(found[7, 4:11], np.full(7, 1 / 7), atol=0.01)

    def test_the_edge_of_the_window_isnt_taken_for_one_of_the_scene(self, rng: np.random.Generator) -> None:
        ramp = np.linspace(0, 1, SIDE)[None]  # its far ends differ by the whole range
        texture = 0.1 * (scene(rng) - 0.5)
        sharp, blurry = ramp + texture, ramp + convolve2d(texture, motion(), mode="same")
        found = residual_kernel(tensor(sharp), tensor(blurry), SIZE)
        np.testing.assert_allclose(found, motion(), atol=0.02)

    def test_only_the_window_at_the_centre_counts(self, rng: np.random.Generator) -> None:
        sharp = scene(rng)
        blurry = convolve2d(sharp, motion(), mode="same", boundary="symm")
        frame = rng.uniform(size=(2, SIDE + 60, SIDE + 44))
        frame[:, 30:-30, 22:-22] = sharp, blurry
        found = residual_kernel(tensor(frame[0]), tensor(frame[1]), SIZE, window=SIDE, beta=EXACT)
        np.testing.assert_allclose(found, motion(), atol=1e-6)

    def test_brightness_doesnt_count(self, rng: np.random.Generator) -> None:
        sharp = scene(rng)
        blurry = convolve2d(sharp, motion(), mode="same", boundary="symm")
        found = residual_kernel(tensor(sharp), tensor(0.1 + blurry), SIZE, beta=EXACT)
        np.testing.assert_allclose(found, motion(), atol=1e-6)

    def test_it_is_never_negative_and_sums_to_one(self, rng: np.random.Generator) -> None:
        found = residual_kernel(*(torch.from_numpy(rng.uniform(size=(1, 3, 70, 90))) for _ in range(2)), size=11)
        assert found.shape == (11, 11)
        assert found.dtype == torch.float64
        assert found.min() >= 0
        assert found.sum().item() == pytest.approx(1)
        assert ((found == 0) | (found >= found.max() / 20)).all()


class TestLeastSquares:
    def test_it_solves_the_dense_problem(self, rng: np.random.Generator) -> None:
        height, width, beta = 5, 6, 0.3
        gradients, blurrier = rng.standard_normal((2, 2, height, width))
        # Column (u, v) of the matrix is g moved by (u, v): k * g = sum over (u, v) of k[u, v] g[y - u, x - v]
        matrix = np.stack(
            [np.roll(gradients, (u, v), axis=(1, 2)).ravel() for u in range(height) for v in range(width)], axis=1
        )
        # The mean over n frequencies of |F g|^2 is the sum of g^2 (Parseval)
        normal = matrix.T @ matrix + beta * (gradients**2).sum() * np.eye(height * width)
        # With a multiplier for the sum: N k + m = M^T b, sum k = 1
        ones = np.ones((height * width, 1))
        system = np.block([[normal, ones], [ones.T, np.zeros((1, 1))]])
        solution = np.linalg.solve(system, np.append(matrix.T @ blurrier.ravel(), 1))
        expected = solution[:-1].reshape(height, width)
        found = least_squares_kernel(torch.from_numpy(gradients), torch.from_numpy(blurrier), beta)
        np.testing.assert_allclose(found, expected, atol=1e-12)


class TestRefusals:
    @pytest.mark.parametrize("size", [0, 8, 33])
    def test_sizes_that_make_no_kernel(self, size: int) -> None:
        image = torch.rand(1, 3, 96, 120)
        with pytest.raises(
            KernelError, match=f"expected an odd size of at most a third of the 96 pixels.*, got {size}"
        ):
            residual_kernel(image, image, size)

    def test_images_of_different_size(self) -> None:
        with pytest.raises(KernelError, match=r"kernel: expected images of one size, got \(1, 3, 96, 96\) and"):
            residual_kernel(torch.rand(1, 3, 96, 96), torch.rand(1, 3, 96, 95))

    @pytest.mark.parametrize("flat", [0, 1])
    def test_a_flat_image(self, flat: int) -> None:
        images = [torch.rand(1, 3, 96, 96), torch.rand(1, 3, 96, 96)]
        images[flat] = torch.full((1, 3, 96, 96), 0.5)
        with pytest.raises(KernelError, match="kernel: an image is flat at its centre"):
            residual_kernel(*images)
