"""Eq. 2-7 against numbers worked out by hand on two pixels.

Every class below uses one setting, float64, values that binary floats hold exactly:

    M_D(x) = d x + e   d = 0.5   e =  0.25      B = (0.25, 1)       L     = M_D(B) = (0.375, 0.75)
    M_R(x) = r x + c   r = 1.5   c = -0.25      S = (0.75, 0.25)    S_hat = M_D(S) = (0.625, 0.375)

    M_R(L) = (0.3125, 0.875)    M_R(S_hat) = (0.6875, 0.3125)    M_R(S) = (0.875, 0.125)
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from reblur_plugin.core.boundary import NetworkError, finest
from reblur_plugin.core.objectives import (
    SHARP_REFERENCES,
    blur_loss,
    collapse_indicator,
    deblurring_module_loss,
    frozen,
    l1,
    multi_scale_l1,
    reblur_loss,
    self_reblur_loss,
    sharp_loss,
    sharp_reference_image,
)
from reblur_plugin.errors import ReblurError

BLURRY = (0.25, 1.0)
SHARP = (0.75, 0.25)
CROPPED = r"^Crop: expected an image of its input's shape \(1, 1, 1, 2\), got \(1, 1, 1, 1\); use a network that keeps"


class Affine(nn.Module):
    """x -> gain x + offset: the smallest network whose derivatives fit in a comment."""

    def __init__(self, gain: float, offset: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.offset = nn.Parameter(torch.tensor(offset, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        return self.gain * image + self.offset


class Crop(nn.Module):
    """Lose the last column, as a network with unpadded convolutions does."""

    def forward(self, image: Tensor) -> Tensor:
        return image[..., :-1]


def pixels(*values: float) -> Tensor:
    """Return a grey image of one row, `(1, 1, 1, W)`."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def gradient(parameter: Tensor) -> float | None:
    return None if parameter.grad is None else parameter.grad.item()


@pytest.fixture
def deblur_net() -> Affine:
    return Affine(0.5, 0.25)


@pytest.fixture
def reblur_net() -> Affine:
    return Affine(1.5, -0.25)


@pytest.fixture
def blurry() -> Tensor:
    return pixels(*BLURRY)


@pytest.fixture
def sharp() -> Tensor:
    return pixels(*SHARP)


