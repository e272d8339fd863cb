"""Algorithm 1 against recursions worked out by hand on two pixels.

The plain setting, float64, no value rounded. M_D(x) = d x with d = 1, M_R(x) = r x with r = 1.25, B = (0.25, 0.75):

    L = d B                       mean(B) = 0.5, so mean(L) = 0.5 d
    L_self = mean |r L - L*|      L* = L:   0.25 * 0.5 d = 0.125 d       (Eq. 7)
    d/dd L_self = r sign mean(B) = 1.25 * 0.5 = 0.625                    L* is constant; attached it would be 0.125

SGD with lr = 0.5 moves d by 0.3125: d = 1, 0.6875, 0.375, ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from reblur_plugin.core import adapt as algorithm
from reblur_plugin.core.adapt import Adaptation, AdaptConfig, AdaptError
from reblur_plugin.core.boundary import NetworkError
from reblur_plugin.errors import ReblurError

BLURRY = (0.25, 0.75)


def adapt(deblur_net: nn.Module, reblur_net: nn.Module, blurry: Tensor, *given: Any, **choices: Any) -> Adaptation:
    """Adapt without a bound on the change: steps are large here, so that numbers are simple."""
    if not given:
        choices = {"max_change": None, **choices}
    return algorithm.adapt(deblur_net, reblur_net, blurry, *given, **choices)


class Gain(nn.Module):
    """x -> gain x + offset, where only the gain is a weight."""

    def __init__(self, gain: float, offset: float = 0.0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=dtype))
        self.offset = offset

    def forward(self, image: Tensor) -> Tensor:
        return self.gain * image + self.offset


class PixelGains(nn.Module):
    """A weight for every pixel: updates can change the order of grey values, as a real network's do."""

    def __init__(self, *gains: float) -> None:
        super().__init__()
        self.gains = nn.Parameter(pixels(*gains))

    def forward(self, image: Tensor) -> Tensor:
        return self.gains * image


class Twice(nn.Module):
    """x -> d (d x): one weight registered under two names."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.second = Gain(gain), Gain(gain)
        self.second.gain = self.first.gain

    def forward(self, image: Tensor) -> Tensor:
        return self.second(self.first(image))


class Scales(nn.Module):
    """Two outputs with a gain each: the full size and its left half."""

    def __init__(self, fine: float, coarse: float, coarse_first: bool) -> None:
        super().__init__()
        self.fine, self.coarse = Gain(fine), Gain(coarse)
        self.coarse_first = coarse_first

    def forward(self, image: Tensor) -> list[Tensor]:
        scales = [self.fine(image), self.coarse(image[..., : image.shape[-1] // 2])]
        return scales[::-1] if self.coarse_first else scales


class Counting(nn.Module):
    """Gain whose forward pass writes into one buffer and replaces another, in any mode."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.register_buffer("written", torch.tensor(7))
        self.register_buffer("replaced", torch.tensor([0.5, 0.25], dtype=torch.float64))
        self.register_buffer("empty", None)

    def forward(self, image: Tensor) -> Tensor:
        self.written += 1
        self.replaced = self.replaced * 2
        return self.gain * image


