"""Adaptation carried along a video, against test_adapt.py's recursion: d falls by 0.3125 in each step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.core import video
from reblur_plugin.core.adapt import AdaptConfig, AdaptError, adapt
from reblur_plugin.core.video import Adapter


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


def test_costs_are_measured_once_for_all_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    class Counted(video.Costs):
        def __init__(self, *given: Any) -> None:
            measured.append(1)
            super().__init__(*given)

    monkeypatch.setattr(video, "Costs", Counted)
    adapter = Adapter(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1), steps=1, max_memory=2**40)
    plans = [adapter(torch.rand(1, 3, 20, 24)).plan for _ in range(3)]
    assert measured == [1]
    assert plans[0] is plans[1] is plans[2]
    assert plans[0].memory > 0
