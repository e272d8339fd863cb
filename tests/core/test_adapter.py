"""An adapter used for one photograph after another; in a video test_adapt.py's recursion goes on, by 0.3125 a step."""

from __future__ import annotations

import weakref
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.core import adapt as front_door
from reblur_plugin.core import algorithm1
from reblur_plugin.core.adapt import AdaptConfig, Adapter, AdaptError, adapt
from reblur_plugin.core.budget import Costs
from reblur_plugin.core.parts import Plan, Tiling


class Gain(nn.Module):
    """x -> gain x."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain, dtype=torch.float64))

    def forward(self, image: Tensor) -> Tensor:
        return self.gain * image


BLURRY = torch.tensor([[[[0.25, 0.75]]]], dtype=torch.float64)
CHOICES: dict[str, Any] = {"steps": 1, "lr": 0.5, "optimizer": "sgd", "histogram": "none", "max_change": None}


def gain(image: Tensor) -> float:
    return float((image / BLURRY).mean())


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [(1.0, 0.6875), (1.0, 0.6875), (1.0, 0.6875)]),  # the paper: anew for each image
        (1.0, [(1.0, 0.6875), (0.6875, 0.375), (0.375, 0.0625)]),
        # begins at 1 + (d - 1) / 2: 0.84375, 1 + (0.53125 - 1) / 2 = 0.765625
        (0.5, [(1.0, 0.6875), (0.84375, 0.53125), (0.765625, 0.453125)]),
    ],
)
def test_a_frame_begins_between_the_trained_and_the_adapted_weights(
    decay: float, expected: list[tuple[float, float]]
) -> None:
    network = Gain(1.0)
    adapter = Adapter(network, Gain(1.25), decay=decay, **CHOICES)
    results = [adapter(BLURRY) for _ in expected]
    found = [(gain(result.initial), gain(result.image)) for result in results]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))
    assert network.gain.item() == 1.0
    assert network.gain.grad is None


def test_without_decay_it_is_adapt() -> None:
    adapter = Adapter(Gain(1.0), Gain(1.25), AdaptConfig(steps=2, lr=0.01), decay=0)
    adapter(BLURRY)
    expected = adapt(Gain(1.0), Gain(1.25), BLURRY, steps=2, lr=0.01)
    assert torch.equal(adapter(BLURRY).image, expected.image)


def test_reset_begins_anew() -> None:
    adapter = Adapter(Gain(1.0), Gain(1.25), decay=1, **CHOICES)
    adapter(BLURRY)
    adapter.reset()
    assert gain(adapter(BLURRY).initial) == 1.0


def test_what_went_astray_is_not_carried_on() -> None:
    adapter = Adapter(Gain(1.0), Gain(1.25), decay=1, **{**CHOICES, "max_change": 0.1})
    assert adapter(BLURRY).fallback is not None
    assert gain(adapter(BLURRY).initial) == 1.0


def test_only_chosen_weights_are_carried() -> None:
    network = nn.Sequential(Gain(1.0), Gain(2.0))
    adapter = Adapter(network, Gain(1.25), decay=1, parameters=("1.*",), **CHOICES)
    adapter(BLURRY)
    assert gain(adapter(BLURRY).initial) == 1.6875  # 2 - 0.5 * 0.625


@pytest.mark.parametrize("decay", [-0.1, 1.1, True, "0.5"])
def test_refuses_another_decay(decay: Any) -> None:
    with pytest.raises(AdaptError, match="decay: expected a number from 0 to 1, got"):
        Adapter(Gain(1.0), Gain(1.25), decay=decay)


def test_refuses_config_and_choices_together() -> None:
    with pytest.raises(AdaptError, match=r"Adapter: give either config or single choices, got both \(steps\)"):
        Adapter(Gain(1.0), Gain(1.25), AdaptConfig(), steps=3)


class TestBoundOnMemory:
    """An adapter owns the plan of each size, and the costs by which it is made."""

    def adapter(self, max_memory: int | None = 2**40, **choices: Any) -> Adapter:
        networks = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]
        return Adapter(*networks, steps=1, decay=0, max_memory=max_memory, **choices)

    def test_costs_are_measured_once_for_all_photographs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        measured: list[int] = []
        run = Costs._run
        monkeypatch.setattr(Costs, "_run", lambda *given: (measured.append(1), run(*given))[1])
        adapter = self.adapter()
        first = adapter(torch.rand(1, 3, 20, 24)).plan
        once = len(measured)
        second = adapter(torch.rand(1, 3, 20, 48)).plan
        assert 0 < once == len(measured)
        assert second.seconds == pytest.approx(2 * first.seconds)  # by pixels

    def test_costs_are_those_of_the_photographs_type(self) -> None:
        adapter = Adapter(nn.Conv2d(3, 3, 3, padding=1).double(), nn.Conv2d(3, 3, 3, padding=1).double(), steps=1)
        double = adapter.plan(torch.rand(1, 3, 512, 512, dtype=torch.float64)).memory
        adapter.deblur_net.float()
        adapter.reblur_net.float()
        assert adapter.plan(torch.rand(1, 3, 512, 512)).memory < double

    def test_a_size_has_one_plan(self, monkeypatch: pytest.MonkeyPatch) -> None:
        adapter = self.adapter()
        plans = [adapter(torch.rand(1, 3, 20, 24)).plan for _ in range(3)]
        plans.append(adapter.plan(torch.rand(1, 3, 20, 24)))
        assert len({(plan.deblur_depth, plan.reblur_depth, plan.tiling, plan.seconds) for plan in plans}) == 1
        assert plans[0].memory > 0

    def test_a_plan_is_made_for_another_bound_than_the_configured_one(self) -> None:
        adapter, blurry = self.adapter(max_memory=None), torch.rand(1, 3, 20, 24)
        assert adapter.plan(blurry).memory > 0
        with pytest.raises(AdaptError, match=r"max_memory: expected more than .* for 24x20 pixels"):
            adapter.plan(blurry, 1)

    def test_a_given_plan_is_followed(self) -> None:
        plan = Plan(tiling=Tiling(1, 2, 16))
        assert self.adapter()(torch.rand(1, 3, 20, 40), plan).plan is plan

    def test_without_a_bound_nothing_is_measured(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Costs, "_run", lambda *_: pytest.fail("measured"))
        assert self.adapter(max_memory=None)(torch.rand(1, 3, 8, 8)).plan == Plan()

    @pytest.mark.parametrize(("max_memory", "expected"), [(2**40, ["release", "line 10"]), (None, ["line 10"])])
    def test_memory_is_given_back_before_line_10(
        self, monkeypatch: pytest.MonkeyPatch, max_memory: int | None, expected: list[str]
    ) -> None:
        happened: list[str] = []
        optimizers: list[weakref.ref[torch.optim.Optimizer]] = []
        adapter, blurry = self.adapter(max_memory), torch.rand(1, 3, 20, 24)
        plan = adapter.plan(blurry)  # measuring gives back too
        make, match = algorithm1._optimizer, algorithm1.match_histogram

        def made(*given: Any) -> torch.optim.Optimizer:
            optimizer = make(*given)
            optimizers.append(weakref.ref(optimizer))
            return optimizer

        def matched(*given: Any) -> Tensor:
            assert optimizers[0]() is None  # its moments are as large as the weights
            happened.append("line 10")
            return match(*given)

        monkeypatch.setattr(algorithm1, "_optimizer", made)
        monkeypatch.setattr(algorithm1, "match_histogram", matched)
        monkeypatch.setattr(front_door, "give_back", lambda: happened.append("release"))
        adapter(blurry, plan)
        assert happened == expected


class TestAdapt:
    """`adapt` is an adapter used once."""

    NETWORKS: ClassVar = (nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1))

    @pytest.mark.parametrize("max_memory", [None, 2**40])
    def test_gives_what_an_adapter_gives(self, max_memory: int | None) -> None:
        blurry, config = torch.rand(1, 3, 20, 24), AdaptConfig(steps=2, lr=1e-3, max_memory=max_memory)
        adapter = Adapter(*self.NETWORKS, config)
        expected = adapter(blurry)
        assert not torch.equal(adapter(blurry).image, expected.image)  # it begins where the first one ended
        for _ in range(2):
            found = adapt(*self.NETWORKS, blurry, config)
            assert torch.equal(found.image, expected.image)
            assert (found.plan.tiling, found.plan.memory > 0) == (None, max_memory is not None)

    def test_finds_its_plan_by_the_bound(self) -> None:
        with pytest.raises(AdaptError, match="max_memory: expected more than"):
            adapt(*self.NETWORKS, torch.rand(1, 3, 20, 24), steps=1, max_memory=1)

    def test_carries_nothing_along(self) -> None:
        with pytest.raises(TypeError, match="decay"):
            adapt(*self.NETWORKS, torch.rand(1, 3, 20, 24), decay=0.5)