class TestL1:
    def test_is_the_mean_of_absolute_differences(self) -> None:
        # |1 - 3| = 2, |5 - 1| = 4: mean 3; the sum is 6, the mean square 10, its root 3.16
        assert_close(l1(pixels(1, 5), pixels(3, 1)), torch.tensor(3.0, dtype=torch.float64))

    def test_gradient_is_the_sign_over_the_number_of_values(self) -> None:
        prediction = pixels(1, 5, 0, 9).requires_grad_()
        l1(prediction, pixels(3, 1, 7, 8)).backward()
        assert_close(prediction.grad, pixels(-0.25, 0.25, -0.25, 0.25))

    def test_mean_runs_over_batch_channels_and_pixels(self) -> None:
        # one of 2*3*1*2 = 12 values is off by 6
        prediction = torch.zeros(2, 3, 1, 2, dtype=torch.float64)
        prediction[1, 2, 0, 1] = 6.0
        assert_close(l1(prediction, torch.zeros_like(prediction)).item(), 0.5)

    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 1, 2), (2, 1, 1, 2), (1, 2), (1, 1, 2, 1)])
    def test_refuses_what_pytorch_would_broadcast(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(
            ReblurError, match=r"L1 distance: expected two tensors of one shape, got \(1, 1, 1, 2\) and"
        ):
            l1(pixels(1, 2), torch.zeros(shape, dtype=torch.float64))


class TestMultiScaleL1:
    # sharp 2 x 2 = (0, 0.25, 0.5, 1); halved, bilinear without aligned corners: the mean of the four, 0.4375
    SHARP = torch.tensor([[[[0.0, 0.25], [0.5, 1.0]]]], dtype=torch.float64)

    def test_is_the_sum_over_scales_against_the_resized_sharp_image(self) -> None:
        fine = torch.full((1, 1, 2, 2), 0.125, dtype=torch.float64)  # |.| = 0.125, 0.125, 0.375, 0.875: mean 0.375
        coarse = torch.full((1, 1, 1, 1), 0.75, dtype=torch.float64)  # 0.75 - 0.4375 = 0.3125
        for scales in ([coarse, fine], [fine, coarse], (fine, coarse)):
            assert_close(multi_scale_l1(scales, self.SHARP).item(), 0.6875)

    def test_of_a_single_image_is_plain_l1(self, blurry: Tensor, sharp: Tensor) -> None:
        # |0.25 - 0.75| = 0.5, |1 - 0.25| = 0.75
        assert_close(multi_scale_l1(blurry, sharp).item(), 0.625)
        assert_close(multi_scale_l1([blurry], sharp).item(), 0.625)

    def test_gradient_reaches_every_scale(self) -> None:
        fine = torch.full((1, 1, 2, 2), 0.125, dtype=torch.float64, requires_grad=True)
        coarse = torch.full((1, 1, 1, 1), 0.75, dtype=torch.float64, requires_grad=True)
        multi_scale_l1([coarse, fine], self.SHARP).backward()
        assert_close(fine.grad, torch.tensor([[[[0.25, -0.25], [-0.25, -0.25]]]], dtype=torch.float64))
        assert_close(coarse.grad, torch.ones(1, 1, 1, 1, dtype=torch.float64))

    def test_odd_sizes_are_resized_bilinearly_without_aligned_corners(self) -> None:
        # Width 3 -> 2: centres at 0.25 and 1.75, so (0, 0.5, 1) becomes (0.125, 0.875).
        # Aligned corners would give (0, 1), averaging areas (0.25, 0.75), nearest (0, 0.5).
        assert_close(multi_scale_l1([pixels(0.125, 0.875)], pixels(0, 0.5, 1)).item(), 0.0)
        assert_close(multi_scale_l1([pixels(0.25, 0.25)], pixels(0, 1, 0)).item(), 0.0)

    def test_of_a_batch_is_the_mean_of_its_images(self) -> None:
        one, two = pixels(0, 1), pixels(0.5, 0.5)
        # against (0.25, 0.25): 0.25, 0.75 -> 0.5 and 0.25, 0.25 -> 0.25
        target = pixels(0.25, 0.25).expand(2, 1, 1, 2)
        assert_close(multi_scale_l1(torch.cat([one, two]), target).item(), 0.375)

    def test_is_a_scalar_of_the_sharp_images_dtype(self) -> None:
        loss = multi_scale_l1([torch.zeros(1, 1, 2, 2)], torch.zeros(1, 1, 4, 4))
        assert loss.dtype == torch.float32
        assert loss.ndim == 0

    def test_refuses_another_number_of_channels(self, sharp: Tensor) -> None:
        with pytest.raises(ReblurError, match="expected two tensors of one shape"):
            multi_scale_l1(torch.zeros(1, 3, 1, 2, dtype=torch.float64), sharp)


class TestEq2BlurLoss:
    def test_is_the_l1_distance_of_reblurred_and_blurry(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # M_R(L) - B = (0.0625, -0.125): mean 0.09375; squared: 0.0098; summed: 0.1875; M_R(B) - L: 0.375
        assert_close(blur_loss(reblur_net, deblur_net(blurry), blurry).item(), 0.09375)

    def test_gradient_reaches_the_reblurring_module_only(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # signs (+, -): d/dr = (0.375 - 0.75) / 2. With L attached d/dd would be 1.5 (0.25 - 1) / 2 = -0.5625.
        blur_loss(reblur_net, deblur_net(blurry), blurry).backward()
        assert_close(gradient(reblur_net.gain), -0.1875)
        assert_close(gradient(reblur_net.offset), 0.0)
        assert deblur_net.gain.grad is None
        assert deblur_net.offset.grad is None

    def test_every_pixel_pushes_the_offset_equally(self, reblur_net: Affine) -> None:
        # M_R(L) = (-0.25, 0.5, 1.25, 0.125) against 0.2 everywhere: signs (-, +, +, -); then B = 0: (-, +, +, +)
        deblurred = pixels(0, 0.5, 1, 0.25)
        blur_loss(reblur_net, deblurred, torch.full_like(deblurred, 0.2)).backward()
        assert_close(gradient(reblur_net.offset), 0.0)
        blur_loss(reblur_net, deblurred, torch.zeros_like(deblurred)).backward()
        assert_close(gradient(reblur_net.offset), 0.5)

    def test_is_zero_where_the_blur_comes_back(self, blurry: Tensor) -> None:
        # L = (0.375, 0.75) = 0.5 B + 0.25, and M_R(x) = 2 x - 0.5 undoes it
        assert_close(blur_loss(Affine(2.0, -0.5), pixels(0.375, 0.75), blurry).item(), 0.0)

    def test_leaves_the_graph_of_the_deblurred_image_usable(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # one M_D pass serves the R step and then the D step; d/dd of sum(L) is 0.25 + 1
        deblurred = deblur_net(blurry)
        blur_loss(reblur_net, deblurred, blurry).backward()
        deblurred.sum().backward()
        assert_close(gradient(deblur_net.gain), 1.25)

    def test_of_a_batch_is_the_mean_of_its_images(self, reblur_net: Affine) -> None:
        # (0.375, 0.75) against (0.25, 1): 0.09375; L = (1, 1) against (1, 1): M_R gives 1.25, so 0.25; mean 0.171875
        deblurred = torch.cat([pixels(0.375, 0.75), pixels(1, 1)])
        target = torch.cat([pixels(*BLURRY), pixels(1, 1)])
        assert_close(blur_loss(reblur_net, deblurred, target).item(), 0.171875)

    def test_sees_all_channels_at_odd_sizes(self) -> None:
        # 1 x 1 convolution that swaps channel 0 and 2, on constants (0, 0.5, 1) against 0: mean 0.5;
        # d/dw[o, i] = value of input channel i / 3 for o where the output is positive, 0 where it is exactly 0
        reblur_net = nn.Conv2d(3, 3, 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            reblur_net.weight.copy_(torch.eye(3, dtype=torch.float64).flip(0).reshape(3, 3, 1, 1))
        deblurred = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).reshape(1, 3, 1, 1).expand(1, 3, 5, 7)
        loss = blur_loss(reblur_net, deblurred, torch.zeros_like(deblurred))
        loss.backward()
        assert_close(loss.item(), 0.5)
        row = [0.0, 0.5 / 3, 1.0 / 3]
        expected = torch.tensor([row, row, [0.0, 0.0, 0.0]], dtype=torch.float64)
        assert_close(reblur_net.weight.grad.reshape(3, 3), expected)

    def test_refuses_a_reblurring_module_that_crops(self, blurry: Tensor) -> None:
        with pytest.raises(NetworkError, match=CROPPED):
            blur_loss(Crop(), blurry, blurry)


class TestEq3SharpLoss:
    def test_is_the_l1_distance_of_reblurred_and_pseudo_sharp(
        self, deblur_net: Affine, reblur_net: Affine, sharp: Tensor
    ) -> None:
        # M_R(S_hat) - S_hat = (0.0625, -0.0625): mean 0.0625; with the real S: (0.125, -0.125).
        # M_R(S_hat) - S has the same mean and the other signs, so the gradient below tells it apart.
        assert_close(sharp_loss(reblur_net, deblur_net(sharp)).item(), 0.0625)
        assert_close(sharp_loss(reblur_net, sharp).item(), 0.125)

    def test_preserves_the_very_image_it_is_given(self, reblur_net: Affine) -> None:
        # M_R(x) = 1.5 x - 0.25 has the fixed point 0.5; at 1 it gives 1.25
        assert_close(sharp_loss(reblur_net, pixels(0.5, 0.5)).item(), 0.0)
        assert_close(sharp_loss(reblur_net, pixels(0.5, 1.0)).item(), 0.125)

    def test_gradient_reaches_the_reblurring_module_only(
        self, deblur_net: Affine, reblur_net: Affine, sharp: Tensor
    ) -> None:
        # signs (+, -): d/dr = (0.625 - 0.375) / 2. Attached, d/dd would be 1.5 (0.75 - 0.25) / 2 = 0.375 through the
        # input, -0.25 through the target, 0.125 through both.
        sharp_loss(reblur_net, deblur_net(sharp)).backward()
        assert_close(gradient(reblur_net.gain), 0.125)
        assert_close(gradient(reblur_net.offset), 0.0)
        assert deblur_net.gain.grad is None
        assert deblur_net.offset.grad is None

    def test_gradient_reaches_neither_side_of_the_image(self, reblur_net: Affine) -> None:
        image = pixels(0.625, 0.375).requires_grad_()
        sharp_loss(reblur_net, image).backward()
        assert image.grad is None

    def test_identity_is_a_fixed_point(self, sharp: Tensor) -> None:
        assert_close(sharp_loss(nn.Identity(), sharp).item(), 0.0)

    def test_of_a_batch_is_the_mean_of_its_images(self, reblur_net: Affine) -> None:
        # 0.0625 and, at the fixed point, 0
        assert_close(sharp_loss(reblur_net, torch.cat([pixels(0.625, 0.375), pixels(0.5, 0.5)])).item(), 0.03125)

    def test_refuses_a_reblurring_module_that_crops(self, sharp: Tensor) -> None:
        with pytest.raises(NetworkError, match=CROPPED):
            sharp_loss(Crop(), sharp)


class TestTable4SharpReference:
    def test_pseudo_is_the_deblurring_modules_output_for_the_sharp_image(
        self, deblur_net: Affine, sharp: Tensor
    ) -> None:
        assert_close(sharp_reference_image(deblur_net, sharp, "pseudo"), pixels(0.625, 0.375))

    def test_real_is_the_sharp_image_itself(self, deblur_net: Affine, sharp: Tensor) -> None:
        assert sharp_reference_image(deblur_net, sharp, "real") is sharp

    def test_none_is_none(self, deblur_net: Affine, sharp: Tensor) -> None:
        assert sharp_reference_image(deblur_net, sharp, "none") is None

    def test_rows_of_the_table_give_three_losses(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor
    ) -> None:
        # L_Blur = 0.09375; + nothing, + 0.125 (S), + 0.0625 (S_hat)
        blur = blur_loss(reblur_net, deblur_net(blurry), blurry)
        found = []
        for row in ("none", "real", "pseudo"):
            image = sharp_reference_image(deblur_net, sharp, row)
            found.append(blur.item() + (0.0 if image is None else sharp_loss(reblur_net, image).item()))
        assert_close(found, [0.09375, 0.21875, 0.15625])

    @pytest.mark.parametrize("reference", ["pseudo", "real"])
    def test_builds_no_graph(self, deblur_net: Affine, sharp: Tensor, reference: str) -> None:
        image = sharp_reference_image(deblur_net, sharp, reference)
        assert image.grad_fn is None
        assert not image.requires_grad

    @pytest.mark.parametrize("reference", ["real", "none"])
    def test_only_pseudo_runs_the_deblurring_module(self, sharp: Tensor, reference: str) -> None:
        def unused(image: Tensor) -> Tensor:
            raise AssertionError("M_D was run")

        sharp_reference_image(unused, sharp, reference)

    def test_of_several_scales_the_finest_is_kept(self, sharp: Tensor) -> None:
        for scales in (lambda s: [s[..., :1], 2 * s], lambda s: [2 * s, s[..., :1]]):
            assert_close(sharp_reference_image(scales, sharp, "pseudo"), pixels(1.5, 0.5))

    def test_rows_are_named(self) -> None:
        assert set(SHARP_REFERENCES) == {"pseudo", "real", "none"}

    def test_refuses_another_name(self, deblur_net: Affine, sharp: Tensor) -> None:
        with pytest.raises(ReblurError, match="sharp_reference: expected one of pseudo, real, none, got 'sharp'"):
            sharp_reference_image(deblur_net, sharp, "sharp")


class TestEq4ReblurringModuleLoss:
    def test_gradients_of_both_terms_add_up_and_reach_the_reblurring_module_only(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor
    ) -> None:
        # -0.1875 (Eq. 2) + 0.125 (Eq. 3)
        blur_loss(reblur_net, deblur_net(blurry), blurry).backward()
        sharp_loss(reblur_net, deblur_net(sharp)).backward()
        assert_close(gradient(reblur_net.gain), -0.0625)
        assert deblur_net.gain.grad is None


class TestEq5ReblurLoss:
    def test_is_the_l1_distance_of_both_reblurred_images(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor
    ) -> None:
        # M_R(L) - M_R(S) = (-0.5625, 0.75): mean 0.65625. With S_hat for S: 0.46875; without M_R: 0.4375;
        # M_R(L) - S: 0.53125. M_R(L - S) happens to give the same; the next two tests tell it apart.
        assert_close(reblur_loss(reblur_net, deblur_net(blurry), sharp).item(), 0.65625)

    def test_an_offset_of_the_reblurring_module_cancels(self, sharp: Tensor) -> None:
        # 2 (L - S) = (-0.75, 1) for any offset; M_R(L - S) would give (-0.25, 1.5)
        assert_close(reblur_loss(Affine(2.0, 0.5), pixels(0.375, 0.75), sharp).item(), 0.875)

    def test_compares_what_the_reblurring_module_makes_not_the_images(self) -> None:
        # M_R(x) = x^2: (0.25, 1) - (0.0625, 0.25) = (0.1875, 0.75); (L - S)^2 would be (0.0625, 0.25)
        assert_close(reblur_loss(torch.square, pixels(0.5, 1), pixels(0.25, 0.5)).item(), 0.46875)

    def test_gradient_reaches_the_deblurring_module_through_the_reblurring_module(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor
    ) -> None:
        # signs (-, +): d/dd = 1.5 (-0.25 + 1) / 2. Without M_R in the way it would be 0.375.
        with frozen(reblur_net):
            reblur_loss(reblur_net, deblur_net(blurry), sharp).backward()
        assert_close(gradient(deblur_net.gain), 0.5625)
        assert_close(gradient(deblur_net.offset), 0.0)
        assert reblur_net.gain.grad is None
        assert reblur_net.offset.grad is None

    def test_the_reblurred_sharp_image_carries_no_gradient(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # M_R not frozen: d/dr = (-0.375 + 0.75) / 2 through M_R(L) alone; through M_R(S) too it would be 0.4375.
        sharp = pixels(*SHARP).requires_grad_()
        reblur_loss(reblur_net, deblur_net(blurry), sharp).backward()
        assert_close(gradient(reblur_net.gain), 0.1875)
        assert sharp.grad is None

    def test_is_zero_for_the_sharp_image(self, reblur_net: Affine, sharp: Tensor) -> None:
        assert_close(reblur_loss(reblur_net, sharp.clone(), sharp).item(), 0.0)

    def test_of_a_batch_is_the_mean_of_its_images(self, reblur_net: Affine, sharp: Tensor) -> None:
        # 0.65625 and 0
        deblurred = torch.cat([pixels(0.375, 0.75), sharp])
        assert_close(reblur_loss(reblur_net, deblurred, torch.cat([sharp, sharp])).item(), 0.328125)

    def test_refuses_images_of_two_sizes(self, reblur_net: Affine, sharp: Tensor) -> None:
        with pytest.raises(ReblurError, match=r"L1 distance.*got \(1, 1, 1, 3\) and \(1, 1, 1, 2\)"):
            reblur_loss(reblur_net, pixels(1, 2, 3), sharp)


class TestEq6DeblurringModuleLoss:
    def test_is_l1_plus_reblur_with_weight_one(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor
    ) -> None:
        # L - S = (-0.375, 0.5): 0.4375; L_Reblur = 1.5 times that: 0.65625
        deblurred = deblur_net(blurry)
        loss = deblurring_module_loss(multi_scale_l1(deblurred, sharp), reblur_loss(reblur_net, deblurred, sharp))
        assert_close(loss.item(), 1.09375)

    def test_weight_multiplies_the_reblur_term(self) -> None:
        pixel, reblur = torch.tensor(0.5), torch.tensor(0.25)
        assert_close(deblurring_module_loss(pixel, reblur, 2.0).item(), 1.0)  # the other way round: 1.25
        assert_close(deblurring_module_loss(pixel, reblur, 0.0).item(), 0.5)

    @pytest.mark.parametrize(("weight", "expected"), [(1.0, 0.9375), (0.5, 0.65625), (0.0, 0.375)])
    def test_gradient_is_that_of_l1_plus_weight_times_that_of_reblur(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor, weight: float, expected: float
    ) -> None:
        # d/dd of L1 = (-0.25 + 1) / 2 = 0.375; of L_Reblur = 0.5625
        deblurred = deblur_net(blurry)
        with frozen(reblur_net):
            reblur = reblur_loss(reblur_net, deblurred, sharp)
            deblurring_module_loss(multi_scale_l1(deblurred, sharp), reblur, weight).backward()
        assert_close(gradient(deblur_net.gain), expected)
        assert reblur_net.gain.grad is None

    def test_of_several_scales_only_the_finest_is_reblurred(self, reblur_net: Affine, sharp: Tensor) -> None:
        # L1: coarse 0.25 against mean(S) = 0.5: 0.25; fine 0.4375. Reblur of the fine one: 0.65625. Sum 1.34375.
        # Gradient of the coarse scale is L1's alone: -1; of the fine one: (-, +) (0.5 + 0.75).
        coarse = pixels(0.25).requires_grad_()
        fine = pixels(0.375, 0.75).requires_grad_()
        reblur = reblur_loss(reblur_net, finest([coarse, fine]), sharp)
        loss = deblurring_module_loss(multi_scale_l1([coarse, fine], sharp), reblur)
        loss.backward()
        assert_close(loss.item(), 1.34375)
        assert_close(coarse.grad, pixels(-1.0))
        assert_close(fine.grad, pixels(-1.25, 1.25))

    def test_alternating_steps_share_one_deblurred_image_and_keep_gradients_apart(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor, sharp: Tensor
    ) -> None:
        # R step: theta_R gets -0.0625 (Eq. 4), theta_D nothing; D step: theta_D gets 0.9375 (Eq. 6), theta_R no more.
        deblurred = deblur_net(blurry)
        pseudo_sharp = sharp_reference_image(deblur_net, sharp, "pseudo")
        blur_loss(reblur_net, deblurred, blurry).backward()
        sharp_loss(reblur_net, pseudo_sharp).backward()
        assert deblur_net.gain.grad is None
        with frozen(reblur_net):
            reblur = reblur_loss(reblur_net, deblurred, sharp)
            deblurring_module_loss(multi_scale_l1(deblurred, sharp), reblur).backward()
        assert_close(gradient(deblur_net.gain), 0.9375)
        assert_close(gradient(reblur_net.gain), -0.0625)


class TestEq7SelfReblurLoss:
    def test_is_the_l1_distance_of_reblurred_and_deblurred(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # M_R(L) - L = (-0.0625, 0.125): mean 0.09375. Against B the signs are reversed: the gradient tells.
        assert_close(self_reblur_loss(reblur_net, deblur_net(blurry)).item(), 0.09375)

    def test_gradient_reaches_the_deblurring_module_through_the_input_alone(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # signs (-, +): d/dd = 1.5 (-0.25 + 1) / 2. With L* attached: (1.5 - 1) 0.375 = 0.1875; L detached: none.
        # Against B, signs (+, -): -0.5625.
        with frozen(reblur_net):
            self_reblur_loss(reblur_net, deblur_net(blurry)).backward()
        assert_close(gradient(deblur_net.gain), 0.5625)
        assert_close(gradient(deblur_net.offset), 0.0)
        assert reblur_net.gain.grad is None

    def test_weights_of_the_reblurring_module_are_not_detached(self, reblur_net: Affine) -> None:
        # not frozen: d/dr = (-0.375 + 0.75) / 2
        self_reblur_loss(reblur_net, pixels(0.375, 0.75)).backward()
        assert_close(gradient(reblur_net.gain), 0.1875)

    def test_another_target_takes_the_place_of_l_star(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # M_R(L) - (0.25, 0.5) = (0.0625, 0.375): 0.21875, signs (+, +): d/dd = 1.5 (0.25 + 1) / 2
        target = pixels(0.25, 0.5).requires_grad_()
        loss = self_reblur_loss(reblur_net, deblur_net(blurry), target)
        loss.backward()
        assert_close(loss.item(), 0.21875)
        assert_close(gradient(deblur_net.gain), 0.9375)
        assert target.grad is None

    def test_identity_is_a_fixed_point(self, deblur_net: Affine, blurry: Tensor) -> None:
        # |x| has gradient 0 at 0: where nothing can be reblurred, nothing is adapted
        loss = self_reblur_loss(nn.Identity(), deblur_net(blurry))
        loss.backward()
        assert_close(loss.item(), 0.0)
        assert_close(gradient(deblur_net.gain), 0.0)

    def test_refuses_a_reblurring_module_that_crops(self, sharp: Tensor) -> None:
        with pytest.raises(NetworkError, match=CROPPED):
            self_reblur_loss(Crop(), sharp)


class TestCollapseIndicator:
    def test_is_blur_loss_over_the_distance_of_deblurred_and_blurry(
        self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor
    ) -> None:
        # L_Blur = 0.09375; L - B = (0.125, -0.25): 0.1875
        deblurred = deblur_net(blurry)
        assert_close(collapse_indicator(blur_loss(reblur_net, deblurred, blurry), deblurred, blurry).item(), 0.5)

    def test_is_one_for_the_identity(self, blurry: Tensor) -> None:
        deblurred = pixels(0.375, 0.75)
        blur = blur_loss(nn.Identity(), deblurred, blurry)
        assert collapse_indicator(blur, deblurred, blurry).item() == 1.0

    def test_is_zero_where_the_blur_comes_back(self, blurry: Tensor) -> None:
        deblurred = pixels(0.375, 0.75)
        blur = blur_loss(Affine(2.0, -0.5), deblurred, blurry)  # undoes 0.5 B + 0.25
        assert_close(collapse_indicator(blur, deblurred, blurry).item(), 0.0)

    def test_exceeds_one_where_reblurring_leads_away(self, blurry: Tensor) -> None:
        # M_R(x) = -x: |-0.375 - 0.25| = 0.625, |-0.75 - 1| = 1.75: 1.1875 over 0.1875
        deblurred = pixels(0.375, 0.75)
        blur = blur_loss(Affine(-1.0), deblurred, blurry)
        assert_close(collapse_indicator(blur, deblurred, blurry).item(), 1.1875 / 0.1875)

    @pytest.mark.parametrize("gain", [1.0, 1.5])
    def test_is_one_where_nothing_was_deblurred(self, blurry: Tensor, gain: float) -> None:
        blur = blur_loss(Affine(gain), blurry, blurry)
        assert collapse_indicator(blur, blurry.clone(), blurry).item() == 1.0

    def test_carries_no_gradient(self, deblur_net: Affine, reblur_net: Affine, blurry: Tensor) -> None:
        deblurred = deblur_net(blurry)
        rho = collapse_indicator(blur_loss(reblur_net, deblurred, blurry), deblurred, blurry)
        assert rho.ndim == 0
        assert not rho.requires_grad

    def test_refuses_images_of_two_sizes(self, blurry: Tensor) -> None:
        with pytest.raises(ReblurError, match="L1 distance: expected two tensors of one shape"):
            collapse_indicator(torch.tensor(0.5), pixels(1, 2, 3), blurry)


class TestFrozen:
    def test_weights_get_no_gradient_and_the_input_does(self, reblur_net: Affine) -> None:
        image = pixels(0.5, 1).requires_grad_()
        with frozen(reblur_net):
            reblur_net(image).sum().backward()
        assert_close(image.grad, pixels(1.5, 1.5))
        assert reblur_net.gain.grad is None
        assert reblur_net.offset.grad is None

    def test_every_parameters_own_flag_comes_back(self, reblur_net: Affine) -> None:
        reblur_net.offset.requires_grad_(False)
        with frozen(reblur_net):
            assert not any(parameter.requires_grad for parameter in reblur_net.parameters())
        assert reblur_net.gain.requires_grad
        assert not reblur_net.offset.requires_grad

    def test_flags_come_back_after_an_exception(self, reblur_net: Affine) -> None:
        with pytest.raises(RuntimeError, match="inside"), frozen(reblur_net):
            raise RuntimeError("inside")
        assert reblur_net.gain.requires_grad
        assert reblur_net.offset.requires_grad

    def test_nests(self, reblur_net: Affine) -> None:
        with frozen(reblur_net):
            with frozen(reblur_net):
                pass
            assert not reblur_net.gain.requires_grad
        assert reblur_net.gain.requires_grad

    def test_gradients_already_collected_stay(self, reblur_net: Affine) -> None:
        reblur_net.gain.grad = collected = torch.tensor(3.0, dtype=torch.float64)
        with frozen(reblur_net):
            reblur_net(pixels(0.5, 1).requires_grad_()).sum().backward()
        assert reblur_net.gain.grad is collected
        assert_close(collected.item(), 3.0)

    def test_backward_after_the_block_still_passes_to_the_input(self, reblur_net: Affine) -> None:
        image = pixels(0.5, 1).requires_grad_()
        with frozen(reblur_net):
            loss = reblur_net(image).sum()
        loss.backward()
        assert_close(image.grad, pixels(1.5, 1.5))
        assert reblur_net.gain.grad is None
