"""ReblurModel: what options lead to, and BasicSR's contract.

Networks have one weight each, M_D(x) = a x and M_R(x) = r x, so that a step can be worked out by hand:
`Hand` in tests/core/test_joint.py does, with the same numbers.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.core.adapt import Adapter
from reblur_plugin.errors import ReblurError
from reblur_plugin.host import registry
from reblur_plugin.models.reblur_model import ReblurModel, ReblurModelError

reblur_plugin.register()

B, S = 0.5, 0.8


class _Gain(nn.Module):
    """x -> gain * x; two scales on request."""

    def __init__(self, gain: float, scales: int = 1) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.scales = scales

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        image = self.gain * x
        return image if self.scales == 1 else [image[..., ::2, ::2], image]


class _GainPerceptual(nn.Module):
    """A perceptual loss in BasicSR's form: (2 * ||x - y||, None)."""

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, None]:
        return 2 * (x - y).abs().mean(), None


@pytest.fixture(scope="module", autouse=True)
def users_own_classes() -> Iterator[None]:
    """Classes of a user, registered as BasicSR's examples do."""
    registry.ARCH_REGISTRY.register(_Gain)
    registry.LOSS_REGISTRY.register(_GainPerceptual)
    yield
    del registry.ARCH_REGISTRY._obj_map["_Gain"], registry.LOSS_REGISTRY._obj_map["_GainPerceptual"]


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    descent = {"type": "SGD", "lr": 0.1}
    return {
        "name": "gain",
        "is_train": True,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "num_gpu": 0,
        "network_g": {"type": "_Gain", "gain": 0.9},
        "network_r": {"type": "_Gain", "gain": 0.5},
        "path": {"models": str(tmp_path / "models"), "training_states": str(tmp_path / "states")},
        "train": {
            "optim_g": descent,
            "optim_r": descent,
            "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {"loss_weight": 1.0},
        },
    }


def batch() -> dict[str, Tensor]:
    return {"lq": torch.full((2, 3, 4, 4), B), "gt": torch.full((2, 3, 4, 4), S)}


def step(options: dict[str, Any], iterations: int = 1) -> ReblurModel:
    model = ReblurModel(copy.deepcopy(options))
    for iteration in range(1, iterations + 1):
        model.update_learning_rate(iteration)
        model.feed_data(batch())
        model.optimize_parameters(iteration)
    return model


def gains(model: ReblurModel) -> tuple[float, float]:
    return model.net_g.gain.item(), model.net_r.gain.item()


