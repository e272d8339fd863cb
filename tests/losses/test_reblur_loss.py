"""The registered losses: Eq. 2, 3, 5, 7 times `loss_weight`, worked out on a network that multiplies by a gain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin import checkpoints
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.core.boundary import NetworkError
from reblur_plugin.errors import ReblurError
from reblur_plugin.losses.reblur_loss import (
    BlurLoss,
    FrozenReblurLoss,
    MultiScaleL1Loss,
    ReblurLoss,
    SelfReblurLoss,
    SharpLoss,
)


class Gain(nn.Module):
    """M_R(x) = 0.5 x."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x


def image(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


class TestWeightedLosses:
    # L = (.2, .6), B = (.3, .3), S = (.2, .8); M_R halves.
    def test_blur_loss_is_three_times_eq_2(self) -> None:
        # |.1 - .3| and |.3 - .3|: mean .1
        torch.testing.assert_close(BlurLoss(3)(Gain(), image(0.2, 0.6), image(0.3, 0.3)), torch.tensor(0.3).double())

    def test_sharp_loss_is_three_times_eq_3(self) -> None:
        # |.1 - .2| and |.4 - .8|: mean .25
        torch.testing.assert_close(SharpLoss(3)(Gain(), image(0.2, 0.8)), torch.tensor(0.75).double())

    def test_reblur_loss_is_three_times_eq_5(self) -> None:
        # |.1 - .1| and |.3 - .4|: mean .05
        torch.testing.assert_close(ReblurLoss(3)(Gain(), image(0.2, 0.6), image(0.2, 0.8)), torch.tensor(0.15).double())

    def test_self_reblur_loss_is_three_times_eq_7(self) -> None:
        # |.1 - .2| and |.3 - .6|: mean .2
        torch.testing.assert_close(SelfReblurLoss(3)(Gain(), image(0.2, 0.6)), torch.tensor(0.6).double())

    def test_multi_scale_l1_loss_sums_the_scales(self) -> None:
        # full size |.2 - .2|, |.6 - .8|: .1; half size: the mean .5 of S against .9: .4; times 3
        outputs = [image(0.2, 0.6), torch.tensor(0.9).double().reshape(1, 1, 1, 1)]
        torch.testing.assert_close(MultiScaleL1Loss(3)(outputs, image(0.2, 0.8)), torch.tensor(1.5).double())


class TestFrozenReblurLoss:
    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        """M_R with one channel inside whose only path is the middle tap: M_R(x) - .5 = .5 (sum of channels - 1.5)."""
        network = ReblurNet(num_blocks=1, num_feat=1)
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        network.head.weight.data[0, :, 2, 2] = 1
        network.tail.weight.data[:, 0, 2, 2] = 0.5
        checkpoints.save({"params": network.state_dict()}, tmp_path / "net_r.pth")
        return tmp_path / "net_r.pth"

    def test_is_eq_5_with_the_networks_weights(self, weights: Path) -> None:
        loss = FrozenReblurLoss(str(weights), loss_weight=2, slot="pixel", num_blocks=1, num_feat=1)
        deblurred = torch.full((1, 3, 4, 4), 0.2)
        sharp = torch.full((1, 3, 4, 4), 0.3)
        # M_R(L) - M_R(S) = .5 * 3 * (.2 - .3) = -.15 everywhere; twice its size is .3
        torch.testing.assert_close(loss(deblurred, sharp), torch.tensor(0.3))

    def test_of_several_stages_of_one_size_takes_the_one_that_is_named(self, weights: Path) -> None:
        stages = [torch.full((1, 3, 4, 4), 0.9), torch.full((1, 3, 4, 4), 0.2)]
        sharp = torch.full((1, 3, 4, 4), 0.3)
        last = FrozenReblurLoss(str(weights), slot="pixel", image_output="last", num_blocks=1, num_feat=1)
        torch.testing.assert_close(last(stages, sharp), torch.tensor(0.15))
        unsaid = FrozenReblurLoss(str(weights), slot="pixel", num_blocks=1, num_feat=1)
        with pytest.raises(NetworkError, match=r"^output of M_D: expected one image or several scales of it, got 0: "):
            unsaid(stages, sharp)

    def test_gradient_reaches_the_image_and_not_the_network(self, weights: Path) -> None:
        loss = FrozenReblurLoss(str(weights), num_blocks=1, num_feat=1)
        deblurred = torch.full((1, 3, 2, 2), 0.2, requires_grad=True)
        value, style = loss(deblurred, torch.full((1, 3, 2, 2), 0.3))
        value.backward()
        # each of the 3 * 4 values moves three outputs by .5 and each output counts 1/12
        torch.testing.assert_close(deblurred.grad, torch.full((1, 3, 2, 2), -3 * 0.5 / 12))
        assert style is None
        assert not any(parameter.requires_grad for parameter in loss.parameters())

    def test_refuses_a_checkpoint_of_another_network(self, weights: Path) -> None:
        with pytest.raises(checkpoints.CheckpointError, match=r"net_r\.pth: doesn't fit ReblurNet.*check the network"):
            FrozenReblurLoss(str(weights), num_blocks=2, num_feat=1)

    def test_refuses_an_unknown_slot(self, weights: Path) -> None:
        with pytest.raises(ReblurError, match="slot: expected perceptual or pixel, got 'gan'"):
            FrozenReblurLoss(str(weights), slot="gan", num_blocks=1, num_feat=1)  # type: ignore[arg-type]
