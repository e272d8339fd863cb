"""Section 3.2's iteration: worked out by hand on networks with one weight, and against the plain step on real ones."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reblur_plugin.archs.dmphn_arch import DHN
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core.boundary import finest
from reblur_plugin.core.joint import JointStep, l_1
from reblur_plugin.core.schedule import PiecewiseLinear
from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import ReblurError

B, S = 0.5, 0.8
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Gain(nn.Module):
    """x -> gain * x; two scales on request."""

    def __init__(self, gain: float, scales: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        image = self.gain * x
        return image if self.scales == 1 else [image[..., ::2, ::2], image]


def descending(network: nn.Module, lr: float = 0.1, **choices: Any) -> Updater:
    return Updater(network, torch.optim.SGD(network.parameters(), lr=lr), **choices)


class Hand:
    """Two networks with one weight each, M_D(x) = a x and M_R(x) = r x, and their step.

    B = .5 and S = .8 everywhere, a = .9, r = .5, plain gradient descent with learning rate .1. Then L = a B = .45.

        dL_Blur/dr  = sign(r L - B) L         = sign(.225 - .5) .45  = -.45
        dL_Sharp/dr = sign(r - 1) S_hat       = -.72 with S_hat = a S, -.8 with S_hat = S
        dL_1/da     = sign(a B - S) B         = sign(.45 - .8) .5    = -.5
        dL_Reblur/da = sign(r (L - S)) r B    = -.5 r
    """

    def __init__(self, scales: int = 1, updating: dict[str, Any] | None = None, **choices: Any) -> None:
        self.deblur = descending(Gain(0.9, scales), **updating or {})
        self.reblur = descending(Gain(0.5), **updating or {})
        self.step = JointStep(self.deblur, self.reblur, **choices)

    def __call__(self, blurry: float = B) -> dict[str, float]:
        losses = self.step(torch.full((2, 3, 4, 4), blurry), torch.full((2, 3, 4, 4), S))
        return {name: loss.item() for name, loss in losses.items()}

    @property
    def gains(self) -> tuple[float, float]:
        return self.deblur.network.gain.item(), self.reblur.network.gain.item()  # type: ignore[operator,union-attr]


def stepped(**choices: Any) -> tuple[float, float]:
    """Return a and r after one step."""
    hand = Hand(**choices)
    hand()
    return hand.gains


class TestSection32Alternation:
    def test_reblur_first_gives_m_d_the_updated_m_r(self) -> None:
        # r' = .5 + .1 (.45 + .72) = .617; a' = .9 + .1 (.5 + .5 * .617) = .98085
        assert stepped() == pytest.approx((0.98085, 0.617), rel=1e-6)

    def test_deblur_first_gives_m_d_the_old_m_r_and_l_sharp_the_new_m_d(self) -> None:
        # a' = .9 + .1 (.5 + .25) = .975; L stays .45, S_hat = .975 * .8 = .78: r' = .5 + .1 (.45 + .78) = .623
        assert stepped(deblur_first=True) == pytest.approx((0.975, 0.623), rel=1e-6)

    def test_losses_are_those_that_moved_the_weights(self) -> None:
        expected = {
            "l_blur": 0.275,  # |.225 - .5|
            "rho": 5.5,  # .275 / |.45 - .5|
            "l_sharp": 0.36,  # (1 - .5) .72
            "l_1": 0.35,
            "l_reblur": 0.617 * 0.35,  # by the updated r
        }
        assert Hand()() == pytest.approx(expected, rel=1e-5)
        assert list(Hand()()) == list(expected)

    def test_no_network_keeps_the_gradient_of_another_ones_loss(self) -> None:
        hand = Hand()
        hand()
        assert float(hand.reblur.network.gain.grad) == pytest.approx(-1.17, rel=1e-6)  # L_R's alone
        assert float(hand.deblur.network.gain.grad) == pytest.approx(-0.8085, rel=1e-6)  # L_D's alone

    def test_iterations_are_counted_and_may_begin_elsewhere(self) -> None:
        hand = Hand(sharp_weight=PiecewiseLinear(((10.0, 0.0), (14.0, 1.0))), iteration=10)
        hand()
        # iteration 11: weight .25, r' = .5 + .1 (.45 + .25 * .72) = .563
        assert hand.gains[1] == pytest.approx(0.563, rel=1e-6)
        hand()
        assert hand.step.iteration == 12


class TestEq4ReblurringModuleLoss:
    """L_R = L_Blur + L_Sharp moves theta_R; the rows of Table 4 are what L_Sharp preserves."""

    def test_table_4_real_sharp_images_take_the_place_of_pseudo_sharp_ones(self) -> None:
        # r' = .5 + .1 (.45 + .8) = .625; a' = .9 + .1 (.5 + .3125) = .98125
        assert stepped(sharp_reference="real") == pytest.approx((0.98125, 0.625), rel=1e-6)

    def test_table_4_without_l_sharp_m_r_follows_l_blur_alone(self) -> None:
        # r' = .5 + .045 = .545; a' = .9 + .1 (.5 + .2725) = .97725
        hand = Hand(sharp_reference="none")
        assert "l_sharp" not in hand()
        assert hand.gains == pytest.approx((0.97725, 0.545), rel=1e-6)

    def test_l_sharp_has_a_weight(self) -> None:
        # r' = .5 + .1 (.45 + .5 * .72) = .581; the loss is told before its weight
        hand = Hand(sharp_weight=0.5)
        assert hand()["l_sharp"] == pytest.approx(0.36, rel=1e-6)
        assert hand.gains[1] == pytest.approx(0.581, rel=1e-6)

    def test_the_weight_of_l_sharp_may_follow_the_iteration(self) -> None:
        # iteration 1: weight .25, r' = .5 + .1 (.45 + .25 * .72) = .563
        assert stepped(sharp_weight=PiecewiseLinear(((0.0, 0.0), (4.0, 1.0))))[1] == pytest.approx(0.563, rel=1e-6)


class TestEq6DeblurringModuleLoss:
    """L_D = L_1 + lambda L_Reblur, and further losses, moves theta_D."""

    def test_lambda_weighs_l_reblur(self) -> None:
        # a' = .9 + .1 (.5 + 2 * .3085) = 1.0117; the loss is told before its weight
        hand = Hand(loss_weight=2.0)
        assert hand()["l_reblur"] == pytest.approx(0.617 * 0.35, rel=1e-5)
        assert hand.gains[0] == pytest.approx(1.0117, rel=1e-6)

    def test_l_1_counts_every_scale_and_the_other_losses_the_finest(self) -> None:
        # L_1 twice: a' = .9 + .1 (2 * .5 + .3085) = 1.03085; r' as with one scale
        assert stepped(scales=2) == pytest.approx((1.03085, 0.617), rel=1e-6)

    def test_without_m_r_it_is_l1_training(self) -> None:
        deblur = descending(Gain(0.9))
        losses = JointStep(deblur, None)(torch.full((2, 3, 4, 4), B), torch.full((2, 3, 4, 4), S))
        assert deblur.network.gain.item() == pytest.approx(0.95, rel=1e-6)  # .9 + .1 * .5
        assert losses.keys() == {"l_1"}

    def test_further_losses_join_in(self) -> None:
        def own(output: Any, sharp: Tensor) -> dict[str, Tensor]:
            return l_1(output, sharp) | {"l_vgg": 2 * (finest(output) - sharp).abs().mean()}

        # another 2 * .5: a' = .9 + .1 (.5 + 1 + .3085) = 1.08085
        hand = Hand(own_losses=own)
        assert hand()["l_vgg"] == pytest.approx(0.7, rel=1e-6)
        assert hand.gains[0] == pytest.approx(1.08085, rel=1e-6)

    def test_l_reblur_may_be_all_that_there_is(self) -> None:
        # a' = .9 + .1 * .3085
        assert stepped(own_losses=lambda output, sharp: {})[0] == pytest.approx(0.93085, rel=1e-6)


class TestAdversarialLoss:
    """0.001 L_Adv (D7): the discriminator, x -> 2 x, is updated where M_R is.

    Derivatives of the cross-entropy of a logit z: real -(1 - s(z)), fake s(z); z = 2 * .8 and 2 * .45.
    """

    @staticmethod
    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    @pytest.mark.parametrize("deblur_first", [False, True])
    def test_a_discriminator_is_trained_and_moves_m_d_by_its_weight(self, deblur_first: bool) -> None:
        updater = descending(Gain(2.0))

        def judge(image: Tensor, is_real: bool) -> Tensor:
            logits = updater.network(image)
            return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(is_real)))

        def own(output: Any, sharp: Tensor) -> dict[str, Tensor]:
            return l_1(output, sharp) | {"l_adv": 0.001 * judge(finest(output), True)}

        hand = Hand(own_losses=own, discriminator=updater, judge=judge, deblur_first=deblur_first)
        losses = hand()
        d = 2 - 0.1 * (-(1 - self.sigmoid(1.6)) * 0.8 + self.sigmoid(0.9) * 0.45)
        seen = 2 if deblur_first else d  # by M_D
        slope = 0.001 * -(1 - self.sigmoid(seen * 0.45)) * seen * B
        assert updater.network.gain.item() == pytest.approx(d, rel=1e-6)
        assert hand.gains[0] == pytest.approx((0.975 if deblur_first else 0.98085) - 0.1 * slope, rel=1e-6)
        assert losses["l_real"] == pytest.approx(-math.log(self.sigmoid(1.6)), rel=1e-5)
        assert losses["l_fake"] == pytest.approx(-math.log(1 - self.sigmoid(0.9)), rel=1e-5)


class TestTable1HeldDeblurNet:
    """Table 1's second row: M_R alone, on the results of a trained M_D, which has no optimiser."""

    @pytest.mark.parametrize("deblur_first", [False, True])
    def test_only_m_r_learns(self, deblur_first: bool) -> None:
        deblur, reblur = Updater(Gain(0.9)), descending(Gain(0.5))
        step = JointStep(deblur, reblur, sharp_reference="none", deblur_first=deblur_first)
        losses = step(torch.full((2, 3, 4, 4), B), torch.full((2, 3, 4, 4), S))
        assert reblur.network.gain.item() == pytest.approx(0.545, rel=1e-6)  # .5 + .1 * .45
        assert deblur.network.gain.item() == pytest.approx(0.9)
        assert deblur.network.gain.grad is None
        assert losses.keys() == {"l_blur", "rho"}


