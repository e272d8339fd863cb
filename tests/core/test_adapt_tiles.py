"""Algorithm 1 in tiles and with checkpointing against the whole-image gradient, worked out here without either."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.core.adapt import AdaptConfig, adapt
from reblur_plugin.core.boundary import NetworkError
from reblur_plugin.core.parts import Plan, Tiling

PLANS = {
    "two columns": Plan(tiling=Tiling(1, 2, 16)),
    "uneven": Plan(tiling=Tiling(2, 3, 16)),
    "checkpointed": Plan(0, 2),
    "both": Plan(1, 0, Tiling(3, 2, 32)),
}


def seven_by_seven(channels: int) -> nn.Sequential:
    """Return a network that looks 3 pixels far."""
    layers = [nn.Conv2d(channels, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, channels, 5, padding=2)]
    return nn.Sequential(*layers).double()


def by_hand(deblur_net: nn.Module, reblur_net: nn.Module, blurry: Tensor, lr: float, steps: int) -> list[Tensor]:
    """Return L^0 ... L^N: plain gradient descent on mean |M_R(L) - L*| over the whole image."""
    network = copy.deepcopy(deblur_net)
    images = []
    for _ in range(steps):
        deblurred = network(blurry)
        loss = (reblur_net(deblurred) - deblurred.detach()).abs().mean()
        slopes = torch.autograd.grad(loss, list(network.parameters()))
        with torch.no_grad():
            for weight, slope in zip(network.parameters(), slopes, strict=True):
                weight -= lr * slope
        images.append(deblurred.detach())
    return [*images, network(blurry).detach()]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("size", [(50, 77), (64, 48)])
def test_the_tiles_gradients_add_up_to_the_whole_images(plan: Plan, size: tuple[int, int]) -> None:
    # 3 + 3 pixels of receptive field in 16 of halo: equal everywhere, up to the order of sums in double precision
    deblur_net, reblur_net = seven_by_seven(2), seven_by_seven(2)
    blurry = torch.rand(1, 2, *size, dtype=torch.float64)
    expected = by_hand(deblur_net, reblur_net, blurry, 0.1, 2)
    result = adapt(
        deblur_net, reblur_net, blurry, plan=plan, steps=2, lr=0.1, optimizer="sgd", histogram="none", max_change=None
    )
    for step, image in zip(result.steps, expected, strict=True):
        torch.testing.assert_close(step.deblurred, image, rtol=0, atol=1e-12)
    losses = [(reblur_net(image) - image).abs().mean().item() for image in expected[:2]]
    torch.testing.assert_close([step.loss for step in result.steps[:2]], losses)


def test_without_enough_halo_the_gradient_is_another_one() -> None:
    # the oracle above can tell: 20 pixels far is more than a halo of 16
    deblur_net = nn.Conv2d(1, 1, 3, padding=20, dilation=20).double()
    reblur_net = seven_by_seven(1)
    blurry = torch.rand(1, 1, 64, 64, dtype=torch.float64)
    choices = {"steps": 1, "lr": 0.1, "optimizer": "sgd", "histogram": "none", "max_change": None}
    expected = by_hand(deblur_net, reblur_net, blurry, 0.1, 1)[1]
    for halo, equal in ((16, False), (32, True)):
        found = adapt(deblur_net, reblur_net, blurry, plan=Plan(tiling=Tiling(2, 2, halo)), **choices).image
        assert (float((found - expected).abs().max()) < 1e-12) == equal


def test_a_gain_follows_its_closed_form_in_tiles() -> None:
    # test_adapt.py's recursion: d falls by lr r mean(B) = 0.5 * 1.25 * 0.5 in each step, whatever is cut where
    class Gain(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

        def forward(self, image: Tensor) -> Tensor:
            return self.gain * image

    blurry = torch.linspace(0, 1, 40 * 50, dtype=torch.float64).reshape(1, 1, 40, 50)
    plan = Plan(tiling=Tiling(2, 3, 16))
    choices = {"steps": 2, "lr": 0.5, "histogram": "none", "max_change": None}
    result = adapt(Gain(1.0), Gain(1.25), blurry, plan=plan, optimizer="sgd", **choices)
    torch.testing.assert_close(result.image, 0.375 * blurry)
    result = adapt(Gain(1.0), Gain(1.25), blurry, plan=plan, optimizer="adam", **choices)
    torch.testing.assert_close(result.image, (1 - 2 * 0.5) * blurry, rtol=0, atol=1e-7)  # epsilon: 1e-8 / 0.625
    # against L^0 the sign turns at step 2
    result = adapt(Gain(1.0), Gain(1.25), blurry, plan=plan, optimizer="sgd", target="initial", **choices)
    torch.testing.assert_close(result.image, blurry)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_strides_and_padding_keep_their_phase(plan: Plan) -> None:
    # U-Net with strides 2 and 4 on a size that it pads; M_R looks 6 pixels far, M_D about 20
    deblur_net, reblur_net = ResUNet(1, (4, 4, 4)), ReblurNet(1, 4)
    blurry = torch.rand(1, 3, 150, 131)
    if plan.tiling:
        plan = Plan(plan.deblur_depth, plan.reblur_depth, Tiling(plan.tiling.rows, plan.tiling.columns, 48))
    choices = {"steps": 2, "lr": 1e-4, "optimizer": "sgd"}
    whole = adapt(deblur_net, reblur_net, blurry, **choices)
    tiled = adapt(deblur_net, reblur_net, blurry, plan=plan, **choices)
    for one, other in zip(whole.steps, tiled.steps, strict=True):
        torch.testing.assert_close(one.deblurred, other.deblurred, rtol=0, atol=1e-6)  # float32
    assert tiled.plan is plan


def test_every_tile_costs_n_plus_one_passes_of_m_d_and_n_of_m_r() -> None:
    deblur_net, reblur_net = seven_by_seven(1), seven_by_seven(1)
    passes: dict[nn.Module, int] = {deblur_net: 0, reblur_net: 0}

    def count(network: nn.Module, *_: object) -> None:
        passes[network] += 1

    for network in passes:
        network.register_forward_hook(count)
    ticks: list[int] = []
    blurry = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    plan = Plan(tiling=Tiling(2, 3, 16))
    adapt(deblur_net, reblur_net, blurry, steps=3, plan=plan, tick=lambda: ticks.append(1))
    assert (passes[deblur_net], passes[reblur_net]) == (6 * 4, 6 * 3)
    assert len(ticks) == 6 * 4


class FailsAt(nn.Module):
    """A network that breaks at its n-th pass."""

    def __init__(self, inner: nn.Module, number: int, error: BaseException) -> None:
        super().__init__()
        self.inner = inner
        self.left = number
        self.error = error

    def forward(self, image: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise self.error
        return self.inner(image)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_exception_inside_tiles_or_checkpoints_leaves_all_as_it_was(
    plan: Plan, number: int, error: BaseException
) -> None:
    # a checkpointed part runs twice a step: the second pass is that of the backward pass
    deblur_net, reblur_net = nn.Sequential(FailsAt(seven_by_seven(1), number, error)), seven_by_seven(1)
    before = [(weight, weight.data_ptr(), weight.detach().clone()) for weight in deblur_net.parameters()]
    blurry = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    with pytest.raises(type(error)) as raised:
        adapt(deblur_net, reblur_net, blurry, steps=4, lr=0.1, plan=plan)
    assert raised.value is error
    for weight, address, bits in before:
        assert weight.data_ptr() == address
        assert torch.equal(weight, bits)
        assert weight.grad is None
        assert weight.requires_grad
    assert not any("forward" in part.__dict__ for network in (deblur_net, reblur_net) for part in network.modules())


@pytest.mark.parametrize("cut", [lambda image: image[..., 1:], lambda image: image[..., :-16, :]])
def test_a_network_that_changes_the_size_of_a_tile_is_named(cut: Callable[[Tensor], Tensor]) -> None:
    class Cuts(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return cut(image)

    plan = Plan(tiling=Tiling(2, 2, 16))
    blurry = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    with pytest.raises(NetworkError, match="Cuts: expected an image of its input's shape"):
        adapt(seven_by_seven(1), Cuts(), blurry, plan=plan)
    with pytest.raises(NetworkError, match="deblur_net: expected an image of its input's shape"):
        adapt(nn.Sequential(seven_by_seven(1), Cuts()), seven_by_seven(1), blurry, plan=plan)


def test_the_default_is_the_whole_photograph() -> None:
    result = adapt(seven_by_seven(1), seven_by_seven(1), torch.rand(1, 1, 20, 20, dtype=torch.float64), AdaptConfig())
    assert result.plan == Plan()
    assert len(result.plan.tiles(4000, 6000)) == 1
