"""What can be chosen about Algorithm 1 beside its numbers: weights, kept images, bounds, precision, layout, time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.core.adapt import AdaptConfig, AdaptError, adapt


class Gain(nn.Module):
    """x -> gain x."""

    def __init__(self, gain: float, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=dtype))

    def forward(self, image: Tensor) -> Tensor:
        return self.gain * image


BLURRY = torch.tensor([[[[0.25, 0.75]]]], dtype=torch.float64)  # mean 0.5
HALF: dict[str, Any] = {"lr": 0.5, "optimizer": "sgd", "histogram": "none", "max_change": None}


class Two(nn.Module):
    """x -> second (first x), named parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Gain(1.0), Gain(2.0)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(image))


class TestParameters:
    """L = a b B with a = 1, b = 2, M_R = 1.25: d/da = 1.25 b mean(B) = 1.25, d/db = 0.625; steps of 0.5."""

    @pytest.mark.parametrize(
        ("patterns", "gain"),
        [
            (("decoder.*",), 1.0 * 1.6875),
            (["encoder.gain"], 0.375 * 2.0),
            (("*.gain",), 0.375 * 1.6875),
            ("all", 0.375 * 1.6875),
        ],
    )
    def test_only_those_named_move(self, patterns: Any, gain: float) -> None:
        network = Two()
        result = adapt(network, Gain(1.25), BLURRY, steps=1, parameters=patterns, **HALF)
        torch.testing.assert_close(result.image, gain * BLURRY)
        assert [weight.item() for weight in network.parameters()] == [1.0, 2.0]
        assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())

    def test_no_gradient_is_made_for_the_others(self) -> None:
        seen: list[Tensor | None] = []
        network = Two()
        network.encoder.gain.register_hook(seen.append)
        adapt(network, Gain(1.25), BLURRY, steps=1, parameters=("decoder.*",), **HALF)
        assert seen == []

    @pytest.mark.parametrize(
        ("patterns", "message"),
        [
            (("decodr.*",), r"parameters: expected names of weights of M_D, got 'decodr.\*'; did you mean decoder.\*"),
            (("decoder.*", "x"), r"got 'x'; there are encoder.\*, decoder.\*$"),
            ((), "parameters: expected all or a list of names, got an empty list"),
            ("decoder.*", r"parameters: expected all or a list of names of weights, got 'decoder.\*'"),
            ((1,), r"parameters: expected all or a list of names of weights, got \(1,\)"),
        ],
    )
    def test_refusals(self, patterns: Any, message: str) -> None:
        with pytest.raises(AdaptError, match=message):
            adapt(Two(), Gain(1.25), BLURRY, parameters=patterns)


class TestKeep:
    def test_images_that_nobody_asked_for_are_forgotten(self) -> None:
        result = adapt(Gain(1.0), Gain(1.25), BLURRY, steps=4, keep=[1], **HALF)
        assert [step.number for step in result.steps if step.deblurred is not None] == [0, 1, 4]
        torch.testing.assert_close(result.after(1), 0.6875 * BLURRY)
        torch.testing.assert_close(result.initial, BLURRY)
        with pytest.raises(AdaptError, match=r"after\(2\): that image wasn't kept; add 2 to keep"):
            result.after(2)

    def test_numbers_are_told_of_all_steps(self) -> None:
        every, some = (adapt(Gain(1.0), Gain(1.25), BLURRY, steps=3, keep=keep, **HALF) for keep in ("all", ()))
        assert [(step.loss, step.change) for step in some.steps] == [(step.loss, step.change) for step in every.steps]
        assert torch.equal(some.image, every.image)

    @pytest.mark.parametrize(
        ("keep", "message"),
        [
            ((6,), r"keep: expected steps from 0 to 5, got \[6\]"),
            ((-1,), r"keep: expected steps from 0 to 5, got \[-1\]"),
            ("last", "keep: expected all or a list of steps, got 'last'"),
            ((True,), r"keep: expected all or a list of steps, got \(True,\)"),
            (3, "keep: expected all or a list of steps, got 3"),
        ],
    )
    def test_refusals(self, keep: Any, message: str) -> None:
        with pytest.raises(AdaptError, match=message):
            AdaptConfig(keep=keep)


