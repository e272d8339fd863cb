"""The plain form of Algorithm 1 that adaptation is compared with, and the comparison itself on a small image."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks import __main__ as command
from benchmarks import tta
from reblur_plugin.archs.resunet_arch import ResUNet


class Gain(nn.Module):
    """x -> gain x."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.passes = 0

    def forward(self, image: Tensor) -> Tensor:
        self.passes += 1
        return self.gain * image


BLURRY = torch.tensor([[[[0.25, 0.75]]]], dtype=torch.float64)


class TestPlain:
    def test_is_algorithm_1(self) -> None:
        # M_R = 1.25: d/dd L_self = 1.25 mean(B) = 0.625 at each step, so Adam moves d by lr / (1 + 1e-8 / 0.625)
        deblur_net = Gain(1.0)
        first, last = tta.ends(deblur_net, Gain(1.25), BLURRY, 3)
        assert torch.equal(first, BLURRY)
        assert math.isclose(float((1 - last / BLURRY).mean()), 3 * 3e-6, rel_tol=1e-6)
        assert deblur_net.gain.item() == 1.0

    def test_saves_nothing(self) -> None:
        # L^0 and L^N apart, L* and L^i apart in each step; gradient for M_R's weights too
        deblur_net, reblur_net = Gain(1.0), Gain(1.25)
        tta.ends(deblur_net, reblur_net, BLURRY, 3)
        assert (deblur_net.passes, reblur_net.passes) == (2 + 2 * 3, 3)
        assert reblur_net.gain.grad is not None

    def test_line_9_in_every_step_gives_the_same(self) -> None:
        deblur_net, reblur_net = Gain(1.0), Gain(1.25)
        looped = tta.ends(deblur_net, reblur_net, BLURRY, 3, looped=True)
        assert deblur_net.passes == 1 + 3 * 3
        assert torch.equal(torch.cat(looped), torch.cat(tta.ends(deblur_net, reblur_net, BLURRY, 3)))

    def test_matches_the_histogram(self) -> None:
        # a gain keeps the order of grey values: L^N takes L^0's values
        blurry = torch.rand(1, 3, 5, 7, dtype=torch.float64)
        assert torch.equal(tta.plain(Gain(1.0), Gain(1.25), blurry, 2), blurry)


def test_every_form_is_measured_and_float32_gives_the_plain_result(
    monkeypatch: pytest.MonkeyPatch, bf16_units: Callable[[bool], None]
) -> None:
    bf16_units(True)
    monkeypatch.setitem(tta._NETWORKS, "small", lambda: ResUNet(num_blocks=2, num_feats=(32, 64, 64)))
    arguments = command.parse(["tta", "--quick", "--repeats", "1", "--no-memory", "--device", "cpu"])
    arguments.networks = ["small"]
    (case,) = tta.run(arguments).cases
    assert len(case.rows) == 2 + 2 * 2 * 3  # each precision and layout by itself, fused, checkpointed
    plain, ours = case.row("plain fp32"), case.row("ours fp32")
    assert plain.flops is not None
    assert ours.flops is not None
    assert 0.5 < ours.flops / plain.flops < 0.75  # forwards 2 for 4, no gradient for M_R: 0.67
    for row in case.rows:
        assert row.values["difference"] < (1e-6 if "fp32" in row.name else 0.02)
    assert plain.values["moved"] > 1e-4  # so that 1e-6 says something
    recomputed = case.row("ours fp32 checkpointed").flops
    assert recomputed is not None
    assert recomputed > ours.flops


def test_peak_memory_can_be_asked_for_in_another_process() -> None:
    form, work = tta.AdaptForm(checkpointed=True), tta.AdaptWork("U-Net", 16, 16, 1, "cpu")
    assert tta.prepare(form, work, tta.Plan(0))().shape == (1, 3, 16, 16)


@pytest.mark.parametrize("word", ["640", "640x", "ax3", "0x5"])
def test_a_size_that_is_none_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parse(["tta", "--sizes", word])
    assert "argument --sizes: " in capsys.readouterr().err


def test_sizes_are_read() -> None:
    assert command.parse(["tta", "--sizes", "640x360", "32x16"]).sizes == [(640, 360), (32, 16)]