class TestRefusals:
    def test_what_cannot_be_trained_is_a_sentence(self) -> None:
        net = Gain(0.9)
        cases: list[tuple[dict[str, Any], str]] = [
            ({"reblur": Updater(Gain(0.5))}, "reblur: expected an Updater with an optimiser"),
            (
                {"discriminator": descending(Gain(2.0))},
                "discriminator: expected an Updater with an optimiser, and its loss",
            ),
            ({"accumulate": 0}, "accumulate: expected a whole number > 0, got 0"),
        ]
        for choices, message in cases:
            with pytest.raises(ReblurError, match=f"^JointStep: {re.escape(message)}"):
                JointStep(**{"deblur": descending(net), "reblur": None, **choices})


class TestClippingAndPrecision:
    def test_gradients_are_clipped_network_by_network(self) -> None:
        # norms of .8085 and 1.17 become .2; clipping divides by norm + 1e-6
        assert stepped(updating={"max_norm": 0.2}) == pytest.approx((0.92, 0.52), rel=1e-5)

    def test_gradients_are_clipped_at_their_own_scale_under_fp16(self) -> None:
        updating = {"max_norm": 0.2, "precision": torch.float16}
        assert stepped(updating=updating) == pytest.approx((0.92, 0.52), rel=1e-5)

    @pytest.mark.parametrize("precision", LOW.values(), ids=LOW)
    def test_mixed_precision_takes_the_same_step(self, precision: torch.dtype) -> None:
        # a product with a gain isn't cast, so that the step is exact; under fp16 it passes through the scalers
        hand = Hand(updating={"precision": precision})
        hand()
        assert hand.gains == pytest.approx((0.98085, 0.617), rel=1e-6)
        is_scaled = [updater.scaler.is_enabled() for updater in (hand.deblur, hand.reblur)]
        assert is_scaled == [precision is torch.float16] * 2

    def test_each_loss_has_the_scale_of_the_network_that_it_moves(self) -> None:
        hand = Hand(updating={"precision": torch.float16})
        hand.deblur.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # M_R's is 1024
        hand()
        assert hand.gains == pytest.approx((0.98085, 0.617), rel=1e-6)
        assert float(hand.deblur.network.gain.grad) == pytest.approx(-0.8085, rel=1e-6)

    def test_a_bad_fp16_step_is_left_out_and_counted(self) -> None:
        hand = Hand(updating={"precision": torch.float16})
        hand()
        before = hand.gains
        hand(torch.inf)
        assert hand.gains == before
        assert (int(hand.deblur.skipped), int(hand.reblur.skipped)) == (1, 1)
        hand()
        assert hand.gains != before


