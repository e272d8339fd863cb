"""What adaptation costs, and how it is kept within a bound: plans worked out by hand, bytes counted by hand."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate, chain, cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core import budget
from reblur_plugin.core.adapt import AdaptConfig, AdaptError, adapt
from reblur_plugin.core.budget import Costs, Demand, PixelCost, _LiveBytes
from reblur_plugin.core.device import in_use
from reblur_plugin.core.parts import Plan, Tiling

MIB = 2**20


class TestLiveBytes:
    def test_counts_what_is_alive_at_once(self) -> None:
        # 400 bytes each: a stays, b is gone when c is made, d comes beside a and c
        with _LiveBytes(set()) as live:
            a = torch.ones(100)
            b = a + 1
            del b
            c = a * 2
            d = torch.cat([a, c])
            del a, c, d
        assert live.activations == 400 + 400 + 800
        assert live.widest == 400 + 400 + 800  # cat reads two and makes one

    def test_views_share_their_bytes(self) -> None:
        with _LiveBytes(set()) as live:
            a = torch.ones(10, 10)
            views = [a.t(), a[3:], a.reshape(-1)]
        assert live.activations == 400
        del views

    def test_weights_are_told_by_their_shape(self) -> None:
        layer = nn.Linear(5, 7, bias=False)
        with _LiveBytes({layer.weight.shape}) as live:
            layer(torch.ones(2, 5)).sum().backward()
        assert live.weights % (5 * 7 * 4) == 0
        assert live.weights > 0
        assert live.activations < 5 * 7 * 4 + 200

    def test_half_precision_is_worked_on_in_float32(self) -> None:
        with _LiveBytes(set()) as live:
            torch.ones(100, dtype=torch.bfloat16).neg()
        assert live.widest == 800


class TestDemand:
    COST = PixelCost(Plan(0), bytes=100.0, step_seconds=2.0, pass_seconds=1.0)

    def test_whole(self) -> None:
        plan = Demand(30, 40, steps=5, held=7).planned(self.COST, None)
        assert plan == Plan(0, None, None, memory=7 + 1200 * 100, seconds=(5 * 2 + 1) * 1200)

    def test_in_tiles_the_largest_tells_memory_and_all_tell_time(self) -> None:
        # 16 x 80 in tiles of 32 + 48 own pixels: 0-48 and 16-80 with halo
        plan = Demand(16, 80, steps=1, held=0).planned(self.COST, Tiling(1, 2, 16))
        assert (plan.memory, plan.seconds) == (16 * 64 * 100, (2 + 1) * 16 * (48 + 64))

    def test_what_comes_at_the_end_counts_too(self) -> None:
        assert Demand(1, 1, steps=1, held=0, least=5000).planned(self.COST, None).memory == 5000


class Known(Costs):
    """Costs that are known: 1000 and 500 bytes a pixel, 1 and 1.25 seconds a megapixel, a halo of 32."""

    plain = PixelCost(Plan(), 1000.0, 1e-6, 0.0)
    checkpointed = PixelCost(Plan(1), 500.0, 1.25e-6, 0.0)
    halo = 32
    _fixed = 10 * MIB

    def __init__(self, **choices: Any) -> None:
        config = AdaptConfig(**{"steps": 1, "histogram": "none", "keep": (), **choices})
        super().__init__(nn.Identity(), nn.Identity(), torch.zeros(1, 3, 1, 1), config)


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "in_use", lambda device: 0)


class TestUseThatChanges:
    """As in TestPlan: 1070 MiB whole, 570 checkpointed, and what the process holds."""

    def plans(self, monkeypatch: pytest.MonkeyPatch, *in_use: int) -> list[Plan]:
        known = Known()
        found = []
        for size in in_use:
            monkeypatch.setattr(budget, "in_use", lambda device, size=size: size * MIB)
            found.append(known.plan(1024, 1024, 1100 * MIB))
        return found

    def test_a_plan_that_does_not_fit_any_more_is_made_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second, third = self.plans(monkeypatch, 0, 31, 600)
        assert (first.deblur_depth, first.tiling, first.memory) == (None, None, 1070 * MIB)
        assert (second.deblur_depth, second.tiling, second.memory) == (1, None, 601 * MIB)
        assert third.tiling is not None
        assert third.memory <= 1100 * MIB

    def test_a_plan_that_fits_stays_and_tells_what_it_needs_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first, second, third = self.plans(monkeypatch, 31, 0, 20)
        assert [plan.deblur_depth for plan in (first, second, third)] == [1, 1, 1]
        assert [plan.memory // MIB for plan in (first, second, third)] == [601, 570, 590]


class Everywhere(nn.Module):
    """x + mean of x - .5: every pixel sees the whole image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x.mean(dim=(2, 3), keepdim=True) - 0.5


