"""The plain step by hand, operations by the layers' sizes, and what the command `step` reports of a small run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import step
from benchmarks.__main__ import parse
from benchmarks.flops import count_flops
from benchmarks.plain import PlainStep
from benchmarks.report import Results
from benchmarks.step import StepForm, StepWork
from reblur_plugin.archs.complexity import count_macs
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet

B, S = 0.5, 0.8


class _Gain(nn.Module):
    """x -> gain * x; M_D with two scales gives the finest first."""

    def __init__(self, gain: float, scales: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        image = self.gain * x
        return image if self.scales == 1 else [image, image[..., ::2, ::2]]


def plain(order: str, scales: int = 1, dtype: torch.dtype | None = None) -> PlainStep:
    image = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    made = PlainStep(_Gain(0.9, scales), _Gain(0.5), B * image, S * image, order, dtype)
    made.keep_gradients = True
    return made


class TestPlainStep:
    """L = .9 * .5 = .45, r = .5; dL_R/dr = -.45 - a .8, dL_D/da = -.5 - .5 r; Adam's first step is 1e-4."""

    @pytest.mark.parametrize(
        ("order", "deblur", "reblur"),
        [
            ("reblur_first", -0.5 - 0.5 * 0.5001, -0.45 - 0.72),
            ("deblur_first", -0.75, -0.9001 * 0.5 - 0.9001 * 0.8),  # L anew, by the updated M_D
        ],
    )
    def test_gradients_by_hand(self, order: str, deblur: float, reblur: float) -> None:
        made = plain(order)
        made()
        assert float(made.gradients["deblur"][0]) == pytest.approx(deblur, rel=1e-7)
        assert float(made.gradients["reblur"][0]) == pytest.approx(reblur, rel=1e-7)
        assert made.deblur_net.gain.grad == made.gradients["deblur"][0]  # L_R adds nothing to it
        assert made.deblur_net.gain.item() == pytest.approx(0.9001, rel=1e-9)
        assert made.reblur_net.gain.item() == pytest.approx(0.5001, rel=1e-9)

    @pytest.mark.parametrize("order", ["reblur_first", "deblur_first"])
    def test_losses_scaled_for_fp16_move_the_weights_alike(self, order: str) -> None:
        exact, scaled = plain(order), plain(order, dtype=torch.float16)  # nothing here is computed in fp16
        for made in (exact, scaled):
            made()
        for name in ("deblur", "reblur"):
            assert float(scaled.gradients[name][0]) == pytest.approx(float(exact.gradients[name][0]), rel=1e-12)
        for network in ("deblur_net", "reblur_net"):
            gains = [float(getattr(made, network).gain.detach()) for made in (exact, scaled)]
            assert gains[1] == pytest.approx(gains[0], rel=1e-9)

    def test_every_scale_counts_in_l1_alone(self) -> None:
        made = plain("deblur_first", scales=2)
        made()
        assert float(made.gradients["deblur"][0]) == pytest.approx(-0.5 - 0.5 - 0.25, rel=1e-7)


class TestOperations:
    def test_a_forward_pass_is_two_for_each_multiply_add(self) -> None:
        network = ReblurNet(num_blocks=1, num_feat=4)
        with torch.no_grad():
            flops = count_flops(lambda: network(torch.zeros(2, 3, 8, 8)))
        assert flops == 2 * 2 * count_macs(network, 8, 8)

    def test_a_backward_pass_counts_what_it_makes(self) -> None:
        layer, image = nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.zeros(1, 3, 8, 8, requires_grad=True)
        once = 2 * 8 * 8 * 3 * 4 * 9
        assert count_flops(lambda: layer(image).sum().backward()) == 3 * once
        assert count_flops(lambda: layer(image.detach()).sum().backward()) == 2 * once
        assert count_flops(lambda: torch.autograd.grad(layer(image).sum(), image)) == 2 * once

    @pytest.mark.parametrize(
        ("form", "deblur_passes", "reblur_passes", "heads"),
        [
            # M_D: three passes, gradient for input and weights; M_R: four passes with both gradients
            (StepForm("fp32"), 3 + 2, 4 + 8, 3),
            # M_R: L_D's gradient is for its input alone, and S has none
            (StepForm("fp32", extras=("held",)), 3 + 2, 4 + 5, 2),
            (StepForm("fp32", extras=("held", "idle")), 3 + 2, 4 + 5, 2),
            # M_D: L, S_hat; M_R: four passes, both gradients of L_Blur and L_Sharp, that of L for L_Reblur
            (StepForm("fp32", ours=True), 2 + 2, 4 + 5, 2),
            (StepForm("fp32", ours=True, order="deblur_first"), 2 + 2, 4 + 5, 2),
        ],
        ids=lambda value: value.name if isinstance(value, StepForm) else None,
    )
    def test_the_step_needs_as_many_as_its_passes(
        self, form: StepForm, deblur_passes: int, reblur_passes: int, heads: int
    ) -> None:
        size = 32
        deblur, reblur = count_macs(ResUNet(), size, size), count_macs(ReblurNet(), size, size)
        head = size * size * 3 * 64 * 25  # the first layer's gradient for an image that nobody asks
        macs = deblur_passes * deblur + reblur_passes * reblur - (1 + heads) * head
        work = StepWork("U-Net", 2, size, "cpu")
        assert step._flops(form, work) == pytest.approx(2 * 2 * macs, rel=1e-12)
        assert step._flops(form, StepWork("U-Net", 1, 2 * size, "cpu")) == pytest.approx(4 * 2 * macs, rel=1e-12)


