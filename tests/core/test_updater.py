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


ADAMS = {"Adam": ADAM, "AMSGrad": partial(ADAM, amsgrad=True), "RMSprop": partial(torch.optim.RMSprop, lr=0.1)}
ADAMS |= {"AdamW": partial(torch.optim.AdamW, lr=1e-3), "NAdam": partial(torch.optim.NAdam, lr=1e-3)}
ADAMS |= {"SGD": partial(torch.optim.SGD, lr=0.1), "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}
ADAMS |= {"Adafactor": torch.optim.Adafactor, "Adagrad": torch.optim.Adagrad, "RAdam": torch.optim.RAdam}


class TestAnotherOptimiserThanTheSavedOne:
    @pytest.mark.parametrize("after", ADAMS)
    @pytest.mark.parametrize("before", ADAMS)
    def test_goes_on_with_what_fits_it_or_as_a_new_one(self, before: str, after: str) -> None:
        made, again, new = updater(ADAMS[before]), updater(ADAMS[after]), updater(ADAMS[after])
        step(made, 0.5)
        differing = again.load_state_dict(copy.deepcopy(made.state_dict()))
        step(again, 1.0)
        step(new, 1.0)
        if "moments" in differing:
            assert torch.equal(again.weights[0], new.weights[0])
        kinds = [type(one.optimizer).__name__ for one in (again, made)]
        assert differing.get("type", (kinds[0], kinds[0])) == tuple(kinds)
        assert again.state_dict()["type"] == kinds[0]

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            ("Adam", "AMSGrad", ("exp_avg, exp_avg_sq, max_exp_avg_sq, step", "exp_avg, exp_avg_sq, step")),
            ("Adam", "RMSprop", ("square_avg, step", "exp_avg, exp_avg_sq, step")),
            ("SGD", "momentum", ("momentum_buffer", "none")),
            ("AMSGrad", "Adam", None),
            ("Adam", "AdamW", None),
            ("momentum", "SGD", None),
        ],
    )
    def test_says_which_moments_begin_anew(self, before: str, after: str, expected: tuple[str, str] | None) -> None:
        made, again = updater(ADAMS[before]), updater(ADAMS[after])
        step(made, 0.5)
        assert again.load_state_dict(copy.deepcopy(made.state_dict())).get("moments") == expected

    def test_with_other_weights_begins_anew(self) -> None:
        network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        made = Updater(network, torch.optim.Adam(network.parameters()))
        with made.update():
            made.backward(network(torch.ones(1, 2)).sum())
        network[0].requires_grad_(False)
        held = Updater(network, torch.optim.Adam(network[1].parameters()))
        moments = held.load_state_dict(copy.deepcopy(made.state_dict()))["moments"]
        assert moments == ("exp_avg, exp_avg_sq, step", "exp_avg, exp_avg_sq, step")
        assert not held.optimizer.state

    @pytest.mark.parametrize(("before", "after"), [(False, True), (True, False)])
    def test_counts_its_steps_where_its_own_form_wants_them(self, before: bool, after: bool) -> None:
        made, again = updater(partial(ADAM, capturable=before)), updater(partial(ADAM, fused=after))
        made.optimizer.param_groups[0]["capturable"] = False
        step(made, 1.0)
        saved = copy.deepcopy(made.state_dict())
        saved["optimizer"]["state"][0]["step"] = saved["optimizer"]["state"][0]["step"].double()
        again.load_state_dict(saved)
        # the form's own rule: float32 on the weight's device if it is fused, else as it was saved
        assert again.optimizer.state[again.weights[0]]["step"].dtype == (torch.float32 if after else torch.float64)

    @pytest.mark.parametrize("state", [{}, {"optimizer": 3}, {"optimizer": {"state": {}, "param_groups": []}}, None])
    def test_is_refused_in_one_sentence_if_it_is_no_state(self, state: Any) -> None:
        message = r"^net_g: expected the saved state of an optimiser, got another one \(.*; resume from another train"
        with pytest.raises(ReblurError, match=message):
            updater(ADAM).load_state_dict(state)
