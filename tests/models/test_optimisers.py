"""The optimiser and learning rate that the block `train` asks for, for each network by its label."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from reblur_plugin.models.criteria import ReblurModelError
from reblur_plugin.models.optimisers import learning_rate, updater

TRAIN: dict[str, Any] = {
    "optim_g": {"type": "Adam", "lr": 1e-4, "betas": [0.8, 0.9]},
    "optim_r": {"lr": 0.1},
    "scheduler": {"type": "MultiStepLR", "milestones": [5, 2], "gamma": 0.1},
    "scheduler_r": {"milestones": [3]},
}


def refused(message: str) -> Any:
    return pytest.raises(ReblurModelError, match=f"^{re.escape(message)}")


class TestUpdater:
    def test_follows_the_keys_of_its_label(self) -> None:
        made = updater("g", nn.Linear(2, 3), TRAIN | {"grad_clip": 0.5}, torch.bfloat16)
        assert type(made.optimizer) is torch.optim.Adam
        group = made.optimizer.param_groups[0]
        assert (group["lr"], tuple(group["betas"])) == (1e-4, (0.8, 0.9))
        assert (made.precision, made.max_norm, made.name) == (torch.bfloat16, 0.5, "net_g")

    def test_is_adam_without_clipping_where_nothing_is_said(self) -> None:
        made = updater("r", nn.Linear(2, 3), TRAIN, None)
        assert type(made.optimizer) is torch.optim.Adam
        assert (made.precision, made.max_norm, made.scaler.is_enabled()) == (None, 0.0, False)

    def test_moves_what_is_not_frozen(self) -> None:
        network = nn.Linear(2, 3)
        network.bias.requires_grad_(False)
        assert updater("r", network, TRAIN, None).optimizer.param_groups[0]["params"] == [network.weight]

    @pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
    def test_fused_is_pytorchs_own(self, name: str) -> None:
        train = {"optim_g": {"type": name, "lr": 1e-3, "fused": True}}
        made = updater("g", nn.Linear(2, 3), train, None)
        assert type(made.optimizer) is getattr(torch.optim, name)
        assert made.optimizer.param_groups[0]["fused"] is True

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (None, "train: optim_g: missing; e.g. {type: Adam, lr: 1e-4}"),
            ({"type": "Adamm", "lr": 1}, "train: optim_g: type: PyTorch has no optimiser 'Adamm' that fits; the paper"),
            ({"type": "LBFGS", "lr": 1}, "train: optim_g: type: PyTorch has no optimiser 'LBFGS' that fits"),
            ({"type": "lr_scheduler", "lr": 1}, "train: optim_g: type: PyTorch has no optimiser 'lr_scheduler'"),
            ({"type": "Adam", "lr": -1}, "train: optim_g: Adam can't take these options: Invalid learning rate"),
            ({"type": "Adam", "rate": 1}, "train: optim_g: Adam can't take these options: "),
        ],
    )
    def test_refusals(self, block: Any, message: str) -> None:
        with refused(message):
            updater("g", nn.Linear(2, 3), {"optim_g": block}, None)


class TestLearningRate:
    def test_falls_at_the_milestones_in_their_order(self) -> None:
        rate = learning_rate("g", updater("g", nn.Linear(2, 3), TRAIN, None), TRAIN)
        assert (rate.base, rate.milestones, rate.gamma) == (1e-4, (2, 5), 0.1)

    def test_a_schedule_of_its_own_goes_before_the_common_one(self) -> None:
        rate = learning_rate("r", updater("r", nn.Linear(2, 3), TRAIN, None), TRAIN)
        assert (rate.base, rate.milestones, rate.gamma) == (0.1, (3,), 0.5)

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (None, "train: scheduler: missing; e.g. {type: MultiStepLR, milestones: [...], gamma: 0.5}"),
            ({"type": "Cosine"}, "train: scheduler: type: expected MultiStepLR, got 'Cosine'"),
            ({"milestone": [1]}, "train: scheduler: unknown key milestone; expected milestones, gamma"),
        ],
    )
    def test_refusals(self, block: Any, message: str) -> None:
        with refused(message):
            learning_rate("g", updater("g", nn.Linear(2, 3), TRAIN, None), TRAIN | {"scheduler": block})

    def test_without_a_rate_it_is_pytorchs_own(self) -> None:  # in BasicSR's pipelines, which check no keys
        train = {"optim_g": {"type": "Adam"}, "scheduler": {"milestones": [3]}}
        assert learning_rate("g", updater("g", nn.Linear(2, 3), train, None), train).base == 1e-3