@pytest.mark.usefixtures("nothing_held")
class TestNetworksThatSeeTheWholeImage:
    def costs(self, deblur_net: nn.Module, reblur_net: nn.Module, steps: int = 1) -> Known:
        known = Known(steps=steps)
        known._networks = deblur_net, reblur_net
        return known

    @pytest.mark.parametrize("networks", [(Everywhere(), nn.Identity()), (nn.Identity(), Everywhere())])
    def test_are_not_computed_in_tiles(self, networks: tuple[nn.Module, nn.Module]) -> None:
        assert self.costs(*networks).plan(1024, 1024, 570 * MIB).tiling is None
        # The longer strip brightens by .8 along 512 pixels, of which a tile with 32 pixels of halo sees 288: its mean
        # is .8 (1/2 - 144/512) = .175 off, 45 grey levels
        names = " or ".join(type(network).__name__ for network in networks)
        message = (
            r"^max_memory: expected at least 0\.56 GiB for 1024x1024 pixels with these networks, got 0\.55 GiB, and "
            rf"{names} can't be computed in tiles: they would change it by 4[456]\.\d grey levels; give more, or a "
        )
        with pytest.raises(AdaptError, match=message):
            self.costs(*networks).plan(1024, 1024, 560 * MIB)

    def test_do_not_matter_where_they_are_not_used(self) -> None:
        assert self.costs(nn.Identity(), Everywhere(), steps=0).plan(1024, 1024, 300 * MIB).tiling is not None


@pytest.mark.usefixtures("nothing_held")
class TestPlan:
    """1024 x 1024 pixels: five images of 12 MiB and 10 fixed are 70 MiB; 1000 MiB or 500 MiB for the networks."""

    @pytest.mark.parametrize(
        ("bound", "expected", "size"),
        [(None, Plan(), 1070), (1070, Plan(), 1070), (1069, Plan(1), 570), (570, Plan(1), 570)],
    )
    def test_whole_first_then_checkpointed(self, bound: int | None, expected: Plan, size: int) -> None:
        plan = Known().plan(1024, 1024, None if bound is None else bound * MIB)
        assert (plan.deblur_depth, plan.tiling) == (expected.deblur_depth, None)
        assert plan.memory == size * MIB

    @pytest.mark.parametrize("bound", [569, 400, 200, 100])
    def test_then_the_fastest_tiles(self, bound: int) -> None:
        plan = Known().plan(1024, 1024, bound * MIB)
        assert plan.tiling is not None
        assert plan.tiling.halo == 32
        assert plan.memory <= bound * MIB
        for rows in range(1, 9):
            for columns in range(1, 9):
                for cost in (Known.plain, Known.checkpointed):
                    other = Demand(1024, 1024, 1, 70 * MIB).planned(cost, Tiling(rows, columns, 32))
                    assert other.memory > bound * MIB or other.seconds >= plan.seconds

    def test_what_is_held_now_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(budget, "in_use", lambda device: 100 * MIB)
        assert Known().plan(1024, 1024, None).memory == 1170 * MIB

    def test_kept_images_count(self) -> None:
        # with five steps four more than the first and the last
        assert Known(steps=5).plan(1024, 1024, None).memory == 1070 * MIB
        assert Known(steps=5, keep="all").plan(1024, 1024, None).memory == 1118 * MIB

    def test_histogram_matching_counts_at_the_end(self) -> None:
        # 64 MiB for a channel's sorting, beside 60 for the five images: smaller tiles don't help
        # 124 MiB are 0.1211 GiB, told as 0.13: what is named works
        known = Known(histogram="skimage")
        assert known.plan(1024, 1024, None).memory == 1070 * MIB
        assert known.plan(1024, 1024, 124 * MIB).memory == 124 * MIB
        with pytest.raises(AdaptError, match=r"expected at least 0\.13 GiB"):
            known.plan(1024, 1024, 124 * MIB - 1)

    def test_too_small_a_bound_names_the_least_that_works(self) -> None:
        with pytest.raises(AdaptError) as raised:
            Known().plan(1024, 1024, 50 * MIB)
        # tiles of 64 and twice 32 of halo: 128 x 128 x 500 bytes = 7.8 MiB
        assert str(raised.value) == (
            "max_memory: expected at least 0.08 GiB for 1024x1024 pixels with these networks, got 0.05 GiB; "
            "give more, or a smaller photograph"
        )
        least = 70 * MIB + 128 * 128 * 500
        assert Known().plan(1024, 1024, least).memory == least


