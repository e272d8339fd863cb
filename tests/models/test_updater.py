"""One weight w, loss w x: the gradient is x. What an updater does with it, and what it remembers over a restart."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin import checkpoints
from reblur_plugin.core.fused import FusedAdam
from reblur_plugin.models.updater import ReblurModelError, Updater

BAD = float("inf")


class _Weight(nn.Module):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))


def train(**changes: Any) -> dict[str, Any]:
    return {
        "optim_g": {"type": "SGD", "lr": 0.1},
        "scheduler": {"type": "MultiStepLR", "milestones": [3], "gamma": 0.1},
        **changes,
    }


def updater(scaled: bool = False, **changes: Any) -> Updater:
    return Updater("g", _Weight(), train(**changes), scaled)


def step(made: Updater, gradient: float) -> None:
    made.zero_grad()
    made.backward((made.parameters[0] * gradient).sum())
    made.step()


class TestBadSteps:
    def test_a_good_step_ends_the_row_of_bad_ones(self) -> None:
        made = updater(scaled=True)
        for gradient in [BAD] * 19 + [1.0] + [BAD] * 19:
            step(made, gradient)
        made.check()  # 19 in a row twice
        assert int(made.skipped) == 38
        assert int(made.skipped_in_a_row) == 19
        step(made, BAD)
        with pytest.raises(ReblurModelError, match="net_g: 20 fp16 steps in a row without finite gradient"):
            made.check()

    def test_a_good_step_counts_as_none(self) -> None:
        made = updater(scaled=True)
        step(made, 1.0)
        assert made.parameters[0].item() == pytest.approx(0.9)
        assert int(made.skipped) == int(made.skipped_in_a_row) == 0

    def test_without_a_scaler_nothing_is_counted(self) -> None:
        made = updater()
        step(made, BAD)
        assert int(made.skipped) == 0
        with pytest.raises(ReblurModelError, match="weights aren't finite any more"):
            made.check()


class TestRestart:
    def test_scale_and_counts_come_back(self, tmp_path: Path) -> None:
        made = updater(scaled=True)
        for gradient in (BAD, 1.0, BAD, BAD):  # each halves the scale
            step(made, gradient)
        checkpoints.save(made.state_dict(), tmp_path / "g.state")
        again = updater(scaled=True)
        assert again.load_state_dict(checkpoints.load(tmp_path / "g.state")) == []
        assert again.scaler.get_scale() == 1024 / 8
        assert (int(again.skipped), int(again.skipped_in_a_row)) == (3, 2)

    @pytest.mark.parametrize("steps", [0, 2, 3, 5])
    def test_the_schedule_goes_on_where_it_was(self, steps: int) -> None:
        made, again = updater(), updater()
        for _ in range(steps):
            step(made, 1.0)
            made.scheduler.step()
        again.load_state_dict(made.state_dict())
        assert again.lr == made.lr == (0.1 if steps < 3 else 0.1 * 0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # PyTorch's about a scheduler that goes before its optimiser
            for _ in range(3):  # as BasicSR does, before the first update of the new process
                again.scheduler.step()
        assert again.scheduler.last_epoch == steps + 3
        assert again.lr == pytest.approx(0.01)

    @pytest.mark.parametrize(
        "optimizer",
        [
            {"type": "Adam"},
            {"type": "Adam", "fused": True},
            {"type": "Adam", "foreach": True},
            {"type": "AdamW", "fused": True},
        ],
        ids=str,
    )
    def test_every_form_of_adam_goes_on_bit_for_bit(self, optimizer: dict[str, Any], tmp_path: Path) -> None:
        changes = {"optim_g": {**optimizer, "lr": 1e-3}}
        unbroken, gradients = updater(**changes), (0.3, -1.7, 0.9, 2.1, -0.2)
        for gradient in gradients:
            step(unbroken, gradient)
        first = updater(**changes)
        for gradient in gradients[:2]:
            step(first, gradient)
        checkpoints.save({"state": first.state_dict(), "weight": first.parameters[0].detach()}, tmp_path / "g.state")
        saved, second = checkpoints.load(tmp_path / "g.state"), updater(**changes)
        assert second.load_state_dict(saved["state"]) == []
        second.parameters[0].data.copy_(saved["weight"])
        for gradient in gradients[2:]:
            step(second, gradient)
        assert torch.equal(second.parameters[0], unbroken.parameters[0])

    def test_on_a_cpu_fused_adam_looks_at_the_layout(self) -> None:
        def kind(**optimizer: Any) -> type:
            return type(updater(optim_g={"lr": 1e-3, **optimizer}).optimizer)

        assert kind(type="Adam", fused=True) is FusedAdam
        assert kind(type="Adam") is kind(type="Adam", fused=False) is torch.optim.Adam
        assert kind(type="SGD", fused=True) is torch.optim.SGD

    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
    def test_the_layout_of_weights_may_change_in_between(self, before: bool, after: bool, fused: bool) -> None:
        options = train(optim_g={"type": "Adam", "lr": 0.1, "fused": fused})

        def made(channels_last: bool, weight: Tensor) -> Updater:
            network = nn.Conv2d(3, 4, 3, bias=False)
            network.weight.data.copy_(weight)
            network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            return Updater("g", network, options, scaled=False)

        def moved(trained: Updater, step: int) -> None:
            (weight,) = trained.parameters
            weight.grad = torch.empty_like(weight).copy_(torch.sin(torch.arange(108.0) * step).view_as(weight))
            trained.step()

        first = made(before, torch.zeros(4, 3, 3, 3))
        moved(first, 1)
        second = made(after, first.parameters[0].detach())
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for trained in (first, second):
            moved(trained, 2)
        torch.testing.assert_close(second.parameters[0].detach(), first.parameters[0].detach(), rtol=1e-5, atol=1e-6)

    def test_a_form_of_adam_may_change_in_between(self) -> None:
        plain, fused = ({"optim_g": {"type": "Adam", "lr": 1e-3, "fused": flag}} for flag in (False, True))
        made = updater(**plain)
        step(made, 1.0)
        again = updater(**fused)
        (change,) = again.load_state_dict(copy.deepcopy(made.state_dict()))
        assert change == "optim_g: fused: True in the options, False in the saved state; the options hold"
        step(again, 1.0)
        assert again.parameters[0].item() == pytest.approx(0.999)


class TestBackward:
    def test_reaches_the_networks_own_weights_alone(self) -> None:
        made, image = updater(), torch.tensor([2.0], requires_grad=True)
        made.backward((made.parameters[0] * image).sum())
        assert made.parameters[0].grad.item() == 2.0
        assert image.grad is None

    def test_adds_a_gradient_that_was_found_at_an_image(self) -> None:
        made = updater()
        image = 3 * made.parameters[0]
        made.backward((made.parameters[0] * 5).sum(), along=(image, torch.tensor([7.0])))
        assert made.parameters[0].grad.item() == 5 + 3 * 7

    def test_takes_that_gradient_alone_where_no_loss_has_one(self) -> None:
        made = updater()
        made.backward(torch.zeros(()), along=(3 * made.parameters[0], torch.tensor([7.0])))
        assert made.parameters[0].grad.item() == 21

    def test_scales_the_loss_and_not_the_gradient_that_is_scaled_already(self) -> None:
        made = updater(scaled=True)
        image = 3 * made.parameters[0]
        made.backward((made.parameters[0] * 5).sum(), along=(image, torch.tensor([7.0]) * 1024))
        assert made.parameters[0].grad.item() == 1024 * (5 + 3 * 7)
