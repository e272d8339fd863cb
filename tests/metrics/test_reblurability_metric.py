"""The metric reblurability: in grey levels, by the M_R of a checkpoint that tells its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.errors import MetricError
from reblur_plugin.evaluation.scoring import Scorer
from reblur_plugin.evaluation.values import Measured
from reblur_plugin.metrics.reblurability_metric import load_reblur_net, reblurability

reblur_plugin.register()
BLOCK = {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4}


class Gain(torch.nn.Module):
    """M_R(L) = L times a factor for R, G and B each."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = torch.nn.Parameter(torch.tensor(factors).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.factors * image


def save(path: Path, network: torch.nn.Module, **origin: Any) -> str:
    checkpoints.save({"params": network.state_dict(), "origin": {"options": origin}}, path)
    return str(path)


@pytest.fixture(autouse=True)
def fresh_cache() -> None:
    load_reblur_net.cache_clear()


class TestValue:
    def test_it_is_the_mean_change_in_grey_levels_and_takes_bgr(self) -> None:
        image = np.zeros((4, 6, 3), dtype=np.uint8)
        image[..., 2] = 200  # red
        assert reblurability(image, reblur_net=Gain(0.5, 1, 1)) == pytest.approx(100 / 3)
        assert reblurability(image, reblur_net=Gain(1, 1, 0.5)) == pytest.approx(0)

    def test_the_border_is_left_out_of_the_mean(self) -> None:
        image = np.full((5, 6, 3), 40, dtype=np.uint8)
        image[1:-1, 1:-1] = 100
        assert reblurability(image, reblur_net=Gain(0.5, 0.5, 0.5), crop_border=1) == pytest.approx(50)

    def test_basicsr_computes_it_with_and_without_a_sharp_image(self, tmp_path: Path, rng: np.random.Generator) -> None:
        from basicsr.metrics import calculate_metric

        network = ReblurNet(1, 4)
        options = {"type": "reblurability", "weights": save(tmp_path / "net_r.pth", network, network_r=BLOCK)}
        image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        rgb = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            expected = (network(rgb) - rgb).abs().mean().item() * 255
        assert calculate_metric({"img": image}, options) == pytest.approx(expected, rel=1e-5)
        assert calculate_metric({"img": image, "img2": image}, options) == pytest.approx(expected, rel=1e-5)


class TestLoading:
    def test_a_checkpoint_is_read_once(self, tmp_path: Path) -> None:
        path = save(tmp_path / "net_r.pth", ReblurNet(1, 4), network_r=BLOCK)
        network = load_reblur_net(path)
        Path(path).unlink()
        assert load_reblur_net(path) is network
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())

    def test_the_network_is_the_one_that_the_checkpoint_tells(self, tmp_path: Path) -> None:
        given = ReblurNet(2, 6, global_skip=True)
        block = BLOCK | {"num_blocks": 2, "num_feat": 6, "global_skip": True}
        network = load_reblur_net(save(tmp_path / "net_r.pth", given, network_r=block))
        device = next(network.parameters()).device
        image = torch.rand(1, 3, 16, 16, device=device)
        assert torch.equal(network(image), given.to(device).eval()(image))


class TestRefusals:
    IMAGE = np.zeros((8, 8, 3), dtype=np.uint8)

    @pytest.mark.parametrize("given", [None, "net_r.pth"])
    def test_without_a_network(self, given: Any) -> None:
        with pytest.raises(MetricError, match=r"reblurability: weights: missing; give net_r_\*\.pth, or network_r"):
            reblurability(self.IMAGE, reblur_net=given)

    def test_a_checkpoint_that_tells_no_network(self, tmp_path: Path) -> None:
        path = save(tmp_path / "net_g.pth", ReblurNet(1, 4), network_g=BLOCK)
        with pytest.raises(CheckpointError, match=r"net_g\.pth: doesn't tell which network .*; expected net_r_\*\.pth"):
            reblurability(self.IMAGE, weights=path)

    def test_a_network_that_isnt_known(self, tmp_path: Path) -> None:
        path = save(tmp_path / "net_r.pth", ReblurNet(1, 4), network_r={"type": "Mine"})
        with pytest.raises(
            CheckpointError, match=r"net_r\.pth: belongs to a network 'Mine' that isn't known here; give"
        ):
            reblurability(self.IMAGE, weights=path)

    def test_arguments_that_a_network_does_not_take(self, tmp_path: Path) -> None:
        path = save(tmp_path / "net_r.pth", ReblurNet(1, 4), network_r=BLOCK | {"wings": 2})
        with pytest.raises(CheckpointError, match=r"net_r\.pth: ReblurNet can't take the options in it: .*wings"):
            reblurability(self.IMAGE, weights=path)

    def test_weights_of_another_network(self, tmp_path: Path) -> None:
        path = save(tmp_path / "net_r.pth", ReblurNet(1, 4), network_r=BLOCK | {"num_blocks": 2})
        with pytest.raises(CheckpointError, match=r"net_r\.pth: doesn't fit ReblurNet"):
            reblurability(self.IMAGE, weights=path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint"):
            reblurability(self.IMAGE, weights=str(tmp_path / "none.pth"))


def test_it_computes_where_the_models_own_networks_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # under num_gpu: 0 a GPU that is there isn't taken
    weights = save(tmp_path / "net_r.pth", ReblurNet(1, 4), network_r=BLOCK)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    picture = np.zeros((16, 16, 3), np.uint8)
    scorer = Scorer({"blur": {"type": "reblurability", "weights": weights}}, torch.device("cpu"), None, 0)
    assert scorer.begin(Measured(picture, picture)).result().keys() == {"blur"}
