"""Weights of one network are found where others put them; where it isn't clear which, none are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reblur_plugin.wrappings import weights_in, without_prefixes

OWN, OTHER = {"a": torch.zeros(1)}, {"b": torch.zeros(1)}
CIRCLE: dict[str, Any] = {}
CIRCLE["params"] = CIRCLE


class TestWeightsIn:
    @pytest.mark.parametrize(
        "content",
        [
            OWN,
            {"state_dict": OWN, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
            {"model": OWN, "discriminator": OTHER},
            {"net": OWN},
            {"generator": OWN, "netD": OTHER},
            {"params_ema": OWN, "model": OTHER},
            {"model": {"state_dict": OWN}},
            {"state_dict": {"params_ema": OWN, "params": OTHER}},
        ],
    )
    def test_are_found_under_the_usual_names(self, content: dict[str, Any]) -> None:
        found = weights_in(content)
        assert found is not None
        assert found.keys() == {"a"}

    @pytest.mark.parametrize(
        "content",
        [
            {"state_dict": OWN, "model": OTHER},
            {"state_dict": OWN, "state_dict_ema": OTHER},
            {"state_dict": OWN, "model_ema": OTHER},
            {"netG": OWN},
            {"state_dict": {"model": OWN, "generator": OTHER}},
            {"model": {"model": {"model": {"model": OWN}}}},
            {"params": {**OWN, "scale": 1.0}},
            {"params": {}},
            CIRCLE,
            3,
        ],
    )
    def test_are_not_guessed(self, content: Any) -> None:
        assert weights_in(content) is None


class TestWithoutPrefixes:
    def test_as_many_are_taken_off_as_the_network_needs(self) -> None:
        weights = {f"module.module.module.{name}": torch.zeros(1) for name in "ab"}
        for depth in range(4):
            own = {f"{'module.' * depth}{name}" for name in "ab"}
            assert without_prefixes(weights, own).keys() == own

    def test_names_that_fit_in_part_are_weighed(self) -> None:
        # a wrapper around a network that has both the names x and module.x
        own = {"x", "module.x"}
        assert without_prefixes({"module.x": torch.zeros(1), "module.module.x": torch.zeros(1)}, own).keys() == own

    def test_where_nothing_fits_the_names_stay(self) -> None:
        assert without_prefixes({"module.x": torch.zeros(1)}, {"y"}).keys() == {"module.x"}
