"""ReblurModel on two networks with one weight each, M_D(x) = a x and M_R(x) = r x: a step is worked out by hand.

B = .5 and S = .8 everywhere, a = .9, r = .5, plain gradient descent with learning rate .1 for both. Then L = a B = .45.

    dL_Blur/dr  = sign(r L - B) L         = sign(.225 - .5) .45  = -.45
    dL_Sharp/dr = sign(r - 1) S_hat       = -.72 with S_hat = a S, -.8 with S_hat = S
    dL_1/da     = sign(a B - S) B         = sign(.45 - .8) .5    = -.5
    dL_Reblur/da = sign(r (L - S)) r B    = -.5 r
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin import checkpoints, host

host.prepare()
reblur_plugin.register()

from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY  # noqa: E402

from reblur_plugin.core.memory import Costs  # noqa: E402
from reblur_plugin.models.reblur_model import ReblurModel, ReblurModelError  # noqa: E402

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
    ARCH_REGISTRY.register(_Gain)
    LOSS_REGISTRY.register(_GainPerceptual)
    yield
    del ARCH_REGISTRY._obj_map["_Gain"], LOSS_REGISTRY._obj_map["_GainPerceptual"]


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


class TestOneIteration:
    def test_reblur_first_gives_m_d_the_updated_m_r(self, options: dict[str, Any]) -> None:
        # r' = .5 + .1 (.45 + .72) = .617; a' = .9 + .1 (.5 + .5 * .617) = .98085
        assert gains(step(options)) == pytest.approx((0.98085, 0.617), rel=1e-6)

    def test_deblur_first_gives_m_d_the_old_m_r_and_l_sharp_the_new_m_d(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["order"] = "deblur_first"
        # a' = .9 + .1 (.5 + .25) = .975; L stays .45, S_hat = .975 * .8 = .78: r' = .5 + .1 (.45 + .78) = .623
        assert gains(step(options)) == pytest.approx((0.975, 0.623), rel=1e-6)

    def test_simultaneous_gives_both_the_weights_from_before(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["order"] = "simultaneous"
        # M_D sees the old r: a' = .9 + .1 (.5 + .25) = .975; L_Sharp the old a: r' = .5 + .1 (.45 + .72) = .617
        model = step(options)
        assert gains(model) == pytest.approx((0.975, 0.617), rel=1e-6)
        assert float(model.net_r.gain.grad) == pytest.approx(-1.17, rel=1e-6)
        assert float(model.net_g.gain.grad) == pytest.approx(-0.75, rel=1e-6)
        expected = {"l_r_blur": 0.275, "l_r_sharp": 0.36, "rho": 5.5, "l_g_pix": 0.35, "l_g_reblur": 0.5 * 0.35}
        assert model.get_current_log() == pytest.approx(expected | {"lr_g": 0.1, "lr_r": 0.1}, rel=1e-5)

    def test_simultaneous_weighs_and_scales_each_loss_by_its_own(self, options: dict[str, Any]) -> None:
        options["train"] |= {"amp": "fp16", "reblur_opt": {"order": "simultaneous", "loss_weight": 2.0}}
        model = ReblurModel(options)
        model.updaters["g"].scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        model.feed_data(batch())
        model.optimize_parameters(1)
        # a' = .9 + .1 (.5 + 2 * .25) = 1; the two scales, 4 and 1024, cancel
        assert gains(model) == pytest.approx((1.0, 0.617), rel=1e-6)

    def test_simultaneous_needs_no_other_loss_of_m_d(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["order"] = "simultaneous"
        del options["train"]["pixel_opt"]
        # a' = .9 + .1 * .25
        assert gains(step(options)) == pytest.approx((0.925, 0.617), rel=1e-6)

    def test_simultaneous_with_a_discriminator_holds_it_in_m_ds_turn(self, options: dict[str, Any]) -> None:
        options["network_d"] = {"type": "_Gain", "gain": 2.0}
        options["train"]["reblur_opt"]["order"] = "simultaneous"
        options["train"] |= {"optim_d": {"type": "SGD", "lr": 0.1}}
        options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.001}
        sigmoid = [1 / (1 + 2.718281828459045**-z) for z in (1.6, 0.9)]
        d = 2 - 0.1 * (-(1 - sigmoid[0]) * 0.8 + sigmoid[1] * 0.45)
        gan = 0.001 * -(1 - sigmoid[1]) * 2 * B  # by the discriminator of before
        model = step(options)
        assert model.net_d.gain.item() == pytest.approx(d, rel=1e-6)
        assert gains(model) == pytest.approx((0.975 - 0.1 * gan, 0.617), rel=1e-6)

    def test_real_sharp_images_take_the_place_of_pseudo_sharp_ones(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["sharp_reference"] = "real"
        # r' = .5 + .1 (.45 + .8) = .625; a' = .9 + .1 (.5 + .3125) = .98125
        assert gains(step(options)) == pytest.approx((0.98125, 0.625), rel=1e-6)

    def test_without_l_sharp_m_r_follows_l_blur_alone(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["sharp_reference"] = "none"
        # r' = .5 + .045 = .545; a' = .9 + .1 (.5 + .2725) = .97725
        model = step(options)
        assert gains(model) == pytest.approx((0.97725, 0.545), rel=1e-6)
        assert "l_r_sharp" not in model.get_current_log()

    def test_the_weight_of_l_sharp_follows_its_schedule(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["sharp_weight"] = [[0, 0.0], [4, 1.0]]
        # iteration 1: weight .25, r' = .5 + .1 (.45 + .25 * .72) = .563
        assert gains(step(options))[1] == pytest.approx(0.563, rel=1e-6)

    def test_lambda_weighs_l_reblur(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"]["loss_weight"] = 2.0
        # a' = .9 + .1 (.5 + 2 * .3085) = 1.0117
        assert gains(step(options))[0] == pytest.approx(1.0117, rel=1e-6)

    def test_without_a_reblur_block_it_is_l1_training(self, options: dict[str, Any]) -> None:
        del options["network_r"], options["train"]["reblur_opt"], options["train"]["optim_r"]
        model = step(options)
        assert model.net_g.gain.item() == pytest.approx(0.95, rel=1e-6)
        assert set(model.get_current_log()) == {"l_g_pix", "lr_g"}

    def test_l1_counts_every_scale_and_the_other_losses_the_finest(self, options: dict[str, Any]) -> None:
        options["network_g"]["scales"] = 2
        # L_1 twice: a' = .9 + .1 (2 * .5 + .3085) = 1.03085; r' as with one scale
        assert gains(step(options)) == pytest.approx((1.03085, 0.617), rel=1e-6)

    def test_a_perceptual_loss_joins_in(self, options: dict[str, Any]) -> None:
        options["train"]["perceptual_opt"] = {"type": "_GainPerceptual"}
        # another 2 * .5: a' = .9 + .1 (.5 + 1 + .3085) = 1.08085
        model = step(options)
        assert gains(model)[0] == pytest.approx(1.08085, rel=1e-6)
        assert model.get_current_log()["l_g_percep"] == pytest.approx(0.7, rel=1e-6)

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

    def test_no_network_keeps_the_gradient_of_another_ones_loss(self, options: dict[str, Any]) -> None:
        model = step(options)
        assert float(model.net_r.gain.grad) == pytest.approx(-1.17, rel=1e-6)  # L_R's alone
        assert float(model.net_g.gain.grad) == pytest.approx(-0.8085, rel=1e-6)  # L_D's alone

    def test_gradients_are_clipped_network_by_network(self, options: dict[str, Any]) -> None:
        options["train"]["grad_clip"] = 0.2
        assert gains(step(options)) == pytest.approx((0.92, 0.52), rel=1e-5)  # clipping divides by norm + 1e-6

    def test_gradients_are_clipped_at_their_own_scale_under_fp16(self, options: dict[str, Any]) -> None:
        options["train"] |= {"grad_clip": 0.2, "amp": "fp16"}
        assert gains(step(options)) == pytest.approx((0.92, 0.52), rel=1e-5)

    @pytest.mark.parametrize("fast", [True, False])
    def test_automatic_precision_is_low_where_the_device_has_units_for_it(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, fast: bool
    ) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: fast)
        options["train"]["amp"] = "auto"
        assert ReblurModel(options).amp_dtype is (torch.bfloat16 if fast else None)

    def test_averaging_changes_nothing_in_training(self, options: dict[str, Any]) -> None:
        plain = gains(step(options, 3))
        options["train"]["ema_decay"] = 0.9  # pseudo-sharp images come from M_D itself, not from its average
        assert gains(step(options, 3)) == plain

    @pytest.mark.parametrize("amp", ["bf16", "fp16"])
    def test_mixed_precision_takes_the_same_step(self, options: dict[str, Any], amp: str) -> None:
        options["train"]["amp"] = amp
        # a product with a gain isn't cast, so that the step is exact; under fp16 it passes through the scalers
        model = step(options)
        assert gains(model) == pytest.approx((0.98085, 0.617), rel=1e-6)
        enabled = {label: updater.scaler.is_enabled() for label, updater in model.updaters.items()}
        assert enabled == dict.fromkeys("gr", amp == "fp16")

    def test_the_average_moves_by_its_decay(self, options: dict[str, Any]) -> None:
        options["train"]["ema_decay"] = 0.75
        model = step(options)
        assert model.net_g_ema.gain.item() == pytest.approx(0.75 * 0.9 + 0.25 * 0.98085, rel=1e-6)
        assert model.tested_net is model.net_g_ema


class TestParts:
    """A batch computed in parts gives the step of the whole batch."""

    @pytest.fixture
    def batch_of_four(self, rng: np.random.Generator) -> dict[str, Tensor]:
        return {key: torch.from_numpy(rng.random((4, 3, 8, 8), dtype=np.float32)) for key in ("lq", "gt")}

    @pytest.mark.parametrize("order", ["reblur_first", "deblur_first", "simultaneous"])
    def test_parts_of_a_batch_give_the_same_step(
        self, options: dict[str, Any], batch_of_four: dict[str, Tensor], order: str
    ) -> None:
        options["train"]["reblur_opt"]["order"] = order
        options["network_d"] = {"type": "_Gain", "gain": 2.0}
        options["train"] |= {"optim_d": {"type": "SGD", "lr": 0.1}}
        options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
        results = []
        for parts in (1, 2, 4):
            model = ReblurModel(copy.deepcopy(options) | {"train": {**options["train"], "accumulate": parts}})
            model.feed_data(batch_of_four)
            model.optimize_parameters(1)
            results.append([*gains(model), model.net_d.gain.item(), *model.get_current_log().values()])
        assert results[1] == pytest.approx(results[0], rel=1e-5)
        assert results[2] == pytest.approx(results[0], rel=1e-5)


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
        for order in ("deblur_first", "simultaneous"):
            frozen_options["train"]["reblur_opt"]["order"] = order
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
        with pytest.raises(ReblurModelError, match="nan or infinity since iteration 3; use a smaller lr"):
            model.get_current_log()

    @pytest.mark.parametrize("order", ["reblur_first", "deblur_first", "simultaneous"])
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
        with pytest.raises(ReblurModelError, match="net_r: weights aren't finite any more"):
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
        model.feed_data({"lq": torch.full((2, 3, 4, 4), torch.inf), "gt": torch.full((2, 3, 4, 4), S)})
        for iteration in range(1, 21):
            model.optimize_parameters(iteration)
        with pytest.raises(ReblurModelError, match="20 fp16 steps in a row without finite gradient"):
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


class TestLearningRate:
    def test_halves_at_the_milestones_for_all_networks(self, options: dict[str, Any]) -> None:
        options["train"]["scheduler"]["milestones"] = [2, 3]
        model = ReblurModel(options)
        seen = []
        for iteration in range(1, 6):
            model.optimizers[0].step()
            model.optimizers[1].step()
            model.update_learning_rate(iteration)
            seen.append(model.get_current_learning_rate()[1])
        # the scheduler has stepped k times before iteration k + 1
        assert seen == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.025])

    def test_is_the_set_one_after_warming_up(self, options: dict[str, Any]) -> None:
        model = ReblurModel(options)
        seen = []
        for iteration in range(1, 7):
            model.optimizers[0].step()
            model.optimizers[1].step()
            model.update_learning_rate(iteration, warmup_iter=4)
            seen.append(model.get_current_learning_rate()[0])
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
                "order: expected one of reblur_first, deblur_first, simultaneous, got 'both'",
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
        with pytest.raises(ReblurModelError, match=message.replace("[", r"\[")):
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


class TestEmptyBlocks:
    def test_reblur_opt_is_the_paper_s_choice(self, options: dict[str, Any]) -> None:
        options["train"]["reblur_opt"] = {}
        assert gains(step(options)) == pytest.approx((0.98085, 0.617), rel=1e-6)  # as TestOneIteration's first

    def test_tta_is_the_paper_s_choice(self, options: dict[str, Any]) -> None:
        tta = ReblurModel({**options, "val": {"tta": {}}}).tta
        assert tta is not None
        assert (tta.steps, tta.lr) == (5, 3e-6)


class TestBoundOnMemory:
    def test_its_costs_are_measured_once_for_all_photographs(
        self, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measured = []
        run = Costs._run
        monkeypatch.setattr(Costs, "_run", lambda *given: measured.append(given) or run(*given))
        model = ReblurModel({**options, "val": {"tta": {"steps": 1, "max_memory": 2**40}}})
        first = model.adapt(torch.full((1, 3, 16, 16), B))
        once = len(measured)
        second = model.adapt(torch.full((1, 3, 16, 24), B))
        assert 0 < once == len(measured)
        assert 0 < first.plan.memory < 2**40
        assert second.plan.seconds == pytest.approx(1.5 * first.plan.seconds)  # by pixels
