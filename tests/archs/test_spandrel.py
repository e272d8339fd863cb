"""Others' networks by spandrel: found by their weights alone, trained, saved and adapted like ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin import checkpoints, cli, deblur
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.spandrel_arch import SpandrelNet
from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.engine import training

spandrel = pytest.importorskip("spandrel")


@pytest.fixture
def nafnet() -> nn.Module:
    from spandrel.architectures.NAFNet import NAFNet

    net = NAFNet(width=4, middle_blk_num=1, enc_blk_nums=[1], dec_blk_nums=[1])
    for weight in net.parameters():  # beta and gamma are zero at the start, which hides the blocks
        nn.init.normal_(weight, std=0.1)
    return net.eval()


@pytest.fixture
def theirs(nafnet: nn.Module, tmp_path: Path) -> Path:
    torch.save({"params": nafnet.state_dict()}, tmp_path / "NAFNet-GoPro.pth")
    return tmp_path / "NAFNet-GoPro.pth"


def image(height: int, width: int) -> Tensor:
    return torch.rand(1, 3, height, width)


class TestSpandrelNet:
    def test_is_the_network_of_the_checkpoint(self, nafnet: nn.Module, theirs: Path) -> None:
        for size in ((16, 24), (17, 5)):
            blurry = image(*size)
            assert torch.equal(SpandrelNet(theirs).eval()(blurry), nafnet(blurry))

    def test_what_it_needs_of_the_size_is_repeated_from_the_edge_and_cut_off(self, theirs: Path) -> None:
        net = SpandrelNet(theirs)
        seen: list[Tensor] = []
        net.net = nn.Identity()
        net.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        net._requirements = spandrel.SizeRequirements(minimum=16, multiple_of=8)
        blurry = image(9, 21)
        assert torch.equal(net(blurry), blurry)
        assert seen[0].shape == (1, 3, 16, 24)
        assert torch.equal(seen[0][..., 9:, :21], blurry[..., -1:, :].expand(-1, -1, 7, -1))

    def test_weights_move(self, theirs: Path) -> None:
        net = SpandrelNet(theirs)
        net(image(8, 8)).sum().backward()
        assert all(weight.grad is not None for weight in net.parameters())

    def test_safetensors(self, nafnet: nn.Module, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        path = tmp_path / "naf.safetensors"
        save_file(nafnet.state_dict(), path)
        blurry = image(8, 8)
        assert torch.equal(reblur_plugin.load(path).deblur_net(blurry), nafnet(blurry))
        path.write_bytes(b"no tensors")
        with pytest.raises(CheckpointError, match="damaged or no file of safetensors"):
            SpandrelNet(path)

    def test_networks_for_something_else_are_refused(self, tmp_path: Path) -> None:
        from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

        cases: dict[str, dict[str, int]] = {
            "expected one that keeps an image's size, got RealESRGAN Compact": {"upscale": 2},
            "expected a network for 3 colours, got RealESRGAN Compact for 1": {
                "num_in_ch": 1,
                "num_out_ch": 1,
                "upscale": 1,
            },
        }
        for message, choices in cases.items():
            net = SRVGGNetCompact(num_feat=4, num_conv=1, **choices)
            torch.save(net.state_dict(), tmp_path / "theirs.pth")
            with pytest.raises(CheckpointError, match=message):
                SpandrelNet(tmp_path / "theirs.pth")

    def test_unknown_weights_and_missing_files(self, tmp_path: Path) -> None:
        torch.save({"conv.weight": torch.ones(3)}, tmp_path / "theirs.pth")
        with pytest.raises(CheckpointError, match=r"theirs\.pth: expected weights of a network that spandrel knows"):
            SpandrelNet(tmp_path / "theirs.pth")
        with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint"):
            SpandrelNet(tmp_path / "none.pth")


def test_a_photograph_is_adapted_by_their_weights_and_an_m_r_for_them(
    theirs: Path, tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_options["network_g"] = {"type": "SpandrelNet", "weights": str(theirs)}
    tiny_options["train"] |= {"total_iter": 2, "freeze_deblur_net": True}
    for key in ("optim_g", "pixel_opt"):
        del tiny_options["train"][key]
    del tiny_options["val"]
    training.train(tiny_options, tmp_path)
    m_r = tmp_path / "experiments" / tiny_options["name"] / "models" / "net_r_latest.pth"
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 24, 3), 120, dtype=np.uint8))
    words = ["a.png", "-o", "out", "--weights", str(theirs), "--reblur_weights", str(m_r), "--lr", "1e-3"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["deblur", *words, "--device", "cpu"])
    assert cli.guarded(deblur.main) == 0
    assert cv2.imread("out/a.png").shape == (20, 24, 3)


def test_what_is_trained_further_needs_the_first_file_no_more(
    theirs: Path, tmp_path: Path, tiny_options: dict[str, Any]
) -> None:
    tiny_options["network_g"] = {"type": "SpandrelNet", "weights": str(theirs)}
    tiny_options["train"] |= {"total_iter": 2}
    training.train(tiny_options, tmp_path)
    models = tmp_path / "experiments" / tiny_options["name"] / "models"
    theirs.unlink()
    deblur_net, reblur_net = reblur_plugin.load(models / "net_g_latest.pth")
    assert isinstance(deblur_net, SpandrelNet)
    assert isinstance(reblur_net, ReblurNet)
    trained = checkpoints.state_dict(models / "net_g_latest.pth")
    assert all(torch.equal(value, trained[name]) for name, value in deblur_net.state_dict().items())