class TestReport:
    def test_the_difference_is_relative_and_the_larger_of_both_networks(self) -> None:
        found = [torch.tensor([3.0, 4.5]), torch.tensor([10.0, 1.0])]
        expected = [torch.tensor([3.0, 4.0]), torch.tensor([10.0, 0.0])]
        assert step._difference(found, expected) == pytest.approx(0.1)  # .5 / 5 and 1 / 10
        assert step._difference(found[:1], [10 * found[0]]) == pytest.approx(0.9)

    @pytest.fixture(scope="class")
    def groups(self) -> Iterator[list[list[str]]]:
        """The forms that are timed together; no time is taken."""
        groups: list[list[str]] = []
        rates = {torch.float32: 1e9, torch.bfloat16: 3e9}

        def once(forms: dict[str, Any], *_: Any, **named: Any) -> dict[str, list[float]]:
            groups.append(list(forms))
            return {name: [1.0] for name in forms}

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(step._NETWORKS, "small", "ReblurNet")
            patch.setattr(step.measure, "interleaved", once)
            patch.setattr(step.measure, "matmul_rate", lambda device, dtype, **_: rates[dtype])
            yield groups

    @pytest.fixture(scope="class")
    def results(self, groups: list[list[str]]) -> Results:
        arguments = parse(
            ["step", "--quick", "--repeats", "1", "--device", "cpu", "--no-memory", "--precisions", "fp32", "bf16"]
        )
        arguments.networks = ["small"]
        return step.run(arguments)

    def test_forms_are_measured_apart_by_layout_with_their_references(
        self, groups: list[list[str]], results: Results
    ) -> None:
        ours, fused = "ours reblur_first", "ours reblur_first {} channels_last fused"
        assert groups == [
            ["plain fp32", "plain fp32 held", "plain fp32 held idle", f"{ours} fp32", f"{ours} fp32 fused"],
            ["plain fp32", "plain fp32 channels_last", f"{ours} fp32 channels_last", fused.format("fp32")],
            ["plain fp32", "plain bf16", f"{ours} bf16", f"{ours} bf16 fused"],
            [
                "plain fp32",
                "plain bf16",
                "plain bf16 channels_last",
                f"{ours} bf16 channels_last",
                fused.format("bf16"),
            ],
        ]
        names = ["fp32", "fp32 channels_last", *["bf16"] * 2, *["bf16 channels_last"] * 2]
        assert [case.name.split(", ")[1] for case in results.cases] == names
        references = ["plain fp32", "plain fp32", *["plain fp32", "plain bf16"] * 2]
        assert [case.reference for case in results.cases] == references
        rows = [[row.name for row in case.rows] for case in results.cases[-2:]]
        assert rows == [["plain fp32", *groups[-1][2:]], groups[-1][1:]]

    def test_gradients_are_exact_in_float32_and_close_in_bf16(self, results: Results) -> None:
        float32, last, bf16, *_ = results.cases
        for name in ("plain fp32", "plain fp32 held idle", "ours reblur_first fp32"):
            assert float32.row(name).values["gradient"] == 0
        assert 0 < last.row("ours reblur_first fp32 channels_last").values["gradient"] < 1e-4
        assert 1e-3 < bf16.row("ours reblur_first bf16").values["gradient"] < 0.2

    def test_a_row_has_its_operations_and_its_precisions_matrix_rate(self, results: Results) -> None:
        float32, _, bf16, *_ = results.cases
        # a pixel of M_R takes 4 * 64 * 64 * 25 + 2 * 4800 multiply-adds, and M_D is one here; as many passes as above
        floor = (13 * 419_200 - 3 * 4800) / (17 * 419_200 - 4 * 4800)
        assert float32.floor("ours reblur_first fp32") == pytest.approx(floor, rel=1e-12)
        assert [bf16.row(f"plain {name}").matmul_rate for name in ("fp32", "bf16")] == [1e9, 3e9]

    def test_peak_memory_is_taken_from_the_same_forms(self) -> None:
        work = StepWork("U-Net", 1, 16, "cpu")
        for ours in (False, True):
            step.prepare(StepForm("fp32", ours=ours), work)()

    def test_paper_sizes_are_taken_on_a_gpu_and_small_ones_here(self) -> None:
        arguments = parse(["step"])
        assert step._sizes(arguments, "U-Net", torch.device("cuda")) == (16, 256)
        assert step._sizes(arguments, "U-Net", torch.device("cpu")) == (1, 96)
        assert step._sizes(parse(["step", "--batch", "2", "--size", "48"]), "SRN", torch.device("cpu")) == (2, 48)