class TestCosts:
    def test_are_those_of_the_networks(self) -> None:
        # of memory M_R alone decides: 32 channels of 4 bytes; it keeps the head's and, for each of 2 blocks, two more
        deblur_net, reblur_net = nn.Conv2d(3, 3, 1), ReblurNet(2, 32)
        costs = Costs(deblur_net, reblur_net, torch.zeros(1, 3, 1, 1), AdaptConfig())
        assert 5 * 32 * 4 < costs.plain.bytes < 12 * 32 * 4

    def test_time_is_that_of_the_step_and_of_the_last_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # a run looks at the clock before the step, after it and after the pass: 3 s and 1 s for 64 x 64 pixels
        looks = accumulate(chain([100.0], cycle([3.0, 1.0, 7.0])))
        monkeypatch.setattr(time, "perf_counter", lambda: next(looks))
        monkeypatch.setattr(budget, "_TIMED", 64)
        plain = Costs(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 1, 1), AdaptConfig()).plain
        assert (plain.step_seconds, plain.pass_seconds) == (3 / 4096, 1 / 4096)

    def test_the_largest_operation_counts_once_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # on 64 x 64 pixels: 10 bytes a pixel alive, 4 of them touched at once: 10 + 1.25 * 4
        seen = SimpleNamespace(activations=10 * 4096, widest=4 * 4096)
        monkeypatch.setattr(Costs, "_live", lambda self, plan: seen)
        costs = Costs(nn.Identity(), nn.Identity(), torch.zeros(1, 3, 1, 1), AdaptConfig())
        assert costs._bytes(Plan()) == 15

    def test_checkpointing_is_chosen_by_what_it_saves(self) -> None:
        deblur_net = ResUNet(4, (16, 16, 16))
        costs = Costs(deblur_net, ReblurNet(2, 16), torch.zeros(1, 3, 1, 1), AdaptConfig())
        assert costs.checkpointed.bytes < 0.75 * costs.plain.bytes
        assert costs.checkpointed.plan.deblur_depth is not None

    @pytest.mark.parametrize(("steps", "expected"), [(1, 80), (0, 48)])
    def test_the_halo_is_that_of_both_networks_where_both_are_used(self, steps: int, expected: int) -> None:
        # 20 pixels far, and 30 more by M_R: 32 and 64 in steps of 16, and 16 for blending
        networks = [nn.Conv2d(1, 1, 3, padding=far, dilation=far) for far in (20, 30)]
        assert Costs(*networks, torch.zeros(1, 1, 1, 1), AdaptConfig(steps=steps)).halo == expected

    @pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="PyTorch before 2.9 has other switches")
    def test_the_halo_is_measured_in_full_precision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # TF32 on a CPU: unless full precision is asked for, convolutions lose 13 bits of what they multiply
        convolved, backends = nn.functional.conv2d, torch.backends
        seen: set[str] = set()

        def rounded(image: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
            seen.add(backends.cudnn.conv.fp32_precision)
            if backends.cudnn.conv.fp32_precision != "ieee":
                image = (image.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)
            assert not torch.is_autocast_enabled("cpu")
            return convolved(image, *rest, **options)

        monkeypatch.setattr(nn.functional, "conv2d", rounded)
        before = backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision
        with torch.autocast("cpu", torch.bfloat16):
            costs = Costs(ResUNet(2, (8, 8, 8)), ReblurNet(1, 8), torch.zeros(1, 3, 1, 1), AdaptConfig())
            assert costs.halo <= 80
            assert costs.seam < 1e-5
        assert seen == {"ieee"}
        assert (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision) == before

    def test_a_network_that_cannot_be_checkpointed_stays_as_it_is(self) -> None:
        deblur_net = nn.Sequential(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)))
        costs = Costs(nn.Sequential(nn.Conv2d(3, 3, 1), deblur_net), nn.Conv2d(3, 3, 1), torch.zeros(1), AdaptConfig())
        costs._like = torch.zeros(1, 3, 1, 1)
        assert costs.checkpointed.plan.deblur_depth != 1

    def test_the_first_run_of_a_process_is_not_the_one_that_is_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [0.0]
        runs: list[int] = []
        run = Costs._run

        def first_is_slow(self: Costs, plan: Plan, size: int) -> Any:
            runs.append(size)
            return run(self, plan, size)

        def look() -> float:
            now[0] += 1000.0 if len(runs) == 1 else 2.0
            return now[0]

        monkeypatch.setattr(Costs, "_run", first_is_slow)
        monkeypatch.setattr(time, "perf_counter", look)
        plain = Costs(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 1, 1), AdaptConfig()).plain
        assert (plain.step_seconds, plain.pass_seconds) == (2 / 128**2, 2 / 128**2)

    def test_networks_and_chance_are_left_alone(self) -> None:
        deblur_net, reblur_net = ResUNet(1, (4, 4, 4)).train(), ReblurNet(1, 4).train()
        before = [weight.detach().clone() for weight in deblur_net.parameters()]
        chance = torch.get_rng_state()
        costs = Costs(deblur_net, reblur_net, torch.zeros(1, 3, 1, 1), AdaptConfig())
        _ = costs.plain, costs.checkpointed, costs.halo
        assert torch.equal(chance, torch.get_rng_state())
        assert all(torch.equal(one, other) for one, other in zip(before, deblur_net.parameters(), strict=True))
        assert deblur_net.training
        assert reblur_net.training
        assert all(weight.requires_grad and weight.grad is None for weight in deblur_net.parameters())


