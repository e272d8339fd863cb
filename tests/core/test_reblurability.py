"""Reblurability: mean |M_R(L) - L|, by hand on tiny linear networks, and equal in strips and as a whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.core import reblurability as module
from reblur_plugin.core.reblurability import reblurability, reblurability_map
from reblur_plugin.errors import ReblurError


class Scale(nn.Module):
    """M_R(L) = factor L, each channel with its own."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors, dtype=torch.float64).view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.factors * image


class TestValue:
    def test_it_is_the_mean_of_the_change(self) -> None:
        # L = [[1, 2], [3, 4]] / 8 in both channels; M_R takes half of the first and adds a quarter to the second:
        # |M_R(L) - L| = L / 2 and L / 4, on average 3/8 L: 3/64 [[1, 2], [3, 4]], whose mean is 30/256
        image = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).expand(1, 2, 2, 2) / 8
        network = Scale(0.5, 1.25)
        expected = 3 / 64 * torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
        torch.testing.assert_close(reblurability_map(network, image), expected)
        torch.testing.assert_close(reblurability(network, image), torch.tensor([30 / 256], dtype=torch.float64))

    def test_what_m_r_leaves_alone_has_none(self) -> None:
        assert reblurability(Scale(1, 1, 1), torch.rand(1, 3, 5, 7, dtype=torch.float64)).item() == 0

    def test_each_image_of_a_batch_has_its_own(self) -> None:
        images = torch.stack([torch.full((3, 4, 4), level, dtype=torch.float64) for level in (0.0, 0.25, 1.0)])
        torch.testing.assert_close(
            reblurability(Scale(0.5, 0.5, 0.5), images), torch.tensor([0, 0.125, 0.5], dtype=torch.float64)
        )


class TestStrips:
    @pytest.mark.parametrize("height", [1, 63, 64, 65, 200, 257])
    @pytest.mark.parametrize("rows", [17, 33])
    def test_they_give_the_result_of_the_whole_image(
        self, monkeypatch: pytest.MonkeyPatch, height: int, rows: int
    ) -> None:
        # 51 or 99 rows on each side in three layers
        layers = [nn.Conv2d(1, 1, (2 * rows + 1, 3), padding=(rows, 1), dtype=torch.float64) for _ in range(3)]
        network, image = nn.Sequential(*layers), torch.rand(1, 1, height, 6, dtype=torch.float64)
        whole = (network(image) - image).abs().detach()
        monkeypatch.setattr(module, "_PIXELS", 200)
        torch.testing.assert_close(reblurability_map(network, image), whole, rtol=0, atol=2e-5)

    def test_a_strided_network_meets_the_rows_in_its_own_phase(self, monkeypatch: pytest.MonkeyPatch) -> None:
        network = nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=4))
        image = torch.rand(1, 1, 200, 16, dtype=torch.float64)
        monkeypatch.setattr(module, "_PIXELS", 900)
        torch.testing.assert_close(reblurability_map(network, image), (network(image) - image).abs())

    def test_a_network_that_sees_the_whole_image_gets_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Everywhere(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + x.mean(dim=(2, 3), keepdim=True) - 0.5

        image = torch.linspace(0, 1, 200 * 8, dtype=torch.float64).reshape(1, 1, 200, 8)
        monkeypatch.setattr(module, "_PIXELS", 400)
        # The mean of the whole image is .5, and nothing changes; that of a part isn't
        torch.testing.assert_close(reblurability_map(Everywhere(), image), torch.zeros_like(image))

    def test_a_large_image_goes_through_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[int] = []
        network = Scale(0.5)
        network.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].shape[-2]) if inputs[0].shape[-1] == 10 else None
        )
        monkeypatch.setattr(module, "_PIXELS", 100 * 10)
        reblurability(network, torch.rand(1, 1, 400, 10, dtype=torch.float64))
        assert seen == [96 + 32, 96 + 64, 96 + 64, 112 + 32]  # 25 blocks of 16 rows in four strips, 32 around each


class TestTheNetwork:
    def test_runs_in_eval_mode_and_keeps_its_own(self) -> None:
        network = nn.Sequential(nn.Dropout(0.5))
        assert reblurability(network, torch.rand(1, 3, 8, 8)).item() == 0
        assert network.training

    def test_keeps_its_mode_after_an_error(self) -> None:
        network = nn.Conv2d(3, 3, 3)
        with pytest.raises(
            ReblurError, match=r"expected an image of its input's shape \(1, 3, 8, 8\), got \(1, 3, 6, 6\)"
        ):
            reblurability(network, torch.rand(1, 3, 8, 8))
        assert network.training

    def test_gets_no_gradient(self) -> None:
        assert not reblurability(Scale(0.5), torch.rand(1, 1, 4, 4, dtype=torch.float64)).requires_grad