class Apply(nn.Module):
    """A gain followed by any function of the result."""

    def __init__(self, gain: float, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = Gain(gain)
        self.function = function

    def forward(self, image: Tensor) -> Any:
        return self.function(self.inner(image))


class Before(nn.Module):
    """Any function of the image, then a network."""

    def __init__(self, function: Callable[[Tensor], Tensor], inner: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = inner

    def forward(self, image: Tensor) -> Tensor:
        return self.inner(self.function(image))


class WithoutGraph(Gain):
    """A network whose author put `no_grad` on `forward`."""

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image)


class HiddenWeight(nn.Module):
    """A network whose registered weight is cut off; its output still has a graph, to a tensor nobody registered."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.hidden = [torch.tensor(1.0, dtype=torch.float64, requires_grad=True)]

    def forward(self, image: Tensor) -> Tensor:
        return self.gain.detach() * image * self.hidden[0]


class FailsAt(nn.Module):
    """A reblurring module that breaks at its n-th forward pass."""

    def __init__(self, number: int, error: BaseException) -> None:
        super().__init__()
        self.inner = Counting(1.25)
        self.left = number
        self.error = error

    def forward(self, image: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.inner(image)


def pixels(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a grey image of one row, `(1, 1, 1, W)`."""
    return torch.tensor(values, dtype=dtype).reshape(1, 1, 1, -1)


def counted(network: nn.Module) -> list[int]:
    """Return a list that grows with every forward pass of `network`."""
    passes: list[int] = []
    network.register_forward_hook(lambda *_: passes.append(1))
    return passes


def batch_norm(channels: int = 1) -> nn.BatchNorm2d:
    """Return x -> (x - 0.5) / 2 in eval mode."""
    norm = nn.BatchNorm2d(channels, eps=0.0, dtype=torch.float64)
    norm.running_mean.fill_(0.5)
    norm.running_var.fill_(4.0)
    norm.num_batches_tracked.fill_(11)
    return norm


@contextmanager
def left_as_it_was(*networks: nn.Module) -> Iterator[None]:
    """Check that everything of `networks` is the same object with the same bits after the block."""
    tensors = [
        (name, tensor, tensor.data_ptr(), tensor.detach().clone(), tensor.requires_grad)
        for network in networks
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    ]
    gradients = [
        (parameter, parameter.grad, None if parameter.grad is None else parameter.grad.clone())
        for network in networks
        for parameter in network.parameters()
    ]
    modes = [(module, module.training) for network in networks for module in network.modules()]
    hooks = [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module, _ in modes]
    try:
        yield
    finally:
        now = [tensor for net in networks for _, tensor in [*net.named_parameters(), *net.named_buffers()]]
        for (name, tensor, address, bits, requires_grad), current in zip(tensors, now, strict=True):
            assert current is tensor, name
            assert tensor.data_ptr() == address, name
            assert torch.equal(tensor, bits), name
            assert tensor.requires_grad == requires_grad, name
        for parameter, gradient, bits in gradients:
            assert parameter.grad is gradient
            assert gradient is None or torch.equal(gradient, bits)
        assert [module.training for module, _ in modes] == [mode for _, mode in modes]
        assert [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module, _ in modes] == hooks


def adam(weight: float, gradients: list[float], lr: float) -> list[float]:
    """Return Adam's weights: Kingma & Ba (2015), Algorithm 1, with their beta = 0.9, 0.999 and epsilon = 1e-8."""
    weights, first, second = [weight], 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased_first, unbiased_second = first / (1 - 0.9**step), second / (1 - 0.999**step)
        weight -= lr * unbiased_first / (math.sqrt(unbiased_second) + 1e-8)
        weights.append(weight)
    return weights


def gains(result: Any, blurry: Tensor) -> list[float]:
    """Return d of every L^i = d B."""
    return [(step.deblurred / blurry).mean().item() for step in result.steps]


@pytest.fixture
def deblur_net() -> Gain:
    return Gain(1.0)


@pytest.fixture
def reblur_net() -> Gain:
    return Gain(1.25)


@pytest.fixture
def blurry() -> Tensor:
    return pixels(*BLURRY)


class TestAlgorithm1:
    """Value: the closed forms of the module docstring."""

    def test_defaults_are_the_papers(self) -> None:
        config = AdaptConfig()
        assert (config.steps, config.lr) == (5, 3e-6)
        assert (config.optimizer, config.target, config.histogram) == ("adam", "current", "skimage")

    def test_without_choices_the_defaults_run(self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor) -> None:
        result = adapt(deblur_net, reblur_net, blurry)
        assert result.config == AdaptConfig(max_change=None)
        assert len(result.steps) == 6
        # Adam under a constant gradient g moves by lr g / (g + 1e-8) each time, g = 0.625
        moved = [(1 - gain) / (3e-6 / (1 + 1e-8 / 0.625)) for gain in gains(result, blurry)]
        assert_close(moved, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])

    @pytest.mark.parametrize(("steps", "expected"), [(1, [1.0, 0.6875]), (2, [1.0, 0.6875, 0.375])])
    def test_sgd_follows_the_gradient_of_eq7(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor, steps: int, expected: list[float]
    ) -> None:
        # d/dd = 0.625 each time; L* attached: 0.125; sum for mean: 1.25; squares: 2 * 1.25 * 0.25 d mean(B^2)
        result = adapt(deblur_net, reblur_net, blurry, steps=steps, lr=0.5, optimizer="sgd", histogram="none")
        assert_close(gains(result, blurry), expected)
        assert_close(result.image, expected[-1] * blurry)

    def test_the_initial_target_parts_from_the_current_one_at_step_two(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        # Step 1 is the same: L* = L^0. At d = 0.6875, r L^1 = 0.859 B lies below L^0 = B: the sign turns, d goes back.
        result = adapt(
            deblur_net, reblur_net, blurry, steps=2, lr=0.5, optimizer="sgd", target="initial", histogram="none"
        )
        assert_close(gains(result, blurry), [1.0, 0.6875, 1.0])

    def test_the_initial_target_is_l0_at_every_later_step(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        # lr 0.25 moves by 0.15625: d = 1, 0.84375 (1.25 d = 1.05 > 1, on), 0.6875 (0.86 < 1, back), 0.84375.
        # Against the image of the step before, 0.86 > 0.84 would lead on to 0.53125.
        result = adapt(
            deblur_net, reblur_net, blurry, steps=3, lr=0.25, optimizer="sgd", target="initial", histogram="none"
        )
        assert_close(gains(result, blurry), [1.0, 0.84375, 0.6875, 0.84375])

    def test_loss_is_eq7_before_each_update(self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor) -> None:
        # 0.125 d at d = 1, 0.6875; against L^0: 0.125, |1.25 * 0.6875 - 1| / 2 = 0.0703125. None is computed at L^N.
        choices = {"steps": 2, "lr": 0.5, "optimizer": "sgd"}
        current = adapt(deblur_net, reblur_net, blurry, **choices)
        initial = adapt(deblur_net, reblur_net, blurry, **choices, target="initial")
        assert_close([step.loss for step in current.steps[:2]], [0.125, 0.0859375])
        assert_close([step.loss for step in initial.steps[:2]], [0.125, 0.0703125])
        assert current.steps[2].loss is None
        assert initial.steps[2].loss is None

    def test_loss_may_rise_while_the_algorithm_does_as_printed(self, deblur_net: Gain, blurry: Tensor) -> None:
        # r = 0.75: L_self = 0.25 * 0.5 d, its gradient with L* held -0.75 * 0.5 = -0.375, so d and L_self grow:
        # d = 1, 1.1875, 1.375. Against L^0 the same first step lets it fall: |0.75 * 1.1875 - 1| / 2 = 0.0546875.
        choices = {"steps": 2, "lr": 0.5, "optimizer": "sgd", "histogram": "none"}
        current = adapt(deblur_net, Gain(0.75), blurry, **choices)
        assert_close(gains(current, blurry), [1.0, 1.1875, 1.375])
        assert_close([step.loss for step in current.steps[:2]], [0.125, 0.1484375])
        initial = adapt(deblur_net, Gain(0.75), blurry, **choices, target="initial")
        assert_close([step.loss for step in initial.steps[:2]], [0.125, 0.0546875])

    def test_change_is_the_mean_distance_to_the_initial_image(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        # |d - 1| / 2; from the step before it would be 0.15625 twice, from B scaled otherwise
        result = adapt(deblur_net, reblur_net, blurry, steps=2, lr=0.5, optimizer="sgd")
        assert_close([step.change for step in result.steps], [0.0, 0.15625, 0.3125])
        assert [step.number for step in result.steps] == [0, 1, 2]

    def test_change_is_measured_from_the_deblurred_not_the_blurry_image(self, reblur_net: Gain, blurry: Tensor) -> None:
        result = adapt(Gain(2.0), reblur_net, blurry, steps=1, lr=0.5, optimizer="sgd")
        assert_close([step.change for step in result.steps], [0.0, 0.15625])

    def test_change_of_the_papers_size_is_exact_in_double_precision(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        # lr = 3e-6: d moves by 0.625 * 3e-6; rounded to float32 first, the difference would be a per cent off
        result = adapt(deblur_net, reblur_net, blurry, steps=1, lr=3e-6, optimizer="sgd")
        assert_close(result.steps[1].change / (0.5 * 0.625 * 3e-6), 1.0)

    def test_adam_takes_a_step_of_lr_first(self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor) -> None:
        # m = 0.1 g, v = 0.001 g^2, both corrected to g and g^2: d = 1 - lr g / (|g| + 1e-8), SGD: 0.6875
        result = adapt(deblur_net, reblur_net, blurry, steps=1, lr=0.5)
        assert_close(gains(result, blurry), [1.0, 0.5])

    def test_adam_remembers_over_two_steps(self, deblur_net: Gain, blurry: Tensor) -> None:
        # M_R(x) = 1.25 x - 0.1: M_R(L) - L = 0.25 d B - 0.1
        #   d = 1:   (-0.0375, 0.0875), signs (-, +): g = 1.25 (-0.25 + 0.75) / 2 =  0.3125
        #   d = 0.5: (-0.069, -0.006),  signs (-, -): g = -1.25 * 0.5             = -0.625
        # m = 0.03125, then 0.028125 - 0.0625 = -0.034375; corrected by 1 - 0.81 = 0.19: -0.180921
        # v = 9.765625e-5, then 4.88184e-4; corrected by 1 - 0.998001 = 0.001999: 0.244214, root 0.494180
        # d = 0.5 + 0.5 * 0.180921 / 0.494180 = 0.683052; an Adam begun anew for step 2 would give 1
        result = adapt(deblur_net, Gain(1.25, -0.1), blurry, steps=2, lr=0.5)
        expected = adam(1.0, [0.3125, -0.625], lr=0.5)
        assert expected[2] == pytest.approx(0.683052, abs=1e-6)  # the hand's six digits
        assert_close(gains(result, blurry), expected)

    def test_adam_with_the_initial_target_turns_at_step_two(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        # d = 1: g = 0.625; d = 0.5: 1.25 L^1 = 0.625 B lies below L^0 = B: g = -0.625
        # m = 0.0625, then 0.05625 - 0.0625 = -0.00625, corrected -0.032895; v corrected is 0.390625, root 0.625
        # d = 0.5 + 0.5 * 0.032895 / 0.625 = 0.526316
        result = adapt(deblur_net, reblur_net, blurry, steps=2, lr=0.5, target="initial")
        expected = adam(1.0, [0.625, -0.625], lr=0.5)
        assert expected[2] == pytest.approx(0.526316, abs=1e-6)  # the hand's six digits
        assert_close(gains(result, blurry), expected)

    def test_adam_coasts_where_the_gradient_vanishes(self, deblur_net: Gain) -> None:
        # M_R(L) - L = 0.25 d B - 3/128 on B = (1, 1, 2, 4) / 8
        #   d = 1:    (1, 1, 5, 13) / 128:          signs (+, +, +, +): g = 1.25 * 0.25 = 0.3125
        #   d = 0.25: (-2, -2, -1, 1) / 128:        signs (-, -, -, +): g = 1.25 (-4 + 4) / 32 = 0
        # m = 0.03125, then 0.028125, corrected 0.148026; v = 9.765625e-5, then 9.755859e-5, corrected 0.0488037, root
        # 0.220916. d = 0.25 - 0.75 * 0.148026 / 0.220916 = -0.252544. AMSGrad would keep the larger v.
        blurry = pixels(0.125, 0.125, 0.25, 0.5)
        result = adapt(deblur_net, Gain(1.25, -3 / 128), blurry, steps=2, lr=0.75)
        expected = adam(1.0, [0.3125, 0.0], lr=0.75)
        assert expected[2] == pytest.approx(-0.252544, abs=1e-6)  # the hand's six digits
        assert_close(gains(result, blurry), expected)

    def test_adams_epsilon_is_1e_8_and_weights_do_not_decay(self, deblur_net: Gain, reblur_net: Gain) -> None:
        # B = 1.6e-8: g = 1.25 * 1.6e-8 = 2e-8, so d moves by lr 2 / (2 + 1); AdamW would take another 0.01 lr
        blurry = pixels(1.6e-8, 1.6e-8)
        result = adapt(deblur_net, reblur_net, blurry, steps=1, lr=0.75)
        assert_close(gains(result, blurry), [1.0, 0.5])

    def test_each_weight_follows_its_own_gradient(self) -> None:
        # M_R(L) - L = 0.5 L - 0.3125 = (-0.0625, 0.0625): gradients 1.5 (-1, 1) / 2; lr 0.25 moves by 0.1875
        result = adapt(
            PixelGains(0.5, 0.75),
            Gain(1.5, -0.3125),
            pixels(1, 1),
            steps=1,
            lr=0.25,
            optimizer="sgd",
            histogram="none",
        )
        assert_close(result.initial, pixels(0.5, 0.75))
        assert_close(result.image, pixels(0.6875, 0.5625))

    def test_any_odd_size_and_three_channels_follow_the_same_recursion(self, reblur_net: Gain) -> None:
        # mean(B) is all that counts: 0.5
        blurry = torch.linspace(0.125, 0.875, 45, dtype=torch.float64).reshape(1, 3, 5, 3)
        result = adapt(Gain(1.0), reblur_net, blurry, steps=2, lr=0.5, optimizer="sgd")
        assert_close(gains(result, blurry), [1.0, 0.6875, 0.375])
        assert result.image.shape == (1, 3, 5, 3)

    def test_a_reblurring_module_that_is_the_identity_changes_nothing(self, deblur_net: Gain, blurry: Tensor) -> None:
        # |0| has gradient 0, and so do Adam's moments
        result = adapt(deblur_net, nn.Identity(), blurry, steps=3, lr=0.5)
        assert torch.equal(result.image, blurry)
        assert [step.loss for step in result.steps] == [0.0, 0.0, 0.0, None]

    def test_zero_steps_give_the_plain_deblurred_image(self, reblur_net: Gain, blurry: Tensor) -> None:
        deblur_net = Gain(2.0)
        deblur_passes, reblur_passes = counted(deblur_net), counted(reblur_net)
        result = adapt(deblur_net, reblur_net, blurry, steps=0)
        assert_close(result.image, pixels(0.5, 1.5))
        assert torch.equal(result.image, result.initial)
        assert len(result.steps) == 1
        assert (result.steps[0].number, result.steps[0].loss, result.steps[0].change) == (0, None, 0.0)
        assert (len(deblur_passes), len(reblur_passes)) == (1, 0)

    @pytest.mark.parametrize("histogram", ["skimage", "none"])
    @pytest.mark.parametrize("target", ["current", "initial"])
    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_n_steps_cost_n_plus_one_passes_of_m_d_and_n_of_m_r(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor, steps: int, target: str, histogram: str
    ) -> None:
        deblur_passes, reblur_passes = counted(deblur_net), counted(reblur_net)
        result = adapt(deblur_net, reblur_net, blurry, steps=steps, target=target, histogram=histogram)
        assert (len(deblur_passes), len(reblur_passes)) == (steps + 1, steps)
        assert len(result.steps) == steps + 1

    def test_config_object_and_choices_by_name_are_the_same(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        config = AdaptConfig(steps=1, lr=0.5, optimizer="sgd", target="initial", histogram="none", max_change=None)
        result = adapt(deblur_net, reblur_net, blurry, config)
        assert result.config is config
        assert_close(result.image, 0.6875 * blurry)


class TestAlgorithm1Histogram:
    """Line 10. L^0 = (0.75, 1.25), L^1 = (1.125, 0.875): the update swaps dark and bright, so matching shows.

    M_D: a gain for each pixel, B = (1, 1). M_R(L) - L = 0.5 L - 0.5 = (-0.125, 0.125), gradients 1.5 (-1, 1) / 2,
    lr = 0.5 moves by 0.375. By rank L^1 takes L^0's values in its own order: (1.25, 0.75).
    """

    CHOICES: ClassVar = {"lr": 0.5, "optimizer": "sgd"}

    @pytest.fixture
    def networks(self) -> tuple[nn.Module, nn.Module]:
        return PixelGains(0.75, 1.25), Gain(1.5, -0.5)

    def test_result_has_l0s_values_in_lns_order(self, networks: tuple[nn.Module, nn.Module]) -> None:
        # matched to B it would be (1, 1), after a clamp to [0, 1] (1, 0.75), not at all (1.125, 0.875)
        result = adapt(*networks, pixels(1, 1), steps=1, **self.CHOICES)
        assert_close(result.image, pixels(1.25, 0.75))

    def test_none_returns_ln(self, networks: tuple[nn.Module, nn.Module]) -> None:
        result = adapt(*networks, pixels(1, 1), steps=1, histogram="none", **self.CHOICES)
        assert_close(result.image, pixels(1.125, 0.875))

    def test_steps_are_kept_as_they_were_before_matching(self, networks: tuple[nn.Module, nn.Module]) -> None:
        result = adapt(*networks, pixels(1, 1), steps=1, **self.CHOICES)
        assert_close(result.steps[0].deblurred, pixels(0.75, 1.25))
        assert_close(result.steps[1].deblurred, pixels(1.125, 0.875))
        assert result.initial is result.steps[0].deblurred

    def test_the_reference_is_l0_also_at_later_steps(self, networks: tuple[nn.Module, nn.Module]) -> None:
        # At L^1: 0.5 L - 0.5 = (0.0625, -0.0625), so step 2 goes back to (0.75, 1.25), and step 3 swaps again.
        # Matched to the step before, step 2 would take L^1's values: (0.875, 1.125).
        result = adapt(*networks, pixels(1, 1), steps=3, **self.CHOICES)
        assert_close(result.after(2), pixels(0.75, 1.25))
        assert_close(result.image, pixels(1.25, 0.75))

    def test_after_n_is_the_algorithm_with_n_steps(self, networks: tuple[nn.Module, nn.Module]) -> None:
        result = adapt(*networks, pixels(1, 1), steps=2, **self.CHOICES)
        assert_close(result.after(0), pixels(0.75, 1.25))
        assert_close(result.after(1), pixels(1.25, 0.75))
        assert_close(result.after(2), pixels(0.75, 1.25))
        assert torch.equal(result.after(2), result.image)

    def test_after_n_without_histogram_matching_is_ln(self, networks: tuple[nn.Module, nn.Module]) -> None:
        result = adapt(*networks, pixels(1, 1), steps=2, histogram="none", **self.CHOICES)
        assert_close(result.after(1), pixels(1.125, 0.875))

    def test_two_values_above_one_are_told_apart(self) -> None:
        # M_R(L) - L = 0.5 L - 0.25 > 0: both weights fall by 0.25 * 0.75 to (1.0625, 1.5625), in L^0's order.
        # Clamped to (1, 1) first, both would take L^0's largest value.
        result = adapt(PixelGains(1.25, 1.75), Gain(1.5, -0.25), pixels(1, 1), steps=1, lr=0.25, optimizer="sgd")
        assert_close(result.steps[1].deblurred, pixels(1.0625, 1.5625))
        assert_close(result.image, pixels(1.25, 1.75))

    @pytest.mark.parametrize("number", [-1, 3])
    def test_after_refuses_a_step_that_was_not_made(self, networks: tuple[nn.Module, nn.Module], number: int) -> None:
        result = adapt(*networks, pixels(1, 1), steps=2, **self.CHOICES)
        with pytest.raises(AdaptError, match=rf"after\({number}\): expected a step from 0 to 2"):
            result.after(number)


class TestAlgorithm1Networks:
    """Which weights move, in which mode the networks run."""

    CHOICES: ClassVar = {"lr": 0.5, "optimizer": "sgd", "histogram": "none"}

    def test_frozen_weights_are_adapted_all_the_same(self, reblur_net: Gain, blurry: Tensor) -> None:
        deblur_net = Gain(1.0).requires_grad_(False)
        with left_as_it_was(deblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=2, **self.CHOICES)
        assert_close(gains(result, blurry), [1.0, 0.6875, 0.375])
        assert not deblur_net.gain.requires_grad

    def test_gradients_the_caller_had_collected_play_no_part(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        for network in (deblur_net, reblur_net):
            network.gain.grad = torch.tensor(100.0, dtype=torch.float64)
        with left_as_it_was(deblur_net, reblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=1, **self.CHOICES)
        assert_close(gains(result, blurry), [1.0, 0.6875])
        assert_close(deblur_net.gain.grad.item(), 100.0)

    def test_tied_weights_move_as_one(self, blurry: Tensor, reblur_net: Gain) -> None:
        # L = d^2 B: d/dd = 1.25 * 2 d * 0.5 = 1.25; d = 1 - 0.25 * 1.25 = 0.6875, d^2 = 0.47265625.
        # Untied, each copy would get 0.625 and move to 0.84375.
        deblur_net = Twice(1.0)
        with left_as_it_was(deblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=1, lr=0.25, optimizer="sgd", histogram="none")
        assert_close(result.image, 0.47265625 * blurry)
        assert deblur_net.first.gain is deblur_net.second.gain

    @pytest.mark.parametrize("coarse_first", [True, False])
    def test_of_several_scales_the_finest_is_adapted(
        self, reblur_net: Gain, blurry: Tensor, coarse_first: bool
    ) -> None:
        result = adapt(Scales(1.0, 3.0, coarse_first), reblur_net, blurry, steps=2, **self.CHOICES)
        assert_close(gains(result, blurry), [1.0, 0.6875, 0.375])

    def test_every_part_of_the_network_adapts(self, blurry: Tensor, reblur_net: Gain) -> None:
        # L = a b B with a = 1, b = 2: d/da = 1.25 * 2 * 0.5 = 1.25, d/db = 0.625; lr 0.5: a = 0.375, b = 1.6875
        result = adapt(nn.Sequential(Gain(1.0), Gain(2.0)), reblur_net, blurry, steps=1, **self.CHOICES)
        assert_close(result.image, 0.375 * 1.6875 * blurry)

    def test_the_reblurring_module_stays_as_it_is(self, deblur_net: Gain, blurry: Tensor) -> None:
        # were r trained too, step 2 would have another r; d = 0.375 says it has not
        reblur_net = Gain(1.25)
        with left_as_it_was(reblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=2, **self.CHOICES)
        assert_close(gains(result, blurry), [1.0, 0.6875, 0.375])
        assert reblur_net.gain.grad is None

    def test_dropout_is_off(self, blurry: Tensor) -> None:
        deblur_net = nn.Sequential(Gain(1.0), nn.Dropout(0.9)).train()
        reblur_net = nn.Sequential(Gain(1.25), nn.Dropout(0.9)).train()
        with left_as_it_was(deblur_net, reblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=2, **self.CHOICES)
        assert_close(gains(result, blurry), [1.0, 0.6875, 0.375])

    def test_batch_norm_uses_its_running_statistics_and_keeps_them(self, reblur_net: Gain, blurry: Tensor) -> None:
        # (B - 0.5) / 2 = (-0.125, 0.125); with the image's own statistics it would be (-1, 1)
        deblur_net = nn.Sequential(batch_norm()).train()
        with left_as_it_was(deblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=1, **self.CHOICES)
        assert_close(result.initial, pixels(-0.125, 0.125))
        assert_close(deblur_net[0].running_mean.item(), 0.5)
        assert deblur_net[0].num_batches_tracked.item() == 11

    def test_batch_norm_of_the_reblurring_module_uses_its_running_statistics(
        self, deblur_net: Gain, blurry: Tensor
    ) -> None:
        # M_R(x) = (x - 0.5) / 2, so M_R(L) - L = -L / 2 - 0.25 = (-0.375, -0.625): 0.5; d/dd = -0.5 * 0.5, d = 1.125
        reblur_net = nn.Sequential(batch_norm()).train()
        with left_as_it_was(reblur_net):
            result = adapt(deblur_net, reblur_net, blurry, steps=1, **self.CHOICES)
        assert_close(result.steps[0].loss, 0.5)
        assert_close(gains(result, blurry), [1.0, 1.125])

    def test_works_in_single_precision(self, blurry: Tensor) -> None:
        deblur_net, reblur_net = Gain(1.0, dtype=torch.float32), Gain(1.25, dtype=torch.float32)
        result = adapt(deblur_net, reblur_net, blurry.float(), steps=2, lr=0.5, optimizer="sgd")
        assert result.image.dtype == torch.float32
        assert_close(gains(result, blurry), [1.0, 0.6875, 0.375])

    def test_under_autocast_every_pass_sees_the_updated_weights(self) -> None:
        # autocast keeps the low-precision copy of a weight for as long as it lasts; all values fit bfloat16 exactly
        networks = [nn.Conv2d(1, 1, 1, bias=False) for _ in range(2)]
        for network, gain in zip(networks, (1.0, 1.25), strict=True):
            nn.init.constant_(network.weight, gain)
        blurry = pixels(*BLURRY, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            networks[0](blurry)  # leaves such a copy behind
            result = adapt(*networks, blurry, steps=2, lr=0.5, optimizer="sgd", histogram="none")
            afterwards = networks[0](blurry)
        found = torch.cat([step.deblurred for step in result.steps]).float()
        assert_close(found, torch.tensor([1.0, 0.6875, 0.375]).reshape(3, 1, 1, 1) * blurry)
        assert_close(afterwards.float(), blurry)

    def test_a_deblurring_module_that_works_in_place_sees_the_same_image_in_every_pass(self, reblur_net: Gain) -> None:
        # L = d (B - 0.125) = d (0.125, 0.625): g = 1.25 * 0.375 = 0.46875, lr 0.5: d = 1, 0.765625, 0.53125
        blurry = pixels(*BLURRY)
        deblur_net = Before(lambda image: image.sub_(0.125), Gain(1.0))
        result = adapt(deblur_net, reblur_net, blurry, steps=2, **self.CHOICES)
        assert_close(gains(result, pixels(0.125, 0.625)), [1.0, 0.765625, 0.53125])
        assert torch.equal(blurry, pixels(*BLURRY))

    def test_a_reblurring_module_that_works_in_place_does_not_reach_the_deblurred_image(
        self, deblur_net: Gain, blurry: Tensor
    ) -> None:
        # M_R(L) - L = 1.25 (L - 0.25) - L = 0.25 L - 0.3125 = (-0.25, -0.125), so d = 1 + 0.5 * 0.625
        reblur_net = Before(lambda image: image.sub_(0.25), Gain(1.25))
        result = adapt(deblur_net, reblur_net, blurry, steps=1, **self.CHOICES)
        assert_close(result.steps[0].loss, 0.1875)
        assert_close(gains(result, blurry), [1.0, 1.3125])


class TestAlgorithm1Restores:
    """The caller's networks come back bit for bit, whatever happened."""

    @staticmethod
    def networks() -> tuple[nn.Module, nn.Module]:
        """Return networks in every state at once: mixed modes and flags, gradients, buffers that forward changes."""
        deblur_net = nn.Sequential(Counting(1.0), batch_norm(), nn.Dropout(0.5), Gain(1.0)).train()
        reblur_net = nn.Sequential(batch_norm(), Counting(1.25), Gain(1.0)).train()
        deblur_net[1].eval()
        reblur_net[0].eval()
        reblur_net.training = False
        deblur_net[3].gain.requires_grad_(False)
        reblur_net[1].gain.requires_grad_(False)
        deblur_net[0].gain.grad = torch.tensor(3.0, dtype=torch.float64)
        reblur_net[2].gain.grad = torch.tensor(4.0, dtype=torch.float64)
        return deblur_net, reblur_net

    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_weights_gradients_flags_modes_and_buffers(self, blurry: Tensor, steps: int, optimizer: str) -> None:
        deblur_net, reblur_net = self.networks()
        with left_as_it_was(deblur_net, reblur_net):
            adapt(deblur_net, reblur_net, blurry, steps=steps, lr=0.5, optimizer=optimizer)
        assert deblur_net[0].gain.grad.item() == 3.0
        assert reblur_net[2].gain.grad.item() == 4.0
        assert [module.training for module in deblur_net] == [True, False, True, True]
        assert (reblur_net.training, [module.training for module in reblur_net]) == (False, [False, True, True])
        assert deblur_net[0].written.item() == 7

    @pytest.mark.parametrize("number", [1, 2])
    @pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
    def test_also_after_an_exception_inside_the_reblurring_module(
        self, blurry: Tensor, number: int, error: BaseException
    ) -> None:
        deblur_net, _ = self.networks()
        reblur_net = FailsAt(number, error).train()
        with left_as_it_was(deblur_net, reblur_net), pytest.raises(type(error)) as raised:
            adapt(deblur_net, reblur_net, blurry, steps=3, lr=0.5)
        assert raised.value is error

    def test_also_after_a_refusal(self, blurry: Tensor) -> None:
        deblur_net, _ = self.networks()
        reblur_net = Apply(1.25, Tensor.detach).train()
        with left_as_it_was(deblur_net, reblur_net), pytest.raises(AdaptError):
            adapt(deblur_net, reblur_net, blurry, steps=3)

    def test_a_value_error_of_the_reblurring_module_is_not_called_a_wrong_size(
        self, deblur_net: Gain, blurry: Tensor
    ) -> None:
        reblur_net = FailsAt(1, ValueError("no kernel for this device"))
        with pytest.raises(ValueError, match="no kernel for this device") as raised:
            adapt(deblur_net, reblur_net, blurry, steps=1)
        assert "expected an image of its input's shape" not in str(raised.value)

    def test_an_existing_optimiser_still_moves_the_network(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor
    ) -> None:
        optimizer = torch.optim.SGD(deblur_net.parameters(), lr=1.0)
        alias = deblur_net.gain.data
        adapt(deblur_net, reblur_net, blurry, steps=2, lr=0.5)
        deblur_net(blurry).sum().backward()  # d/dd = 0.25 + 0.75
        optimizer.step()
        assert_close(deblur_net.gain.item(), 0.0)
        assert_close(alias.item(), 0.0)
        assert_close(deblur_net(blurry), pixels(0, 0))

    def test_the_callers_storage_is_never_written(self, deblur_net: Gain, blurry: Tensor) -> None:
        # while adaptation runs, a second view of the weight still reads 1
        alias = deblur_net.gain.data
        seen: list[float] = []
        reblur_net = Apply(1.25, lambda image: (seen.append(alias.item()), image)[1])
        adapt(deblur_net, reblur_net, blurry, steps=2, lr=0.5)
        assert seen == [1.0, 1.0]

    def test_a_buffer_shared_by_two_modules_stays_shared(self, blurry: Tensor) -> None:
        # every forward pass raises it by 2, from 7 to 9 in the first, and adds it to the image
        deblur_net = nn.Sequential(Counting(1.0), Counting(1.0), Gain(1.0))
        deblur_net[1].written = deblur_net[0].written
        first, last = deblur_net[0], deblur_net[2]
        last.register_forward_hook(lambda module, given, result: result + first.written)
        with left_as_it_was(deblur_net):
            result = adapt(deblur_net, Gain(1.25), blurry, steps=2)
        assert_close(result.initial, blurry + 9)
        assert deblur_net[0].written is deblur_net[1].written

    def test_two_calls_give_the_same(self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor) -> None:
        # neither weights nor Adam's moments are carried over
        choices = {"steps": 2, "lr": 0.5, "histogram": "none"}
        first = adapt(deblur_net, reblur_net, blurry, **choices)
        adapt(deblur_net, reblur_net, pixels(0.9, 0.1), **choices)
        second = adapt(deblur_net, reblur_net, blurry, **choices)
        assert all(
            torch.equal(one.deblurred, two.deblurred) for one, two in zip(first.steps, second.steps, strict=True)
        )
        assert_close(gains(second, blurry), adam(1.0, [0.625, 0.625], lr=0.5))

    def test_the_callers_image_is_left_alone(self, deblur_net: Gain, reblur_net: Gain) -> None:
        blurry = pixels(*BLURRY).requires_grad_()
        result = adapt(deblur_net, reblur_net, blurry, steps=2, lr=0.5)
        assert blurry.grad is None
        assert blurry.requires_grad
        assert torch.equal(blurry.detach(), pixels(*BLURRY))
        assert not any(step.deblurred.requires_grad for step in result.steps)
        assert not result.image.requires_grad


class TestAlgorithm1GradMode:
    CHOICES: ClassVar = {"steps": 2, "lr": 0.5, "optimizer": "sgd"}

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_works_inside(self, deblur_net: Gain, reblur_net: Gain, mode: Callable[[], Any], blurry: Tensor) -> None:
        with left_as_it_was(deblur_net, reblur_net), mode():
            result = adapt(deblur_net, reblur_net, blurry, **self.CHOICES)
            found = gains(result, blurry)
            image = result.after(1)
            assert not torch.is_grad_enabled()
            assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
        assert_close(found, [1.0, 0.6875, 0.375])
        assert_close(image, blurry)  # a gain keeps the order of grey values: matching gives L^0

    @torch.inference_mode()
    def test_takes_an_image_made_in_inference_mode(self) -> None:
        blurry = pixels(*BLURRY)
        assert blurry.is_inference()
        with torch.inference_mode(False):
            deblur_net, reblur_net = Gain(1.0), Gain(1.25)
        assert_close(gains(adapt(deblur_net, reblur_net, blurry, **self.CHOICES), blurry), [1.0, 0.6875, 0.375])

    def test_takes_an_image_made_in_inference_mode_outside_of_it(self, deblur_net: Gain, reblur_net: Gain) -> None:
        with torch.inference_mode():
            blurry = pixels(*BLURRY)
        result = adapt(deblur_net, reblur_net, blurry, **self.CHOICES)
        assert_close([step.change for step in result.steps], [0.0, 0.15625, 0.3125])

    def test_leaves_grad_mode_on_where_it_was_on(self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor) -> None:
        adapt(deblur_net, reblur_net, blurry, **self.CHOICES)
        assert torch.is_grad_enabled()


class TestAlgorithm1Refusals:
    @pytest.mark.parametrize(
        ("image", "message"),
        [
            ([[0.5]], r"blurry: expected a torch.Tensor \(1, C, H, W\), got list"),
            (torch.zeros(1, 1, 0, 2), r"blurry: expected at least one pixel, got \(1, 1, 0, 2\)"),
            (torch.zeros(2, 1, 1, 2), r"blurry: expected one image \(1, C, H, W\), got \(2, 1, 1, 2\).*once for each"),
            (torch.zeros(1, 1, 2), r"blurry: expected one image \(1, C, H, W\), got \(1, 1, 2\)"),
            (torch.zeros(1, 1, 1, 2, dtype=torch.uint8), r"blurry: expected floats.*got torch.uint8; divide.*by 255"),
            (pixels(0.5, math.nan), "blurry: expected finite values"),
            (pixels(0.5, -math.inf), "blurry: expected finite values"),
        ],
    )
    def test_of_the_image(self, deblur_net: Gain, reblur_net: Gain, image: Tensor, message: str) -> None:
        passes = counted(deblur_net)
        with pytest.raises(AdaptError, match=message):
            adapt(deblur_net, reblur_net, image)
        assert not passes

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_of_half_precision_weights(self, reblur_net: Gain, dtype: torch.dtype) -> None:
        mixed = nn.Sequential(Gain(1.0), Gain(1.0, dtype=dtype))  # one such weight is enough
        with pytest.raises(AdaptError, match=rf"expected float32 weights, got {dtype}.*call \.float\(\)"):
            adapt(mixed, reblur_net, pixels(0.5))

    def test_of_a_network_without_weights(self, reblur_net: Gain, blurry: Tensor) -> None:
        with pytest.raises(AdaptError, match="deblur_net: Identity has no floating-point weights to adapt"):
            adapt(nn.Identity(), reblur_net, blurry)

    def test_of_weights_that_cannot_take_a_gradient(self, reblur_net: Gain, blurry: Tensor) -> None:
        deblur_net = nn.Sequential()
        deblur_net.register_parameter("count", nn.Parameter(torch.tensor(1), requires_grad=False))
        with pytest.raises(AdaptError, match="deblur_net: Sequential has no floating-point weights"):
            adapt(deblur_net, reblur_net, blurry)

    def test_of_weights_made_in_inference_mode(self, reblur_net: Gain, blurry: Tensor) -> None:
        with torch.inference_mode():
            deblur_net = Gain(1.0)
        with pytest.raises(AdaptError, match="deblur_net: built inside inference_mode"):
            adapt(deblur_net, reblur_net, blurry)

    @pytest.mark.parametrize("deblur_net", [Apply(1.0, Tensor.detach), WithoutGraph(1.0)])
    def test_of_a_deblurring_module_that_cuts_the_gradient(
        self, deblur_net: nn.Module, reblur_net: Gain, blurry: Tensor
    ) -> None:
        with pytest.raises(AdaptError, match="deblur_net: its output carries no gradient"):
            adapt(deblur_net, reblur_net, blurry)

    def test_of_weights_that_no_gradient_reaches(self, reblur_net: Gain, blurry: Tensor) -> None:
        with pytest.raises(AdaptError, match="deblur_net: no weight received a gradient"):
            adapt(HiddenWeight(), reblur_net, blurry)

    @pytest.mark.parametrize("reblur_net", [Apply(1.25, Tensor.detach), WithoutGraph(1.25)])
    def test_of_a_reblurring_module_that_cuts_the_gradient(
        self, deblur_net: Gain, reblur_net: nn.Module, blurry: Tensor
    ) -> None:
        with pytest.raises(AdaptError, match="reblur_net: its output carries no gradient to its input"):
            adapt(deblur_net, reblur_net, blurry)

    @pytest.mark.parametrize("steps", [0, 1])
    def test_of_a_deblurring_module_that_changes_the_size(self, reblur_net: Gain, blurry: Tensor, steps: int) -> None:
        deblur_net = Apply(1.0, lambda image: image[..., :-1])
        message = r"deblur_net: expected an image of its input's shape \(1, 1, 1, 2\), got \(1, 1, 1, 1\)"
        with pytest.raises(NetworkError, match=message):
            adapt(deblur_net, reblur_net, blurry, steps=steps)

    def test_of_a_reblurring_module_that_changes_the_size(self, deblur_net: Gain, blurry: Tensor) -> None:
        reblur_net = Apply(1.25, lambda image: image[..., :-1])
        message = r"Apply: expected an image of its input's shape \(1, 1, 1, 2\), got \(1, 1, 1, 1\)"
        with pytest.raises(NetworkError, match=message):
            adapt(deblur_net, reblur_net, blurry)

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"steps": -1}, "steps: expected a whole number of updates >= 0, got -1"),
            ({"steps": 2.0}, "steps: expected a whole number.*got 2.0"),
            ({"steps": True}, "steps: expected a whole number.*got True"),
            ({"lr": 0}, "lr: expected a learning rate > 0 such as 3e-6, got 0"),
            ({"lr": -3e-6}, "lr: expected a learning rate > 0.*got -3e-06"),
            ({"lr": math.nan}, "lr: expected a learning rate > 0.*got nan"),
            ({"lr": math.inf}, "lr: expected a learning rate > 0.*got inf"),
            ({"lr": "3e-6"}, "lr: expected a learning rate > 0.*got '3e-6'"),
            ({"lr": True}, "lr: expected a learning rate > 0.*got True"),
            ({"optimizer": "adamw"}, "optimizer: expected one of adam, sgd, got 'adamw'"),
            ({"target": "blurry"}, "target: expected one of current, initial, got 'blurry'"),
            ({"histogram": True}, "histogram: expected one of skimage, torch, none, got True"),
        ],
    )
    def test_of_choices(
        self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor, choice: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(AdaptError, match=message):
            AdaptConfig(**choice)
        with pytest.raises(AdaptError, match=message):
            adapt(deblur_net, reblur_net, blurry, **choice)

    def test_of_config_and_choices_together(self, deblur_net: Gain, reblur_net: Gain, blurry: Tensor) -> None:
        with pytest.raises(AdaptError, match=r"adapt: give either config or single choices, got both \(steps, lr\)"):
            adapt(deblur_net, reblur_net, blurry, AdaptConfig(), steps=3, lr=1e-6)

    def test_is_one_of_our_own_errors(self) -> None:
        assert issubclass(AdaptError, ReblurError)
