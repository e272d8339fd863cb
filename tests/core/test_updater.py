"""One weight w, loss w x: the gradient is x. What an updater does with it, and what it remembers over a restart."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import ReblurError

BAD = float("inf")
Making = Callable[..., torch.optim.Optimizer]
SGD, ADAM = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.Adam, lr=1e-3)


class _Weight(nn.Module):
    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))


def updater(optimizer: Making = SGD, **choices: Any) -> Updater:
    network = _Weight()
    return Updater(network, optimizer(network.parameters()), name="net_g", **choices)


def step(made: Updater, gradient: float) -> None:
    with made.update():
        made.backward((made.weights[0] * gradient).sum())


class TestUpdate:
    def test_follows_what_backward_has_collected_in_it(self) -> None:
        made = updater()
        made.backward((made.weights[0] * 9).sum())  # before: forgotten
        with made.update():
            made.backward((made.weights[0] * 2).sum())
            made.backward((made.weights[0] * 3).sum())
        assert made.weights[0].item() == pytest.approx(1 - 0.1 * 5)

    def test_reaches_the_networks_own_weights_alone(self) -> None:
        made, image = updater(), torch.tensor([2.0], requires_grad=True)
        made.backward((made.weights[0] * image).sum())
        assert made.weights[0].grad.item() == 2.0
        assert image.grad is None

    def test_its_learning_rate_is_that_of_all_groups(self) -> None:
        network = nn.Sequential(_Weight(), _Weight())
        made = Updater(network, torch.optim.SGD([{"params": [weight]} for weight in network.parameters()], lr=0.1))
        made.lr = 0.5
        assert [group["lr"] for group in made.optimizer.param_groups] == [0.5, 0.5]
        assert made.lr == 0.5

    def test_frozen_weights_are_none_of_its_own(self) -> None:
        network = nn.Sequential(_Weight(), _Weight().requires_grad_(False))
        assert Updater(network).weights == [network[0].weight]


class TestBadSteps:
    def test_a_good_step_ends_the_row_of_bad_ones(self) -> None:
        made = updater(precision=torch.float16)
        for gradient in [BAD] * 19 + [1.0] + [BAD] * 19:
            step(made, gradient)
        made.check()  # 19 in a row twice
        assert int(made.skipped) == 38
        assert int(made.skipped_in_a_row) == 19
        step(made, BAD)
        with pytest.raises(ReblurError, match=r"^net_g: 20 fp16 steps in a row without finite gradient; use bf16 or a"):
            made.check()

    def test_a_good_step_counts_as_none(self) -> None:
        made = updater(precision=torch.float16)
        step(made, 1.0)
        assert made.weights[0].item() == pytest.approx(0.9)
        assert int(made.skipped) == int(made.skipped_in_a_row) == 0

    @pytest.mark.parametrize("precision", [None, torch.bfloat16])
    def test_without_a_scaler_nothing_is_counted(self, precision: torch.dtype | None) -> None:
        made = updater(precision=precision)
        step(made, BAD)
        assert int(made.skipped) == 0
        with pytest.raises(
            ReblurError, match=r"^net_g: weights aren't finite any more; use grad_clip or a smaller lr$"
        ):
            made.check()


class TestRestart:
    def test_scale_and_counts_come_back(self, tmp_path: Path) -> None:
        made = updater(precision=torch.float16)
        for gradient in (BAD, 1.0, BAD, BAD):  # each bad one halves the scale
            step(made, gradient)
        torch.save(made.state_dict(), tmp_path / "g.state")
        again = updater(precision=torch.float16)
        assert again.load_state_dict(torch.load(tmp_path / "g.state", weights_only=True)) == {}
        assert again.scaler.get_scale() == 1024 / 8
        assert (int(again.skipped), int(again.skipped_in_a_row)) == (3, 2)

    @pytest.mark.parametrize(
        "optimizer",
        [
            ADAM,
            partial(ADAM, fused=True),
            partial(ADAM, foreach=True),
            partial(torch.optim.AdamW, lr=1e-3, fused=True),
        ],
    )
    def test_every_form_of_adam_goes_on_bit_for_bit(self, optimizer: Making, tmp_path: Path) -> None:
        unbroken, gradients = updater(optimizer), (0.3, -1.7, 0.9, 2.1, -0.2)
        for gradient in gradients:
            step(unbroken, gradient)
        first = updater(optimizer)
        for gradient in gradients[:2]:
            step(first, gradient)
        torch.save({"state": first.state_dict(), "weight": first.weights[0].detach()}, tmp_path / "g.state")
        saved, second = torch.load(tmp_path / "g.state", weights_only=True), updater(optimizer)
        assert second.load_state_dict(saved["state"]) == {}
        second.weights[0].data.copy_(saved["weight"])
        for gradient in gradients[2:]:
            step(second, gradient)
        assert torch.equal(second.weights[0], unbroken.weights[0])

    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
    def test_the_layout_of_weights_may_change_in_between(self, before: bool, after: bool, fused: bool) -> None:
        # PyTorch's fused Adam takes weight, gradient and moments as they lie in memory, whatever their strides say
        def made(channels_last: bool, weight: Tensor) -> Updater:
            network = nn.Conv2d(3, 4, 3, bias=False)
            network.weight.data.copy_(weight)
            network.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
            return Updater(network, torch.optim.Adam(network.parameters(), lr=0.1, fused=fused))

        def moved(trained: Updater, number: int) -> None:
            (weight,) = trained.weights
            with trained.update():
                weight.grad = torch.empty_like(weight).copy_(torch.sin(torch.arange(108.0) * number).view_as(weight))

        first = made(before, torch.zeros(4, 3, 3, 3))
        moved(first, 1)
        second = made(after, first.weights[0].detach())
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for trained in (first, second):
            moved(trained, 2)
        torch.testing.assert_close(second.weights[0].detach(), first.weights[0].detach(), rtol=1e-5, atol=1e-6)

    def test_a_form_of_adam_may_change_in_between(self) -> None:
        made = updater(partial(ADAM, fused=False))
        step(made, 1.0)
        again = updater(partial(ADAM, fused=True))
        assert again.load_state_dict(copy.deepcopy(made.state_dict())) == {"fused": (True, False)}
        step(again, 1.0)
        assert again.weights[0].item() == pytest.approx(0.999)

    def test_its_own_numbers_hold_and_those_that_differ_are_told(self) -> None:
        made = updater(partial(torch.optim.SGD, lr=0.1, momentum=0.5))
        step(made, 1.0)
        again = updater(partial(torch.optim.SGD, lr=0.4, momentum=0.9))
        assert again.load_state_dict(made.state_dict()) == {"lr": (0.4, 0.1), "momentum": (0.9, 0.5)}
        assert again.lr == 0.4
        step(again, 1.0)
        # the momentum collected is 1: w = 1 - .4 (.9 * 1 + 1)
        assert again.weights[0].item() == pytest.approx(1 - 0.4 * 1.9)

    def test_a_rate_that_a_schedule_has_moved_is_no_difference(self) -> None:
        made, again = updater(), updater()
        made.lr = 0.05
        assert again.load_state_dict(made.state_dict()) == {}
        assert again.lr == 0.1

    def test_a_state_of_an_older_version_is_taken(self) -> None:
        # it counted its scheduler's steps in the state, and its optimiser's groups named the first rate
        made = updater(ADAM)
        step(made, 1.0)
        state = copy.deepcopy(made.state_dict()) | {"scheduled": 1}
        assert state["optimizer"]["param_groups"][0]["initial_lr"] == 1e-3
        again = updater(ADAM)
        assert again.load_state_dict(state) == {}
        assert torch.equal(again.optimizer.state[again.weights[0]]["exp_avg"], torch.tensor([0.1]))