class TestSeen:
    def test_each_image_is_shown_as_soon_as_it_is_there(self) -> None:
        """d = 1, 0.6875, 0.375: each step of 0.5 follows the gradient 0.625; L^i = d B."""
        order: list[Any] = []

        def seen(number: int, deblurred: Tensor) -> None:
            order.append((number, deblurred.clone()))
            assert not deblurred.requires_grad

        network = Gain(1.0)
        adapt(network, Gain(1.25), BLURRY, tick=lambda: order.append("pass"), seen=seen, steps=2, keep=(), **HALF)
        assert [entry if entry == "pass" else entry[0] for entry in order] == ["pass", 0, "pass", 1, "pass", 2]
        for (_, deblurred), gain in zip(order[1::2], (1.0, 0.6875, 0.375), strict=True):
            torch.testing.assert_close(deblurred, gain * BLURRY)

    def test_they_come_before_the_histogram_is_matched(self) -> None:
        shown: list[Tensor] = []
        choices = {**HALF, "histogram": "skimage", "steps": 1}
        result = adapt(Gain(1.0), Gain(1.25), BLURRY, seen=lambda number, image: shown.append(image), **choices)
        torch.testing.assert_close(shown[1], 0.6875 * BLURRY)
        torch.testing.assert_close(result.image, BLURRY)  # line 10: two pixels get the values of L^0


class TestFallback:
    """d = 1, 0.6875, 0.375, ...: mean |L^i - L^0| = 0.15625 i."""

    CHOICES: ClassVar[dict[str, Any]] = {**HALF, "steps": 3}

    def test_within_the_bound_nothing_is_said(self) -> None:
        result = adapt(Gain(1.0), Gain(1.25), BLURRY, **{**self.CHOICES, "max_change": 0.5})
        assert result.fallback is None
        torch.testing.assert_close(result.image, 0.0625 * BLURRY)

    def test_beyond_it_the_unadapted_image_is_returned(self) -> None:
        result = adapt(Gain(1.0), Gain(1.25), BLURRY, **{**self.CHOICES, "max_change": 0.25})
        assert result.image is result.initial
        assert result.fallback == "mean change 0.312 after step 2 is beyond max_change 0.25; use a smaller lr"
        torch.testing.assert_close(result.after(1), 0.6875 * BLURRY)  # what N = 1 would have given
        assert result.after(2) is result.initial
        assert result.after(3) is result.initial

    def test_coming_back_later_does_not_help(self) -> None:
        # against L^0: d = 1, 0.6875, 1: the last step is where it began
        choices = {**self.CHOICES, "steps": 2, "target": "initial", "max_change": 0.1}
        result = adapt(Gain(1.0), Gain(1.25), BLURRY, **choices)
        assert result.steps[2].change == 0.0
        assert result.fallback is not None

    def test_nan_falls_back_as_well(self) -> None:
        # lr * r * mean(B) = 1e305 * 1e5 * 0.5 is beyond double precision
        result = adapt(Gain(1.0), Gain(1e5), BLURRY, **{**self.CHOICES, "lr": 1e305})
        assert result.image is result.initial
        assert result.fallback == "nan or infinity after step 1 with lr 1e+305; use a smaller lr"

    def test_a_rising_loss_is_no_reason(self) -> None:
        result = adapt(Gain(1.0), Gain(0.75), BLURRY, **{**self.CHOICES, "steps": 2, "max_change": 0.5})
        assert result.steps[1].loss > result.steps[0].loss
        assert result.fallback is None

    def test_without_an_update_nan_is_an_error(self) -> None:
        with pytest.raises(AdaptError, match="adapt: nan or infinity without any update; check the weights of deblur"):
            adapt(Gain(math.nan), Gain(1.25), BLURRY)

    @pytest.mark.parametrize("bound", [0, -0.1, math.nan, True, "0.1"])
    def test_refusals(self, bound: Any) -> None:
        with pytest.raises(AdaptError, match=r"max_change: expected a mean difference > 0 such as 0\.1, or None, got"):
            AdaptConfig(max_change=bound)


class TestHistogramOnTheDevice:
    def test_gives_what_scikit_image_gives(self) -> None:
        networks = ResUNet(1, (4, 4, 4)), ReblurNet(1, 4)
        blurry = torch.rand(1, 3, 20, 33)
        one, other = (adapt(*networks, blurry, steps=2, lr=1e-3, histogram=name).image for name in ("skimage", "torch"))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)  # float32
        assert not torch.equal(one, adapt(*networks, blurry, steps=2, lr=1e-3, histogram="none").image)