ORDERS = ["reblur_first", "deblur_first"]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResUNet": lambda: ResUNet(1, (4, 6, 8)),
    "SRN": lambda: SRN((4, 6, 8)),
    "DHN": lambda: DHN(num_feats=(4, 6, 8)),
}
# The sum over a batch is formed in parts, or in another memory layout.
ROUNDING = {"rtol": 1e-4, "atol": 1e-7}
RATE = 0.05  # plain descent: a step of another size or a gradient at other weights shows
LAMBDA, SHARP = 0.5, 0.25  # not 1, so that a weight at the wrong place shows
Images = tuple[Tensor, Tensor]


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def images() -> Images:
    return torch.rand(4, 3, 16, 16), torch.rand(4, 3, 16, 16)


def made(
    name: str,
    order: str,
    precision: torch.dtype | None = None,
    width: int = 4,
    channels_last: bool = False,
    **choices: Any,
) -> JointStep:
    torch.manual_seed(1)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    networks = NETWORKS[name](), ReblurNet(2, width)
    deblur, reblur = (descending(net.to(memory_format=layout), RATE, precision=precision) for net in networks)
    chosen = {"loss_weight": LAMBDA, "sharp_weight": SHARP, "deblur_first": order == "deblur_first", **choices}
    return JointStep(deblur, reblur, **chosen)