class TestOptionsOfTheStep:
    """What a key changes about a' and r'; the numbers' derivation is in tests/core/test_joint.py."""

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({}, (0.98085, 0.617)),
            ({"reblur_opt": {}}, (0.98085, 0.617)),
            ({"reblur_opt": {"order": "reblur_first"}}, (0.98085, 0.617)),
            ({"reblur_opt": {"order": "deblur_first"}}, (0.975, 0.623)),
            ({"reblur_opt": {"sharp_reference": "real"}}, (0.98125, 0.625)),
            ({"reblur_opt": {"sharp_reference": "none"}}, (0.97725, 0.545)),
            ({"reblur_opt": {"sharp_weight": 0.5}}, (0.9 + 0.1 * (0.5 + 0.5 * 0.581), 0.581)),
            ({"reblur_opt": {"sharp_weight": [[0, 0.0], [4, 1.0]]}}, (0.9 + 0.1 * (0.5 + 0.5 * 0.563), 0.563)),
            ({"reblur_opt": {"loss_weight": 2.0}}, (1.0117, 0.617)),
            ({"perceptual_opt": {"type": "_GainPerceptual"}}, (1.08085, 0.617)),
            ({"grad_clip": 0.2}, (0.92, 0.52)),
            ({"grad_clip": 0.2, "amp": "fp16"}, (0.92, 0.52)),
            ({"amp": "bf16"}, (0.98085, 0.617)),
            ({"accumulate": 2}, (0.98085, 0.617)),
        ],
        ids=str,
    )
    def test_each_key_has_its_place(
        self, options: dict[str, Any], change: dict[str, Any], expected: tuple[float, float]
    ) -> None:
        options["train"] |= change
        assert gains(step(options)) == pytest.approx(expected, rel=1e-5)  # clipping divides by norm + 1e-6

    def test_they_reach_the_step(self, options: dict[str, Any]) -> None:
        options["train"] |= {"accumulate": 3, "amp": "bf16", "grad_clip": 0.5}
        model = ReblurModel(options)
        assert model.step.accumulate == 3
        for updater in model.updaters.values():
            assert (updater.precision, updater.max_norm) == (torch.bfloat16, 0.5)

    def test_scales_of_fp16_are_each_networks_own(self, options: dict[str, Any]) -> None:
        for amp, is_scaled in (("fp16", True), ("bf16", False), (None, False)):
            options["train"]["amp"] = amp
            updaters = ReblurModel(options).updaters
            assert {label: updater.scaler.is_enabled() for label, updater in updaters.items()} == dict.fromkeys(
                "gr", is_scaled
            )

    def test_without_a_reblur_block_it_is_l1_training(self, options: dict[str, Any]) -> None:
        del options["network_r"], options["train"]["reblur_opt"], options["train"]["optim_r"]
        model = step(options)
        assert model.net_g.gain.item() == pytest.approx(0.95, rel=1e-6)
        assert set(model.get_current_log()) == {"l_g_pix", "lr_g"}

    def test_a_discriminator_is_trained_and_moves_m_d_by_its_weight(self, options: dict[str, Any]) -> None:
        options["network_d"] = {"type": "_Gain", "gain": 2.0}
        options["train"] |= {"optim_d": {"type": "SGD", "lr": 0.1}}
        options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.001}
        # cross-entropy of logit z: real -(1 - s(z)), fake s(z) as derivatives; z = 2 * .8 and 2 * .45
        sigmoid = [1 / (1 + 2.718281828459045**-z) for z in (1.6, 0.9)]
        d = 2 - 0.1 * (-(1 - sigmoid[0]) * 0.8 + sigmoid[1] * 0.45)
        gan = 0.001 * -(1 - 1 / (1 + 2.718281828459045 ** -(d * 0.45))) * d * B
        model = step(options)
        assert model.net_d.gain.item() == pytest.approx(d, rel=1e-6)
        assert gains(model)[0] == pytest.approx(0.98085 - 0.1 * gan, rel=1e-6)
        assert {"l_d_real", "l_d_fake", "l_g_gan", "lr_d"} <= model.get_current_log().keys()


class TestAverage:
    def test_it_changes_nothing_in_training(self, options: dict[str, Any]) -> None:
        plain = gains(step(options, 3))
        options["train"]["ema_decay"] = 0.9  # pseudo-sharp images come from M_D itself, not from its average
        assert gains(step(options, 3)) == plain

    def test_it_moves_by_its_decay(self, options: dict[str, Any]) -> None:
        options["train"]["ema_decay"] = 0.75
        model = step(options)
        assert model.net_g_ema.gain.item() == pytest.approx(0.75 * 0.9 + 0.25 * 0.98085, rel=1e-6)
        assert model.tested_net is model.net_g_ema