class TestPrecisionAndLayout:
    @pytest.fixture
    def networks(self) -> tuple[nn.Module, nn.Module]:
        return ResUNet(1, (8, 8, 8)), ReblurNet(1, 8)

    def test_channels_last_changes_nothing_but_rounding(self, networks: tuple[nn.Module, nn.Module]) -> None:
        blurry = torch.rand(1, 3, 30, 41)
        seen: list[bool] = []
        networks[0].head.register_forward_hook(
            lambda _, given, found: seen.append(found.is_contiguous(memory_format=torch.channels_last))
        )
        choices = {"steps": 2, "lr": 1e-3, "optimizer": "sgd", "histogram": "none"}
        found = adapt(*networks, blurry, channels_last=True, **choices).image
        assert all(seen)
        torch.testing.assert_close(found, adapt(*networks, blurry, **choices).image, rtol=0, atol=1e-6)
        assert all(weight.is_contiguous() for network in networks for weight in network.parameters())

    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("optimizer", ["adam", "sgd"])
    def test_the_fused_optimiser_changes_nothing_but_rounding(
        self, networks: tuple[nn.Module, nn.Module], monkeypatch: Any, optimizer: Any, channels_last: bool
    ) -> None:
        asked: list[Any] = []
        step = torch.optim.Optimizer.zero_grad
        monkeypatch.setattr(
            torch.optim.Optimizer,
            "zero_grad",
            lambda self, **given: (asked.append(self.defaults["fused"]), step(self, **given))[1],
        )
        blurry = torch.rand(1, 3, 30, 41)
        choices: dict[str, Any] = {"steps": 3, "lr": 1e-3, "histogram": "none", "optimizer": optimizer}
        exact, found = (
            adapt(*networks, blurry, channels_last=channels_last, fused=fused, **choices) for fused in (False, True)
        )
        assert asked == [None] * 3 + [True] * 3
        assert exact.steps[-1].change > 1e-4
        torch.testing.assert_close(found.image, exact.image, rtol=0, atol=1e-6)

    def test_bf16_computes_in_bfloat16_and_updates_in_float32(self, networks: tuple[nn.Module, nn.Module]) -> None:
        seen: set[torch.dtype] = set()
        for network in networks:
            network.head.register_forward_hook(lambda _, given, found: seen.add(found.dtype))
        blurry = torch.rand(1, 3, 30, 41)
        result = adapt(*networks, blurry, steps=1, lr=1e-3, histogram="none", amp="bf16")
        assert seen == {torch.bfloat16}
        exact = adapt(*networks, blurry, steps=1, lr=1e-3, histogram="none")
        assert (result.image.float() - exact.image).abs().max() < 0.02  # a few of bfloat16's steps of 1/256
        assert result.steps[1].change > 0

    def test_auto_follows_the_device(
        self, networks: tuple[nn.Module, nn.Module], bf16_units: Callable[[bool], None]
    ) -> None:
        seen: list[torch.dtype] = []
        networks[0].head.register_forward_hook(lambda _, given, found: seen.append(found.dtype))
        for has_units in (True, False):
            bf16_units(has_units)
            adapt(*networks, torch.rand(1, 3, 8, 8), steps=0, amp="auto")
        assert seen == [torch.bfloat16, torch.float32]

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"amp": "fp16"}, "amp: expected one of none, bf16, auto, got 'fp16'"),
            ({"fused": "yes"}, "fused: expected True or False, got 'yes'"),
            ({"channels_last": 1}, "channels_last: expected True or False, got 1"),
            ({"max_memory": 0}, "max_memory: expected bytes > 0 or a size such as 4G or 800M, got 0"),
            ({"max_memory": 4.5e9}, "max_memory: expected bytes > 0 or a size such as 4G or 800M, got 4500000000.0"),
            ({"max_memory": "4 potatoes"}, "max_memory: expected bytes > 0 or a size such as 4G or 800M, got '4 potat"),
        ],
    )
    def test_refusals(self, choice: dict[str, Any], message: str) -> None:
        with pytest.raises(AdaptError, match=message):
            AdaptConfig(**choice)

    @pytest.mark.parametrize(
        ("size", "expected"), [(7, 7), ("7", 7), ("4G", 2**32), ("2.5 MiB", 2621440), ("1kb", 1024)]
    )
    def test_sizes(self, size: Any, expected: int) -> None:
        assert AdaptConfig(max_memory=size).max_memory == expected


def test_time_is_that_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    # a clock that goes on by 1, 2, 3, ... seconds between looks
    looks = iter([0.0, 1.0, 3.0, 6.0])
    monkeypatch.setattr("reblur_plugin.core.algorithm1.time.perf_counter", lambda: next(looks))
    result = adapt(Gain(1.0), Gain(1.25), BLURRY, steps=2, **HALF)
    assert [step.seconds for step in result.steps] == [1.0, 2.0, 3.0]
    assert result.seconds == 6.0


@pytest.mark.parametrize("name", ["deblur_net", "reblur_net"])
def test_no_network_is_refused(name: str) -> None:
    networks = {"deblur_net": Gain(1.0), "reblur_net": Gain(1.25), name: None}
    with pytest.raises(AdaptError, match=rf"^{name}: expected a network \(torch.nn.Module\), got NoneType$"):
        adapt(**networks, blurry=BLURRY)