def trained(name: str, order: str, images: Images, iterations: int = 2, **choices: Any) -> JointStep:
    step = made(name, order, **choices)
    layout = torch.channels_last if choices.get("channels_last") else torch.contiguous_format
    for _ in range(iterations):
        step(*(image.to(memory_format=layout) for image in images))
    return step


def networks(step: JointStep) -> tuple[nn.Module, nn.Module]:
    assert step.reblur is not None
    return step.deblur.network, step.reblur.network


def weights(*networks: nn.Module) -> list[Tensor]:
    return [weight.detach() for network in networks for weight in network.parameters()]


def plain(
    name: str, order: str, images: Images, iterations: int = 2, dtype: torch.dtype | None = None
) -> tuple[nn.Module, nn.Module]:
    """Return M_D and M_R after some iterations: each gradient by itself from its loss, by nothing that is shared."""
    torch.manual_seed(1)
    deblur_net, reblur_net = NETWORKS[name](), ReblurNet(2, 4)
    blurry, sharp = images

    def low() -> torch.autocast:
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)

    def deblurred(image: Tensor) -> list[Tensor]:
        with low():
            output = deblur_net(image)
        return [output] if isinstance(output, Tensor) else output

    def deblur_loss() -> Tensor:
        scales = deblurred(blurry)
        l_1 = sum(
            F.l1_loss(scale, F.interpolate(sharp, size=scale.shape[-2:], mode="bilinear") if index else sharp)
            for index, scale in enumerate(scales)
        )
        with low():
            return l_1 + LAMBDA * F.l1_loss(reblur_net(scales[0]), reblur_net(sharp))

    def reblur_loss(image: Tensor) -> Tensor:
        pseudo_sharp = deblurred(sharp)[0].detach()
        with low():
            l_blur = F.l1_loss(reblur_net(image), blurry)
            torch.clear_autocast_cache()  # at one cast of the weights both gradients would be added in bf16
            return l_blur + SHARP * F.l1_loss(reblur_net(pseudo_sharp), pseudo_sharp)

    def descend(network: nn.Module, loss: Tensor) -> None:
        gradient = torch.autograd.grad(loss, tuple(network.parameters()))
        with torch.no_grad():
            for weight, slope in zip(network.parameters(), gradient, strict=True):
                weight.add_(slope, alpha=-RATE)

    for _ in range(iterations):
        image = deblurred(blurry)[0].detach()  # with deblur_first L_Blur sees L from before M_D's update (D9)
        if order == "reblur_first":
            descend(reblur_net, reblur_loss(image))
            descend(deblur_net, deblur_loss())
        else:
            descend(deblur_net, deblur_loss())
            descend(reblur_net, reblur_loss(image))
    return deblur_net, reblur_net


