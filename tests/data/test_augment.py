"""Augmentation of pairs: the eight symmetries, colours worked out by hand, noise by its statistics."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reblur_plugin.data.augment import (
    AUGMENTATIONS,
    Image,
    Images,
    add_noise,
    augment_nah,
    change_colours,
    flip,
    keep,
    random_crop,
)

FIVE_SIGMA = 5.0  # of a binomial or mean; all draws are seeded
HSV_ROUNDING = 1e-6  # OpenCV computes HSV and back in float32 on [0, 1]


class Chosen:
    """A source of randomness that gives what the test chose."""

    def __init__(self, order: tuple[int, int, int], factor: float) -> None:
        self.order, self.factor = order, factor

    def permutation(self, count: int) -> NDArray[Any]:
        assert count == 3
        return np.array(self.order)

    def uniform(self, low: float, high: float) -> float:
        assert (low, high) == (0.5, 1.5)
        return self.factor


def numbered(height: int, width: int) -> Image:
    """Return an image whose pixels all differ."""
    return np.arange(height * width * 3, dtype=np.float32).reshape(height, width, 3)


def pixel(*rgb: float) -> Image:
    return np.array(rgb, dtype=np.float32).reshape(1, 1, 3)


class TestRandomCrop:
    def test_both_images_get_the_same_window(self, rng: np.random.Generator) -> None:
        image = numbered(7, 9)
        for _ in range(20):
            blurry, sharp = random_crop((image, image + 1000), 4, rng)
            assert blurry.shape == (4, 4, 3)
            np.testing.assert_array_equal(sharp, blurry + 1000)

    def test_a_window_is_cut_from_the_image_and_every_place_occurs(self, rng: np.random.Generator) -> None:
        image = numbered(5, 6)
        places = {(top, left): image[top : top + 3, left : left + 3] for top in range(3) for left in range(4)}
        seen = set()
        for _ in range(300):
            crop = random_crop((image, image), 3, rng)[0]
            seen |= {place for place, expected in places.items() if np.array_equal(crop, expected)}
        assert seen == set(places)

    def test_an_image_of_that_size_is_taken_whole(self, rng: np.random.Generator) -> None:
        image = numbered(4, 4)
        np.testing.assert_array_equal(random_crop((image, image), 4, rng)[0], image)


class TestFlip:
    def test_the_eight_symmetries_occur_equally_often(self, rng: np.random.Generator) -> None:
        image = numbered(3, 3)
        turns = [np.rot90(image, times) for times in range(4)]
        symmetries = [symmetry.tobytes() for symmetry in turns + [turn[:, ::-1] for turn in turns]]
        assert len(set(symmetries)) == 8
        draws = 1600
        found = [flip((image, image), rng)[0].tobytes() for _ in range(draws)]
        counts = np.array([found.count(symmetry) for symmetry in symmetries])
        assert counts.sum() == draws
        assert np.all(abs(counts - draws / 8) < FIVE_SIGMA * np.sqrt(draws * 1 / 8 * 7 / 8))

    def test_both_images_are_turned_alike(self, rng: np.random.Generator) -> None:
        image = numbered(2, 3)
        shapes = set()
        for _ in range(50):
            blurry, sharp = flip((image, image + 1000), rng)
            shapes.add(blurry.shape)
            np.testing.assert_array_equal(sharp, blurry + 1000)
        assert shapes == {(2, 3, 3), (3, 2, 3)}


class TestChangeColours:
    # V = max and the hue stay; S = (max - min) / max is multiplied. (0.2, 0.4, 0.6) has V = 0.6, S = 2/3 and its middle
    # channel halfway between the least and the greatest.
    def test_saturation_is_multiplied_and_cut_at_one(self) -> None:
        image = pixel(0.2, 0.4, 0.6)
        for factor, expected in (
            (1.0, (0.2, 0.4, 0.6)),
            (0.5, (0.4, 0.5, 0.6)),  # S = 1/3: least 0.4
            (1.25, (0.1, 0.35, 0.6)),  # S = 5/6: least 0.1
            (1.5, (0.0, 0.3, 0.6)),  # S = 1
            (1.6, (0.0, 0.3, 0.6)),  # S = 16/15, cut to 1
        ):
            for result in change_colours((image, image), Chosen((0, 1, 2), factor)):  # type: ignore[arg-type]
                np.testing.assert_allclose(result, pixel(*expected), rtol=0, atol=HSV_ROUNDING)

    def test_channels_are_permuted(self) -> None:
        image, other = pixel(0.2, 0.4, 0.6), pixel(0.9, 0.1, 0.3)
        for order in permutations(range(3)):
            results = change_colours((image, other), Chosen(order, 1.0))  # type: ignore[arg-type]
            for before, after in zip((image, other), results, strict=True):
                np.testing.assert_allclose(after, before[..., list(order)], rtol=0, atol=HSV_ROUNDING)

    def test_every_order_occurs_and_both_images_share_order_and_factor(self, rng: np.random.Generator) -> None:
        orders, factors = set(), []
        for _ in range(200):
            first, second = (
                image.ravel() for image in change_colours((pixel(0.2, 0.4, 0.6), pixel(0.8, 0.6, 0.7)), rng)
            )
            orders.add(tuple(np.argsort(first).tolist()))
            assert np.argmax(second) == np.argmin(first)  # the red channel: greatest there, least here
            factor = (1 - first.min() / 0.6) * 1.5  # S = 2/3 * factor
            saturation = 1 - second.min() / 0.8  # 1/4 * factor
            assert saturation == pytest.approx(factor / 4, abs=10 * HSV_ROUNDING)
            factors.append(factor)
        assert orders == set(permutations(range(3)))
        assert 0.5 - 1e-5 < min(factors) < 0.55
        assert 1.45 < max(factors) < 1.5 + 1e-5

    def test_grey_stays_grey(self, rng: np.random.Generator) -> None:
        image = np.full((2, 2, 3), 0.3, dtype=np.float32)
        for result in change_colours((image, image), rng):
            np.testing.assert_allclose(result, image, rtol=0, atol=HSV_ROUNDING)


class TestAddNoise:
    def test_the_sharp_image_stays_as_it_is(self, rng: np.random.Generator) -> None:
        sharp = np.full((4, 4, 3), 0.5, dtype=np.float32)
        blurry, same = add_noise((sharp, sharp), rng)
        assert same is sharp
        np.testing.assert_array_equal(sharp, np.full((4, 4, 3), 0.5, dtype=np.float32))
        assert blurry.dtype == np.float32
        assert not np.array_equal(blurry, sharp)

    def test_sigma_is_half_normal_with_scale_2_of_255(self, rng: np.random.Generator) -> None:
        image = np.full((16, 16, 3), 0.5, dtype=np.float32)
        draws = 1500
        noise = np.stack([add_noise((image, image), rng)[0] - 0.5 for _ in range(draws)]).reshape(draws, -1)
        units = noise / (2 / 255)
        sigmas = units.std(axis=1)
        # E sigma^2 = 1, Var sigma^2 = 2; the median of |N(0, 1)| is 0.6745; the mean of the noise is 0
        assert abs((sigmas**2).mean() - 1) < FIVE_SIGMA * np.sqrt(2 / draws)
        assert abs((sigmas < 0.6745).mean() - 0.5) < FIVE_SIGMA * np.sqrt(0.25 / draws)
        assert abs(units.mean()) < FIVE_SIGMA / np.sqrt(units.size)

    def test_the_noise_of_one_image_is_gaussian_and_white(self, rng: np.random.Generator) -> None:
        image = np.full((128, 128, 3), 0.5, dtype=np.float32)
        noise = add_noise((image, image), rng)[0] - 0.5
        units = noise / noise.std()
        # a share of 0.6827 within one sigma; neighbours and channels don't correlate
        assert abs((abs(units) < 1).mean() - 0.6827) < FIVE_SIGMA * np.sqrt(0.6827 * 0.3173 / units.size)
        for first, second in (
            (units[1:], units[:-1]),
            (units[:, 1:], units[:, :-1]),
            (units[..., 0], units[..., 1]),
        ):
            assert abs((first * second).mean()) < FIVE_SIGMA / np.sqrt(first.size)

    def test_the_result_is_clipped(self, rng: np.random.Generator) -> None:
        for level in (0.0, 1.0):
            image = np.full((32, 32, 3), level, dtype=np.float32)
            blurry = add_noise((image, image), rng)[0]
            assert 0 <= blurry.min() < blurry.max() <= 1
            assert (blurry == level).mean() > 0.4  # the half that points outwards


class TestAugmentations:
    def test_options_know_these_names(self) -> None:
        assert list(AUGMENTATIONS.items()) == [("nah", augment_nah), ("flip", flip), ("none", keep)]

    def test_none_keeps_the_pair(self, rng: np.random.Generator) -> None:
        pair: Images = (numbered(2, 2), numbered(2, 2))
        assert keep(pair, rng) is pair

    def test_the_seed_decides(self) -> None:
        image = np.random.default_rng(0).random((6, 5, 3), dtype=np.float32)
        for augment in (augment_nah, flip):
            first, again, other = (
                augment((image, image), np.random.default_rng(seed))[0].tobytes() for seed in (1, 1, 2)
            )
            assert first == again
            assert first != other

    def test_nah_turns_and_colours_both_alike_and_adds_noise_to_the_blurry_one(self, rng: np.random.Generator) -> None:
        image = np.random.default_rng(1).uniform(0.2, 0.8, (6, 6, 3)).astype(np.float32)
        brightness = image.max(axis=2)  # V, which colours leave alone
        turns = [np.rot90(brightness, times) for times in range(4)]
        symmetries = turns + [turn[:, ::-1] for turn in turns]
        seen, noises = set(), []
        for _ in range(100):
            blurry, sharp = augment_nah((image, image), rng)
            fits = [np.allclose(sharp.max(axis=2), values, rtol=0, atol=HSV_ROUNDING) for values in symmetries]
            seen.add(fits.index(True))
            assert not np.allclose(np.sort(sharp.reshape(-1, 3), axis=0), np.sort(image.reshape(-1, 3), axis=0))
            noises.append(np.abs(blurry - sharp).max())
        assert seen == set(range(8))
        assert min(noises) > 0
        assert np.median(noises) < 4 * 2 / 255  # sigma is 0.67 * 2/255 in the median, the greatest of 108 below 4 sigma

    @pytest.mark.parametrize("kind", [np.uint8, np.uint16])
    def test_stored_pixels_give_what_their_floats_give(self, kind: Any) -> None:
        top = np.iinfo(kind).max
        stored = np.random.default_rng(2).integers(0, top, (2, 9, 7, 3), dtype=kind, endpoint=True)
        floats = stored.astype(np.float32) / np.float32(top)
        for augment, seed in product(AUGMENTATIONS.values(), range(8)):
            from_stored, from_floats = (
                augment((pair[0], pair[1]), np.random.default_rng(seed)) for pair in (stored, floats)
            )
            for first, second in zip(from_stored, from_floats, strict=True):
                first = first if first.dtype == np.float32 else first.astype(np.float32) / np.float32(top)
                np.testing.assert_array_equal(first, second, strict=True)

    def test_nah_leaves_its_input_alone(self, rng: np.random.Generator) -> None:
        image = np.random.default_rng(1).random((4, 4, 3), dtype=np.float32)
        before = image.copy()
        for _ in range(8):
            augment_nah((image, image), rng)
        np.testing.assert_array_equal(image, before)