class TestFrozenDeblurNet:
    """Table 1's second row: M_R alone, on the results of a trained M_D."""

    @pytest.fixture
    def frozen_options(self, options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
        checkpoints.save({"params": {"gain": torch.tensor(0.9)}}, tmp_path / "g.pth")
        options["path"]["pretrain_network_g"] = str(tmp_path / "g.pth")
        options["network_g"]["gain"] = 0.1  # the checkpoint's .9 must take its place
        options["train"]["freeze_deblur_net"] = True
        options["train"]["reblur_opt"]["sharp_reference"] = "none"
        del options["train"]["optim_g"], options["train"]["pixel_opt"]
        return options

    def test_only_m_r_learns(self, frozen_options: dict[str, Any]) -> None:
        model = step(frozen_options)
        assert gains(model) == pytest.approx((0.9, 0.545), rel=1e-6)  # r' = .5 + .1 * .45
        assert set(model.get_current_log()) == {"l_r_blur", "rho", "lr_r"}

    def test_the_order_of_updates_is_of_no_matter(self, frozen_options: dict[str, Any]) -> None:
        frozen_options["train"]["reblur_opt"]["order"] = "deblur_first"
        assert gains(step(frozen_options)) == pytest.approx((0.9, 0.545), rel=1e-6)

    def test_the_averaged_m_d_is_taken_where_there_is_one(self, frozen_options: dict[str, Any], tmp_path: Path) -> None:
        weights = {"params": {"gain": torch.tensor(0.2)}, "params_ema": {"gain": torch.tensor(0.9)}}
        checkpoints.save(weights, tmp_path / "g.pth")
        assert gains(step(frozen_options)) == pytest.approx((0.9, 0.545), rel=1e-6)

    def test_only_m_r_is_saved(self, frozen_options: dict[str, Any]) -> None:
        model = step(frozen_options)
        model.save(0, 1)
        assert [path.name for path in Path(frozen_options["path"]["models"]).iterdir()] == ["net_r_1.pth"]

    def test_needs_a_trained_m_d(self, frozen_options: dict[str, Any]) -> None:
        del frozen_options["path"]["pretrain_network_g"]
        with pytest.raises(ReblurModelError, match="trains M_R on a trained M_D; give reblur_opt and path"):
            ReblurModel(frozen_options)


class TestNumbersThatAreNotFinite:
    def test_stop_at_the_next_log_and_name_the_iteration(self, options: dict[str, Any]) -> None:
        model = step(options, 2)
        model.feed_data({"lq": torch.full((2, 3, 4, 4), torch.nan), "gt": torch.full((2, 3, 4, 4), S)})
        model.optimize_parameters(3)
        model.feed_data(batch())
        model.optimize_parameters(4)
        with pytest.raises(ReblurError, match="nan or infinity since iteration 3; use a smaller lr"):
            model.get_current_log()

    @pytest.mark.parametrize("order", ["reblur_first", "deblur_first"])
    def test_are_seen_in_the_loss_of_m_d_alone(self, options: dict[str, Any], order: str) -> None:
        options["train"]["reblur_opt"]["order"] = order
        options["train"]["pixel_opt"]["loss_weight"] = float("inf")
        model = ReblurModel(options)
        model.feed_data(batch())
        model.optimize_parameters(1)
        assert model.finite.first() == 1

    def test_are_never_saved(self, options: dict[str, Any]) -> None:
        model = step(options)
        model.net_r.gain.data.fill_(torch.inf)
        with pytest.raises(ReblurError, match="net_r: weights aren't finite any more"):
            model.save(0, 1)
        assert not Path(options["path"]["models"]).exists()

    def test_a_bad_fp16_step_is_left_out_and_counted(self, options: dict[str, Any]) -> None:
        options["train"]["amp"] = "fp16"
        model = step(options)
        before = gains(model)
        model.feed_data({"lq": torch.full((2, 3, 4, 4), torch.inf), "gt": torch.full((2, 3, 4, 4), S)})
        model.optimize_parameters(2)
        assert gains(model) == before
        assert model.get_current_log()["skipped_fp16_steps"] == 2  # M_D's and M_R's
        model.feed_data(batch())
        model.optimize_parameters(3)
        assert gains(model) != before

    def test_fp16_that_fails_for_good_stops_the_run(self, options: dict[str, Any]) -> None:
        options["train"]["amp"] = "fp16"
        model = ReblurModel(options)
        model.net_g.register_forward_hook(lambda _, __, image: image * torch.inf)
        model.feed_data(batch())
        for iteration in range(1, 21):
            model.optimize_parameters(iteration)
        with pytest.raises(ReblurError, match="20 fp16 steps in a row without finite gradient"):
            model.check()


class TestLog:
    def test_holds_all_losses_rho_and_both_learning_rates(self, options: dict[str, Any]) -> None:
        options["train"]["optim_r"] = {"type": "SGD", "lr": 0.2}
        model = step(options)
        log = model.get_current_log()
        expected = {
            "l_r_blur": 0.275,  # |.225 - .5|
            "l_r_sharp": 0.36,  # (1 - .5) .72
            "rho": 5.5,  # .275 / |.45 - .5|
            "l_g_pix": 0.35,
            "l_g_reblur": (0.5 + 0.2 * 1.17) * 0.35,  # by the updated r
            "lr_g": 0.1,
            "lr_r": 0.2,
        }
        assert log == pytest.approx(expected, rel=1e-5)
        assert model.get_current_learning_rate() == [0.1, 0.2]

    def test_an_iteration_in_parts_counts_once_for_the_watch(self, options: dict[str, Any]) -> None:
        options["train"]["accumulate"] = 2
        model = step(options)
        assert model.collapse.count == 1
        assert float(model.collapse.total or 0) == pytest.approx(float(model.log_dict["rho"]))

    def test_warns_when_m_r_stays_the_identity(
        self, options: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
        options["network_r"]["gain"] = 1.0
        options["train"]["optim_r"] = {"type": "SGD", "lr": 0.0}
        model = step(options)
        model.collapse.window = 1
        model.get_current_log()
        assert "M_R is the identity" in caplog.text
        assert "sharp_weight" in caplog.text


class TestModes:
    def test_deblurring_and_reblurring_run_in_eval_mode_and_leave_the_mode_as_it_was(
        self, options: dict[str, Any]
    ) -> None:
        model = step(options)
        seen = []
        for network in (model.net_g, model.net_r):
            network.register_forward_hook(lambda module, *_: seen.append(module.training))
        for mode in (True, False):
            model.net_g.train(mode)
            model.net_r.train(mode)
            model.reblur(model.deblur(batch()["lq"]))
            assert (model.net_g.training, model.net_r.training) == (mode, mode)
        assert seen == [False] * 4

    def test_submodules_that_were_held_in_eval_mode_stay_so(self, options: dict[str, Any]) -> None:
        model = step(options)
        held = nn.Sequential(nn.BatchNorm2d(3)).eval()
        for network in (model.net_g, model.net_r):
            network.train().held = held
        model.reblur(model.deblur(batch()["lq"]))
        assert not held.training
        assert not held[0].training

    def test_the_batch_stays_as_it_was_whatever_a_network_does_to_its_input(self, options: dict[str, Any]) -> None:
        model = step(options)
        for network in (model.net_g, model.net_r):
            network.register_forward_pre_hook(lambda _, inputs: inputs[0].mul_(2))
        blurry = batch()["lq"]
        deblurred = model.deblur(blurry)
        kept = deblurred.clone()
        model.reblur(deblurred)
        assert torch.equal(blurry, batch()["lq"])
        assert torch.equal(deblurred, kept)


class TestSeveralOutputs:
    def test_the_option_says_which_is_l(self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_Gain, "forward", lambda self, x: [self.gain * x, 2 * self.gain * x])
        with pytest.raises(ReblurError, match=r"_Gain: expected one image or several scales of it.*deblurred_output"):
            step(options)
        monkeypatch.setattr(registry.ARCH_REGISTRY.get("_Gain"), "image_output", "first", raising=False)
        model = step(options | {"deblurred_output": "last", "train": options["train"] | {"ema_decay": 0.5}})
        expected = 2 * model.net_g_ema.gain.item() * B
        assert torch.allclose(model.deblur(batch()["lq"]), torch.full((2, 3, 4, 4), expected))
        model.save(0, 1)
        origin = checkpoints.options(Path(options["path"]["models"]) / "net_g_1.pth")
        assert origin["deblurred_output"] == "last"
        loaded = checkpoints.network(Path(options["path"]["models"]) / "net_g_1.pth", "g")
        assert loaded.image_output == "last"


class TestHeldWeights:
    def test_stay_in_training_and_are_held_in_the_average_too(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def build(self: _Gain, gain: float) -> None:
            nn.Module.__init__(self)
            self.gain, self.scales = nn.Parameter(torch.tensor(gain)), 1
            self.fixed = nn.Parameter(torch.tensor(3.0), requires_grad=False)

        monkeypatch.setattr(_Gain, "__init__", build)
        options["train"]["ema_decay"] = 0.5
        model = step(options, 2)
        assert model.net_g.fixed == 3
        assert model.net_g.gain != 0.9
        held = {name: weight.requires_grad for name, weight in model.tested_net.named_parameters()}
        assert held == {"gain": True, "fixed": False}


class TestLearningRate:
    def rates(self, options: dict[str, Any], iterations: int, warmup_iter: int = -1) -> list[list[float]]:
        model = ReblurModel(options)
        seen = []
        for iteration in range(1, iterations + 1):
            model.update_learning_rate(iteration, warmup_iter)
            assert model.get_current_learning_rate() == [
                group["lr"] for o in model.optimizers for group in o.param_groups
            ]
            seen.append(model.get_current_learning_rate())
        return seen

    def test_halves_after_the_milestones_for_all_networks(self, options: dict[str, Any]) -> None:
        options["train"]["scheduler"]["milestones"] = [2, 3]
        expected = [[rate, rate] for rate in (0.1, 0.1, 0.05, 0.025, 0.025)]
        assert self.rates(options, 5) == expected

    def test_is_the_set_one_after_warming_up(self, options: dict[str, Any]) -> None:
        seen = [rates[0] for rates in self.rates(options, 6, warmup_iter=4)]
        assert seen == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])

    def test_m_r_may_have_a_schedule_of_its_own(self, options: dict[str, Any]) -> None:
        options["train"]["scheduler_r"] = {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1}
        assert step(options, 2).get_current_learning_rate() == pytest.approx([0.1, 0.01])


class TestFiles:
    def test_a_resumed_run_ends_where_an_unbroken_one_does(self, options: dict[str, Any]) -> None:
        options["train"] |= {"ema_decay": 0.5, "optim_g": {"type": "Adam", "lr": 0.01}}
        unbroken = step(options, 4)
        first = step(options, 2)
        first.save(0, 2)
        models = Path(options["path"]["models"])
        options["path"] |= {f"pretrain_network_{label}": str(models / f"net_{label}_2.pth") for label in "gr"}
        second = ReblurModel(copy.deepcopy(options))
        second.resume_training(checkpoints.load(Path(options["path"]["training_states"]) / "2.state"))
        for iteration in (3, 4):
            second.update_learning_rate(iteration)
            second.feed_data(batch())
            second.optimize_parameters(iteration)
        assert gains(second) == gains(unbroken)
        assert second.net_g_ema.gain.item() == unbroken.net_g_ema.gain.item()

    @pytest.mark.parametrize(
        ("change", "rate"),
        [
            ({}, 0.05),  # halved at iteration 1 already
            ({"optim_r": {"type": "SGD", "lr": 0.4}}, 0.2),
            ({"scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5}}, 0.1),
            ({"scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1}}, 0.01),
        ],
    )
    def test_a_resumed_run_follows_the_learning_rates_of_its_options(
        self, options: dict[str, Any], change: dict[str, Any], rate: float
    ) -> None:
        options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [1], "gamma": 0.5}
        step(options, 3).save(0, 3)
        options["train"] |= change
        model = ReblurModel(options)
        model.resume_training(checkpoints.load(Path(options["path"]["training_states"]) / "3.state"))
        assert model.get_current_learning_rate()[1] == pytest.approx(rate)
        model.update_learning_rate(4)
        assert model.get_current_learning_rate()[1] == pytest.approx(rate)

    def test_a_changed_learning_rate_is_told(
        self, options: dict[str, Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
        step(options).save(0, 1)
        options["train"]["optim_r"] = {"type": "SGD", "lr": 0.4, "momentum": 0.9}
        model = ReblurModel(options)
        model.resume_training(checkpoints.load(Path(options["path"]["training_states"]) / "1.state"))
        assert "optim_r: lr: 0.4 in the options, 0.1 in the saved state; the options hold" in caplog.text
        assert "optim_r: momentum: 0.9 in the options, 0 in the saved state" in caplog.text
        assert model.optimizers[1].param_groups[0]["momentum"] == 0.9

    def test_a_state_of_other_networks_is_refused(self, options: dict[str, Any]) -> None:
        step(options).save(0, 1)
        del options["network_r"], options["train"]["reblur_opt"]
        state = checkpoints.load(Path(options["path"]["training_states"]) / "1.state")
        with pytest.raises(ReblurModelError, match="training state of ReblurModel for net_g, got one for net_g, net_r"):
            ReblurModel(options).resume_training(state)

    def test_only_the_newest_checkpoints_are_kept(self, options: dict[str, Any]) -> None:
        options["logger"] = {"keep_checkpoints": 2}
        model = step(options)
        model.save_networks("best")
        for iteration in (2, 9, 10, 11):
            model.save(0, iteration)
        model.save(-1, -1)
        kept = {path.stem for path in Path(options["path"]["training_states"]).iterdir()}
        assert kept == {"10", "11"}
        names = {path.name for path in Path(options["path"]["models"]).iterdir()}
        assert names == {f"net_{label}_{name}.pth" for label in "gr" for name in ("10", "11", "best", "latest")}

    def test_a_checkpoint_tells_where_it_comes_from(self, options: dict[str, Any]) -> None:
        options |= {"manual_seed": 7, "data_fingerprint": "abc", "resolved": {"name": "gain", "train": {"lr": (1e-4,)}}}
        model = step(options)
        model.save(0, 1)
        origin = checkpoints.load(Path(options["path"]["models"]) / "net_r_1.pth")["origin"]
        assert origin["options"] == {"name": "gain", "train": {"lr": [1e-4]}}
        assert (origin["seed"], origin["data"], origin["iteration"]) == (7, "abc", 1)
        assert origin["versions"].keys() == {"reblur_plugin", "torch"}

    def test_a_test_takes_the_averaged_weights(self, options: dict[str, Any]) -> None:
        options["train"]["ema_decay"] = 0.75
        model = step(options)
        model.save(0, 1)
        models = Path(options["path"]["models"])
        tested = {**options, "is_train": False, "path": {"pretrain_network_g": str(models / "net_g_1.pth")}}
        del tested["network_r"]
        assert ReblurModel(tested).net_g.gain.item() == model.net_g_ema.gain.item()
        tested["path"]["param_key_g"] = "params"
        assert ReblurModel(tested).net_g.gain.item() == model.net_g.gain.item()


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"reblur_opt": None}, "reblur_opt and network_r belong together"),
            ({"gan_opt": {"type": "GANLoss", "gan_type": "vanilla"}}, "gan_opt and network_d belong together"),
            (
                {"reblur_opt": {"order": "both"}},
                "order: expected one of reblur_first, deblur_first, got 'both'",
            ),
            ({"reblur_opt": {"sharp_reference": "S"}}, "sharp_reference: expected one of pseudo, real, none, got 'S'"),
            ({"reblur_opt": {"sharp_weight": [[5, 1], [2, 1]]}}, "sharp_weight: expected weights >= 0 at increasing"),
            ({"reblur_opt": {"lambda": 1}}, "reblur_opt: unknown key lambda; expected loss_weight"),
            ({"optim_r": None}, "optim_r: missing"),
            ({"optim_r": {"type": "Adamm", "lr": 1}}, "PyTorch has no optimiser 'Adamm'"),
            ({"scheduler": None}, "scheduler: missing"),
            ({"scheduler": {"type": "Cosine"}}, "scheduler: type: expected MultiStepLR, got 'Cosine'"),
            ({"scheduler": {"type": "MultiStepLR", "milestone": [1]}}, "scheduler: unknown key milestone"),
            ({"amp": "fp8"}, "amp: expected bf16, fp16, auto or nothing, got 'fp8'"),
            ({"pixel_opt": {"type": "SelfReblurLoss"}}, r"expected a loss of \(output, sharp\), got SelfReblurLoss"),
        ],
    )
    def test_options_that_make_no_sense_are_named(
        self, options: dict[str, Any], change: dict[str, Any], message: str
    ) -> None:
        options["train"] |= change
        with pytest.raises(ReblurError, match=message.replace("[", r"\[")):
            ReblurModel(options)

    def test_no_loss_for_m_d(self, options: dict[str, Any]) -> None:
        del options["network_r"], options["train"]["reblur_opt"], options["train"]["pixel_opt"]
        with pytest.raises(ReblurModelError, match="no loss for M_D"):
            ReblurModel(options)

    def test_a_test_without_weights(self, options: dict[str, Any]) -> None:
        with pytest.raises(ReblurModelError, match="pretrain_network_g: missing; a test needs a checkpoint"):
            ReblurModel({**options, "is_train": False})

    def test_adaptation_without_m_r(self, options: dict[str, Any]) -> None:
        del options["network_r"], options["train"]["reblur_opt"]
        with pytest.raises(ReblurModelError, match="tta: needs M_R"):
            ReblurModel({**options, "val": {"tta": {"steps": 1}}})


class TestAdaptation:
    def test_tta_is_the_paper_s_choice(self, options: dict[str, Any]) -> None:
        tta = ReblurModel({**options, "val": {"tta": {}}}).tta
        assert tta is not None
        assert (tta.steps, tta.lr) == (5, 3e-6)

    def test_each_photograph_begins_at_the_trained_weights(self, options: dict[str, Any]) -> None:
        tta = {"steps": 2, "lr": 1e-3}
        model = ReblurModel({**options, "val": {"tta": tta}})
        blurry = torch.full((1, 3, 16, 16), B)
        expected = reblur_plugin.adapt(model.net_g, model.net_r, blurry, **tta).image
        assert [torch.equal(model.adapt(blurry).image, expected) for _ in range(2)] == [True, True]
        assert gains(model) == pytest.approx((0.9, 0.5))

    def test_a_bound_on_memory_is_kept_by_one_adapter(self, options: dict[str, Any]) -> None:
        model, blurry = (
            ReblurModel({**options, "val": {"tta": {"steps": 1, "max_memory": 2**40}}}),
            torch.rand(1, 3, 16, 16),
        )
        assert isinstance(model.adapter, Adapter)
        plans = model.adapt(blurry).plan, model.plan(blurry), model.adapter.plan(blurry)
        assert len({replace(plan, memory=0) for plan in plans}) == 1  # each is timed once; memory in use changes
        assert ReblurModel({**options, "val": {"tta": {"steps": 1}}}).plan(blurry) is None
        assert ReblurModel(options).plan(blurry) is None