@pytest.mark.parametrize("order", ORDERS)
class TestAgainstThePlainStep:
    @pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
    def test_weights_are_equal_bit_for_bit(
        self, name: str, order: str, images: Images, dtype: torch.dtype | None
    ) -> None:
        found = trained(name, order, images, precision=dtype)
        assert all(map(torch.equal, weights(*networks(found)), weights(*plain(name, order, images, dtype=dtype))))

    @pytest.mark.parametrize("choice", [{"channels_last": True}, {"accumulate": 2}, {"accumulate": 4}], ids=str)
    def test_other_layouts_and_micro_batches_differ_by_rounding(
        self, name: str, order: str, images: Images, choice: dict[str, Any]
    ) -> None:
        found = trained(name, order, images, 1, **choice)
        torch.testing.assert_close(
            weights(*networks(found)), weights(*plain(name, order, images, iterations=1)), **ROUNDING
        )


@pytest.mark.parametrize("channels_last", [False, True])
def test_pytorchs_fused_adam_changes_nothing_but_rounding(name: str, images: Images, channels_last: bool) -> None:
    # it takes weight, gradient and moments as they lie in memory: PyTorch lays out all three alike
    found = []
    for fused in (False, True):
        step = made(name, "reblur_first", channels_last=channels_last)
        for updater in (step.deblur, step.reblur):
            assert updater is not None
            updater.optimizer = torch.optim.Adam(updater.weights, lr=1e-3, fused=fused)
        for _ in range(2):
            step(*images)
        for network in networks(step):
            assert all(weight.grad.stride() == weight.stride() for weight in network.parameters())
        found.append(weights(*networks(step)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_the_orders_are_different(images: Images) -> None:
    found = [weights(*plain("ResUNet", order, images)) for order in ORDERS]
    assert any(not torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("order", ORDERS)
class TestMicroBatches:
    def test_losses_are_means_over_the_batch(self, order: str, images: Images) -> None:
        whole = trained("ResUNet", order, images, 1).losses
        for accumulate in (2, 4, 9):  # of four pairs there are no nine parts
            parts = trained("ResUNet", order, images, 1, accumulate=accumulate).losses
            assert list(parts) == list(whole)
            del parts["rho"]  # a ratio: the mean of those of the parts
            torch.testing.assert_close(parts, {name: whole[name] for name in parts}, **ROUNDING)

    def test_count_by_their_images_where_they_differ_in_size(self, order: str, images: Images) -> None:
        three = images[0][:3], images[1][:3]  # in parts of two and one
        whole, parts = trained("ResUNet", order, three, 1), trained("ResUNet", order, three, 1, accumulate=2)
        torch.testing.assert_close(weights(*networks(parts)), weights(*networks(whole)), **ROUNDING)

    def test_a_discriminator_is_moved_as_by_the_whole_batch(self, order: str, images: Images) -> None:
        found = []
        for accumulate in (1, 2, 4):
            torch.manual_seed(2)
            updater = descending(nn.Conv2d(3, 1, 3), RATE)
            step = made(
                "ResUNet",
                order,
                discriminator=updater,
                judge=lambda image, is_real, net=updater.network: (net(image) - float(is_real)).square().mean(),
                own_losses=lambda output, sharp, net=updater.network: {"l_adv": (net(output) - 1).square().mean()},
                accumulate=accumulate,
            )
            step(*images)
            found.append(weights(*networks(step), updater.network))
        torch.testing.assert_close(found[1], found[0], **ROUNDING)
        torch.testing.assert_close(found[2], found[0], **ROUNDING)

    def test_have_gradients_in_bf16_too(self, order: str, images: Images) -> None:
        low = trained("ResUNet", order, images, 1, precision=torch.bfloat16, accumulate=2)
        exact = trained("ResUNet", order, images, 1)
        for pair in zip(networks(low), networks(exact), strict=True):
            found, expected = (torch.cat([weight.grad.flatten() for weight in net.parameters()]) for net in pair)
            assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("order", ORDERS)
class TestNothingIsNeedless:
    """What is computed: passes of each network with and without a graph, casts, and gradients for M_R's weights."""

    @pytest.fixture
    def passes(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[type, bool], int]:
        counts: dict[tuple[type, bool], int] = {}

        def counting(kind: type[nn.Module], forward: Callable[..., Any]) -> Callable[..., Any]:
            def counted(self: nn.Module, *arguments: Any) -> Any:
                key = (kind, torch.is_grad_enabled())
                counts[key] = counts.get(key, 0) + 1
                return forward(self, *arguments)

            return counted

        for kind in (ResUNet, ReblurNet):
            monkeypatch.setattr(kind, "forward", counting(kind, kind.forward))
        return counts

    def test_no_pass_and_no_graph(self, passes: dict[tuple[type, bool], int], images: Images, order: str) -> None:
        trained("ResUNet", order, images, 1)
        # M_D: L with a graph, S_hat without; M_R: S without, L twice and S_hat with a graph
        assert passes == {(ResUNet, True): 1, (ResUNet, False): 1, (ReblurNet, True): 3, (ReblurNet, False): 1}

    @pytest.mark.parametrize("without", [{"sharp_weight": 0.0}, {"sharp_reference": "none"}], ids=str)
    def test_no_pass_for_an_l_sharp_that_is_not_there(
        self, passes: dict[tuple[type, bool], int], images: Images, order: str, without: dict[str, Any]
    ) -> None:
        assert "l_sharp" not in trained("ResUNet", order, images, 1, **without).losses
        assert passes == {(ResUNet, True): 1, (ReblurNet, True): 2, (ReblurNet, False): 1}

    def test_no_gradient_for_m_r_but_of_its_own_loss(self, images: Images, order: str) -> None:
        weight_gradients = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is torch.ops.aten.convolution_backward.default:
                    size, wants_weight = tuple(args[2].shape), args[-1][1]
                    weight_gradients.append(wants_weight and size == (5, 3, 5, 5))
                return func(*args, **(kwargs or {}))

        step = made("ResUNet", order, width=5)  # its first layer's shape occurs nowhere else
        with Watch():
            step(*images)
        assert sum(weight_gradients) == 2  # of L_Blur and L_Sharp; L_Reblur's would be a third

    def test_no_second_graph_of_m_r_at_a_time(
        self, images: Images, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remembered: list[weakref.ref[Tensor]] = []
        alive: list[int] = []
        forward = ReblurNet.forward

        def watched(self: ReblurNet, image: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return forward(self, image)
            alive.append(sum(output() is not None for output in remembered))
            inner = self.head(image - 0.5)
            remembered.append(weakref.ref(inner))
            return self.tail(self.body(inner)) + 0.5

        monkeypatch.setattr(ReblurNet, "forward", watched)
        trained("ResUNet", order, images, 1)
        assert alive == [0, 0, 0]

    def test_no_second_cast_of_weights_between_two_updates(self, images: Images, order: str) -> None:
        step = made("ResUNet", order, precision=torch.bfloat16)
        deblur_net, reblur_net = networks(step)
        casts: list[int] = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is torch.ops.aten._to_copy.default:
                    casts.append(args[0].data_ptr())
                return func(*args, **(kwargs or {}))

        with Watch():
            step(*images)
        # In an update of its own M_D sees M_R held, whose casts aren't kept: M_R(L) and M_R(S).
        expected = {deblur_net: 1 if order == "reblur_first" else 2, reblur_net: 3}
        for network, count in expected.items():
            assert {casts.count(weight.data_ptr()) for weight in network.parameters()} == {count}


class TestWithoutBasicSR:
    TEN_LINES = """
import torch
from reblur_plugin import JointStep, Updater
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
networks = ResUNet(1, (8, 8, 8)), ReblurNet(1, 8)
step = JointStep(*(Updater(network, torch.optim.Adam(network.parameters(), lr=1e-3)) for network in networks))
sharp = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
for _ in range(60):
    losses = step(torch.nn.functional.avg_pool2d(sharp, (1, 3), 1, (0, 1)), sharp)
    print(*(f"{name}={loss.item()}" for name, loss in losses.items()))
"""

    def test_it_trains_in_ten_lines(self) -> None:
        assert len(self.TEN_LINES.strip().splitlines()) == 10
        code = "import sys\nsys.modules['basicsr'] = None  # every import of it fails" + self.TEN_LINES
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        rows = [dict(word.split("=") for word in line.split()) for line in done.stdout.splitlines()]
        assert len(rows) == 60
        assert rows[0].keys() == {"l_blur", "rho", "l_sharp", "l_1", "l_reblur"}
        assert all(math.isfinite(float(loss)) for row in rows for loss in row.values())
        assert float(rows[-1]["l_1"]) < 0.9 * float(rows[0]["l_1"])