def peak_bytes() -> int:
    """Return the most resident bytes since the peak was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return peak


def _peak(size: int, bound: int | None) -> tuple[int, int, Plan]:
    """Return a fresh process's resident bytes before adapting and at the peak, and how it was done."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    deblur_net, reblur_net = ResUNet(2, (32, 32, 32)), ReblurNet(1, 32)
    blurry = torch.rand(1, 3, size, size)
    adapt(deblur_net, reblur_net, blurry[..., :64, :64], steps=2)  # loads what torch loads late
    held = in_use(blurry.device)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far becomes the size of now
    total = None if bound is None else held + bound
    plan = adapt(deblur_net, reblur_net, blurry, steps=2, keep=(), max_memory=total).plan
    return held, peak_bytes(), plan


def _peak_of_refusal(beyond: int) -> tuple[int, int, str]:
    """Return a fresh process's bytes before planning and at the peak, and why SRN can't adapt within that bound."""
    torch.set_num_threads(1)
    deblur_net, reblur_net = SRN(), ReblurNet(2)
    adapt(ResUNet(1, (4, 4, 4)), ReblurNet(1, 4), torch.rand(1, 3, 64, 64), steps=1)  # loads what torch loads late
    blurry = torch.rand(1, 3, 512, 512)
    held = in_use(blurry.device)
    Path("/proc/self/clear_refs").write_text("5")
    try:
        adapt(deblur_net, reblur_net, blurry, steps=1, keep=(), max_memory=held + beyond)
    except AdaptError as error:
        message = str(error)
    return held, peak_bytes(), message


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system doesn't tell peak memory")
@pytest.mark.parametrize("bound", [20, 200])
def test_a_refusal_stays_within_the_bound_too(bound: int) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        held, peak, message = process.submit(_peak_of_refusal, bound * MIB).result()
    assert message.startswith("max_memory: expected ")
    assert (peak - held) / MIB <= bound


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system doesn't tell peak memory")
@pytest.mark.parametrize("bound", [330, 230])
def test_the_bound_is_kept(bound: int) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        held, peak, plan = process.submit(_peak, 448, bound * MIB).result()
    assert plan != Plan()
    assert peak - held <= bound * MIB
    assert peak - held > bound * MIB / 3  # and used


def _beside_its_estimate(fused: bool) -> tuple[int, int]:
    """Return a fresh process's peak when SRN adapts to a whole photograph, and what was said before."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    deblur_net, reblur_net, blurry = SRN(), ReblurNet(2), torch.rand(1, 3, 256, 448)
    config = AdaptConfig(steps=1, keep=(), channels_last=True, fused=fused)
    plan = Costs(deblur_net, reblur_net, blurry, config).plan(256, 448, None)
    Path("/proc/self/clear_refs").write_text("5")
    adapt(deblur_net, reblur_net, blurry, config, plan=plan)
    return peak_bytes(), plan.memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system doesn't tell peak memory")
@pytest.mark.parametrize("fused", [False, True])
def test_the_estimate_is_kept_in_channels_last(fused: bool) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        peak, told = process.submit(_beside_its_estimate, fused).result()
    assert told / 2 < peak <= told
