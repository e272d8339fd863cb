"""Algorithm 1, line 10, against ranks and cumulative histograms worked out by hand.

By "skimage" `match_histogram` calls `skimage.exposure.match_histograms` (scikit-image 0.26) on each channel's floats,
by "torch" it computes the same itself; every test runs for both, and the first class asks nobody what is right. By
definition the share of pixels that are at most `v`, the quantile of `v`, is looked up among the reference's quantiles,
linearly in between and clipped at both ends. Between images of one size and with no value twice that is: the k-th
smallest pixel takes the k-th smallest reference value.
"""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
import torch
from skimage.exposure import match_histograms
from torch import Tensor

from reblur_plugin.core.histogram import match_histogram
from reblur_plugin.errors import ReblurError


@pytest.fixture(autouse=True, params=["skimage", "torch"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run every test with each method."""
    chosen = functools.partial(match_histogram, method=request.param)
    monkeypatch.setattr(sys.modules[__name__], "match_histogram", chosen)
    return request.param


def pixels(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a grey image of one row, `(1, 1, 1, W)`."""
    return torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1)


def permuted(count: int, seed: int) -> Tensor:
    """Return 0 ... count - 1 in some order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


class TestHistogramMatching:
    def test_kth_smallest_pixel_takes_the_kth_smallest_reference_value(self) -> None:
        # ranks of the image 2, 0, 3, 1 into the sorted reference (0.1, 0.4, 0.5, 0.9)
        matched = match_histogram(pixels(0.3, 0.0, 0.8, 0.2), pixels(0.9, 0.1, 0.5, 0.4))
        assert torch.equal(matched, pixels(0.5, 0.1, 0.9, 0.4))

    def test_ranks_decide_in_every_channel_by_itself_at_odd_sizes(self) -> None:
        # image: a permutation, so its values are the ranks; reference: sorted values k-th = f(k), shuffled
        height, width = 7, 5
        count = height * width
        ranks = torch.stack([permuted(count, seed) for seed in range(3)])
        ordered = torch.stack([torch.arange(count, dtype=torch.float64) ** power / count for power in (1, 2, 3)])
        shuffled = torch.stack([row[permuted(count, 10 + index)] for index, row in enumerate(ordered)])
        image = ranks.double().reshape(1, 3, height, width)
        expected = torch.stack([row[rank] for row, rank in zip(ordered, ranks, strict=True)]).reshape(
            1, 3, height, width
        )
        assert torch.equal(match_histogram(image, shuffled.reshape(1, 3, height, width)), expected)

    def test_only_the_order_of_the_pixels_counts(self) -> None:
        reference = pixels(0.9, 0.1, 0.5, 0.4)
        # any rising curve on the image leaves the result alone
        for curve in (lambda x: x, lambda x: 3 * x - 1, torch.exp, lambda x: x**3):
            matched = match_histogram(curve(pixels(0.3, 0.1, 0.8, 0.2)), reference)
            assert torch.equal(matched, pixels(0.5, 0.1, 0.9, 0.4))

    def test_a_colour_shift_is_undone(self) -> None:
        initial = torch.tensor([[0.1, 0.7, 0.4], [0.9, 0.2, 0.6]], dtype=torch.float64).reshape(1, 2, 1, 3)
        shift = torch.tensor([0.05, -0.2], dtype=torch.float64).reshape(1, 2, 1, 1)
        assert torch.equal(match_histogram(initial + shift, initial), initial)

    def test_an_image_matches_itself(self) -> None:
        image = pixels(0.3, 0.0, 0.3, 0.2)
        assert torch.equal(match_histogram(image, image), image)

    def test_matching_twice_changes_nothing_more(self) -> None:
        reference = pixels(0.9, 0.1, 0.5, 0.4)
        once = match_histogram(pixels(0.3, 0.0, 0.8, 0.2), reference)
        assert torch.equal(match_histogram(once, reference), once)

    def test_channels_are_matched_one_by_one(self) -> None:
        # Falling in one channel, rising in the other. Pooled over channels the four ranks would mix.
        image = torch.tensor([[0.8, 0.7], [0.1, 0.2]], dtype=torch.float64).reshape(1, 2, 1, 2)
        reference = torch.tensor([[0.0, 1.0], [0.5, 0.25]], dtype=torch.float64).reshape(1, 2, 1, 2)
        expected = torch.tensor([[1.0, 0.0], [0.25, 0.5]], dtype=torch.float64).reshape(1, 2, 1, 2)
        assert torch.equal(match_histogram(image, reference), expected)

    def test_images_of_a_batch_are_matched_one_by_one(self) -> None:
        image = torch.cat([pixels(0.8, 0.7), pixels(0.1, 0.2)])
        reference = torch.cat([pixels(0, 1), pixels(0.5, 0.25)])
        assert torch.equal(match_histogram(image, reference), torch.cat([pixels(1, 0), pixels(0.25, 0.5)]))

    def test_equal_pixels_stay_equal(self) -> None:
        # quantiles of 0.1, 0.2, 0.3: 2/4, 3/4, 4/4, where the reference has its second, third, fourth value
        assert torch.equal(match_histogram(pixels(0.2, 0.1, 0.3, 0.1), pixels(4, 3, 2, 1)), pixels(3, 2, 4, 2))

    def test_a_flat_image_takes_the_largest_reference_value(self) -> None:
        # its one value has quantile 1
        assert torch.equal(match_histogram(pixels(0.5, 0.5), pixels(0.2, 0.4)), pixels(0.4, 0.4))

    def test_a_larger_reference_is_read_at_the_images_quantiles(self) -> None:
        # quantiles 1/2 and 1 of (0.1, 0.2, 0.3, 0.4)
        matched = match_histogram(pixels(9, 7), torch.tensor([[0.4, 0.2], [0.3, 0.1]], dtype=torch.float64)[None, None])
        assert torch.equal(matched, pixels(0.4, 0.2))

    def test_a_smaller_reference_is_interpolated_and_clipped(self) -> None:
        # quantiles 1/4, 1/2, 3/4, 1 against 0.25 at 1/2 and 0.75 at 1: below 1/2 clipped, at 3/4 half-way
        image = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)[None, None]
        expected = torch.tensor([[0.25, 0.25], [0.5, 0.75]], dtype=torch.float64)[None, None]
        assert torch.equal(match_histogram(image, pixels(0.75, 0.25)), expected)

    def test_values_outside_the_unit_range_are_kept(self) -> None:
        assert torch.equal(match_histogram(pixels(0.3, 0.9, 0.5), pixels(-0.5, 1.5, 7)), pixels(-0.5, 7, 1.5))
        assert torch.equal(match_histogram(pixels(-3, 9, 5), pixels(0.1, 0.2, 0.3)), pixels(0.1, 0.3, 0.2))

    def test_floats_are_not_cut_to_eight_bits(self) -> None:
        # steps of 1e-4, a fortieth of 1/255
        image, reference = pixels(0.5002, 0.5, 0.5001), pixels(0.7001, 0.7, 0.7002)
        assert torch.equal(match_histogram(image, reference), pixels(0.7002, 0.7, 0.7001))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_values_and_dtype_survive_exactly(self, dtype: torch.dtype) -> None:
        reference = pixels(0.1, 0.9, 0.3, dtype=dtype)
        expected = reference[..., [2, 0, 1]]
        matched = match_histogram(pixels(0.5, 0.1, 0.8, dtype=dtype), reference)
        assert matched.dtype == dtype
        assert torch.equal(matched, expected)

    def test_float32_neighbours_are_told_apart(self) -> None:
        # 1 and the next float32 above it
        image = pixels(1 + 2**-23, 1.0, dtype=torch.float32)
        assert torch.equal(match_histogram(image, pixels(0.25, 0.75)), pixels(0.75, 0.25, dtype=torch.float32))

    def test_carries_no_gradient_and_leaves_its_arguments_alone(self) -> None:
        image, reference = pixels(0.3, 0.1).requires_grad_(), pixels(0.5, 0.9).requires_grad_()
        matched = match_histogram(image, reference)
        assert not matched.requires_grad
        assert torch.equal(image.detach(), pixels(0.3, 0.1))
        assert torch.equal(reference.detach(), pixels(0.5, 0.9))

    def test_memory_format_does_not_matter(self) -> None:
        image = torch.arange(24, dtype=torch.float64).reshape(1, 3, 2, 4)
        reference = image.flip(-1) / 24
        expected = image / 24  # every channel holds the same values, sorted as the image is
        assert torch.equal(match_histogram(image, reference), expected)
        channels_last = image.to(memory_format=torch.channels_last)
        assert torch.equal(match_histogram(channels_last, reference.to(memory_format=torch.channels_last)), expected)

    @pytest.mark.parametrize("shape", [(1, 3, 1, 2), (2, 1, 1, 2)])
    def test_refuses_another_number_of_channels_or_images(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(
            ReblurError, match=r"histogram matching: expected the same batch size and channels, got \(1,"
        ):
            match_histogram(pixels(1, 2), torch.zeros(shape, dtype=torch.float64))


class TestAgainstScikitImage:
    """`match_histograms(image, reference, channel_axis=0)` on doubles, scikit-image 0.26."""

    SIZES = (((31, 47), (31, 47)), ((31, 47), (9, 200)), ((1, 1), (5, 5)), ((8, 8), (1, 1)), ((3, 5), (3, 5)))

    @pytest.mark.parametrize(("size", "other"), SIZES)
    @pytest.mark.parametrize("levels", [None, 200, 5, 1])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_ties_flat_images_and_any_sizes(
        self, size: tuple[int, int], other: tuple[int, int], levels: int | None, dtype: torch.dtype, method: str
    ) -> None:
        image, reference = torch.rand(1, 3, *size, dtype=dtype), torch.rand(1, 3, *other, dtype=dtype) ** 2
        if levels is not None:
            image, reference = ((picture * levels).floor() / levels for picture in (image, reference))
        arrays = (picture[0].double().numpy() for picture in (image, reference))
        expected = torch.from_numpy(np.asarray(match_histograms(*arrays, channel_axis=0)))[None].to(dtype)
        found = match_histogram(image, reference)
        if method == "skimage":
            assert torch.equal(found, expected)
        else:
            torch.testing.assert_close(found, expected, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=1e-14)

    def test_a_channel_that_is_flat_in_one_of_them(self) -> None:
        flat, ramp = torch.full((1, 1, 4, 4), 0.5), torch.arange(16.0).reshape(1, 1, 4, 4)
        assert torch.equal(match_histogram(ramp, flat), flat)
        assert torch.equal(match_histogram(flat, ramp), torch.full((1, 1, 4, 4), 15.0))
