"""Random crops and augmentation of training pairs, in the order of the first author's code (D13).

Images are `(H, W, 3)`, RGB, as stored (8 or 16 bits) or float32 in [0, 1]; what changes values gives floats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from reblur_plugin.data.images import to_float

Image = NDArray[Any]
Images = tuple[Image, Image]


def random_crop(images: Images, size: int, rng: np.random.Generator) -> Images:
    """Return the same random `size` x `size` window of the blurry and the sharp image."""
    height, width = images[0].shape[:2]
    top, left = (int(rng.integers(extent - size + 1)) for extent in (height, width))
    blurry, sharp = (image[top : top + size, left : left + size] for image in images)
    return blurry, sharp


def flip(images: Images, rng: np.random.Generator) -> Images:
    """Return both images mirrored left-right, top-down and along the diagonal, each with probability 1/2."""
    horizontal, vertical, transpose = rng.random(3) < 0.5

    def apply(image: Image) -> Image:
        image = image[:, ::-1] if horizontal else image
        image = image[::-1] if vertical else image
        return image.transpose(1, 0, 2) if transpose else image

    return apply(images[0]), apply(images[1])


def change_colours(images: Images, rng: np.random.Generator) -> Images:
    """Return both images with their channels permuted and their HSV saturation times U(0.5, 1.5)."""
    order, factor = rng.permutation(3), np.float32(rng.uniform(0.5, 1.5))

    def apply(image: Image) -> Image:
        permuted = cv2.merge([image[..., channel] for channel in order])  # before it is float: less to move
        hsv = cv2.cvtColor(to_float(permuted), cv2.COLOR_RGB2HSV)
        hsv[..., 1] = np.clip(hsv[..., 1] * factor, 0, 1)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    return apply(images[0]), apply(images[1])


def add_noise(images: Images, rng: np.random.Generator) -> Images:
    """Return the pair with Gaussian noise on the blurry image: sigma = |N(0, 1)| * 2/255, clipped to [0, 1]."""
    blurry, sharp = to_float(images[0]), images[1]
    sigma = abs(rng.standard_normal()) * 2 / 255
    source = torch.Generator().manual_seed(int(rng.integers(2**63)))  # twice as fast as NumPy's
    noise = torch.randn(blurry.shape, generator=source).mul_(sigma).numpy()
    return np.clip(blurry + noise, 0, 1), sharp


def augment_nah(images: Images, rng: np.random.Generator) -> Images:
    """Return the pair augmented as in the first author's code: flips, colours, noise."""
    return add_noise(change_colours(flip(images, rng), rng), rng)


def keep(images: Images, rng: np.random.Generator) -> Images:
    """Return the pair as it is."""
    return images


AUGMENTATIONS: dict[str, Callable[[Images, np.random.Generator], Images]] = {
    "nah": augment_nah,
    "flip": flip,
    "none": keep,
}
