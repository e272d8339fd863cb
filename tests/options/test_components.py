"""Types and arguments of option files against BasicSR's registries: every mistake named before anything is built."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest

import reblur_plugin
from reblur_plugin.options import components
from reblur_plugin.options.reading import Options, override


@pytest.fixture(autouse=True)
def registered() -> None:
    reblur_plugin.register()


@pytest.fixture
def options() -> Options:
    return {
        "model_type": "ReblurModel",
        "datasets": {"train": {"type": "DeblurPairDataset", "gt_size": 64}},
        "network_g": {"type": "ResUNet", "num_blocks": 4},
        "network_r": {"type": "ReblurNet"},
        "train": {"pixel_opt": {"type": "MultiScaleL1Loss", "loss_weight": 1.0}},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    }


def said_of(options: Options, entries: Iterable[str]) -> dict[str, str]:
    """Return what is wrong with each entry of --force_yml, laid over the options by itself."""
    changed = {entry: override(copy.deepcopy(options), [entry]) for entry in entries}
    return {entry: "; ".join(components.problems(found)) for entry, found in changed.items()}


class TestInOrder:
    def test_known_types_with_known_arguments_pass(self, options: Options) -> None:
        assert components.problems(options) == []

    def test_basicsrs_own_components_pass(self, options: Options) -> None:
        entries = [
            "network_g={type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 1}",
            "network_g={type: SRVGGNetCompact}",  # registered as SRVGGNetCompact_basicsr
            "train:pixel_opt={type: CharbonnierLoss, eps: 1e-6}",
            "train:gan_opt={type: GANLoss, gan_type: vanilla}",
            "datasets:train={type: PairedImageDataset, anything: 1}",
            "val:metrics:ssim={type: calculate_ssim, crop_border: 0, test_y_channel: true}",
        ]
        assert said_of(options, entries) == dict.fromkeys(entries, "")

    def test_metrics_take_their_images_and_direction_from_basicsr(self, options: Options) -> None:
        options["val"]["metrics"] = {
            "psnr": {"type": "calculate_psnr", "crop_border": 0, "better": "higher"},
            "lpips": {"type": "reblur_lpips", "better": "lower"},
            "niqe": {"type": "calculate_niqe", "crop_border": 0, "better": "lower"},
        }
        assert components.problems(options) == []

    def test_options_without_training_and_validation_pass(self, options: Options) -> None:
        del options["train"], options["val"], options["network_r"]
        assert components.problems(options) == []


class TestRefusals:
    def test_an_unknown_type_is_named_with_the_nearest_one(self, options: Options) -> None:
        expected = {
            "model_type=RebluModel": "model_type: nothing is registered as 'RebluModel'; did you mean ReblurModel",
            "network_g:type=SNR": "network_g: type: nothing is registered as 'SNR'; did you mean SRN?",
            "network_r={type: ReblurNte}": "network_r: type: nothing is registered as 'ReblurNte'; did you mean Reblur",
            "train:pixel_opt:type=MultiscaleL1": (
                "train: pixel_opt: type: nothing is registered as 'MultiscaleL1'; did you mean MultiScaleL1Loss"
            ),
            "val:metrics:psnr:type=calc_psnr": (
                "val: metrics: psnr: type: nothing is registered as 'calc_psnr'; did you mean calculate_psnr"
            ),
            "datasets:train:type=DeblurPairsDataset": (
                "datasets: train: type: nothing is registered as 'DeblurPairsDataset'; did you mean DeblurPairDataset"
            ),
        }
        failures = {
            entry: message
            for entry, message in said_of(options, expected).items()
            if not message.startswith(expected[entry])
        }
        assert failures == {}

    def test_a_class_of_ones_own_wants_its_module(self, options: Options) -> None:
        (message,) = components.problems(override(options, ["network_g:type=MyNetwork"]))
        assert message.endswith("; --import MODULE for your own")

    def test_a_name_like_none_is_answered_with_all_names(self, options: Options) -> None:
        (message,) = components.problems(override(options, ["val:metrics:psnr:type=zzz"]))
        assert message.startswith("val: metrics: psnr: type: nothing is registered as 'zzz'; expected one of ")
        listed = message.split("expected one of ")[1].split("; ")[0].split(", ")
        assert {"calculate_psnr", "reblur_lpips", "reblur_niqe", "reblur_ssim"} <= set(listed)
        assert listed == sorted(listed)

    def test_an_unknown_argument_is_named_with_the_nearest_one(self, options: Options) -> None:
        # BasicSR's own metrics take everything and forget what they don't know
        expected = {
            "network_g:num_block=4": "network_g: num_block: unknown key; did you mean num_blocks?",
            "train:pixel_opt:loss_wieght=1": "train: pixel_opt: loss_wieght: unknown key; did you mean loss_weight?",
            "val:metrics:l={type: reblur_lpips, nett: alex}": "val: metrics: l: nett: unknown key; did you mean net",
            "val:metrics:r={type: reblurability, reblur_net: null}": "val: metrics: r: reblur_net: unknown key",
            "val:metrics:r={type: reblurability, device: cpu}": "val: metrics: r: device: unknown key",
            "val:metrics:psnr:test_y_chanel=true": (
                "val: metrics: psnr: test_y_chanel: unknown key; did you mean test_y_channel?"
            ),
        }
        failures = {
            entry: message
            for entry, message in said_of(options, expected).items()
            if not message.startswith(expected[entry])
        }
        assert failures == {}

    def test_a_missing_argument_is_named(self, options: Options) -> None:
        expected = {
            "val:metrics:psnr={type: calculate_psnr}": (
                "val: metrics: psnr: crop_border: missing; calculate_psnr needs it"
            ),
            "train:gan_opt={type: GANLoss}": "train: gan_opt: gan_type: missing; GANLoss needs it",
            "network_g={type: EDSR, num_out_ch: 3}": "network_g: num_in_ch: missing; EDSR needs it",
        }
        assert said_of(options, expected) == expected

    def test_a_block_without_type_is_named(self, options: Options) -> None:
        expected = {
            "network_g={num_blocks: 4}": "network_g: type: missing",
            "train:perceptual_opt={layer_weights: {}}": "train: perceptual_opt: type: missing",
        }
        assert said_of(options, expected) == expected

    def test_a_list_in_the_place_of_a_type_is_named(self, options: Options) -> None:
        (message,) = components.problems(override(options, ["network_g:type=[SRN]"]))
        assert message.startswith("network_g: type: ")

    def test_all_problems_are_told(self, options: Options) -> None:
        entries = ["model_type=M", "network_g:num_block=4", "train:pixel_opt:type=L1los", "val:metrics:x={type: SSIM}"]
        found = components.problems(override(options, entries))
        places = ("model_type: ", "network_g: num_block: ", "train: pixel_opt: type: ", "val: metrics: x: type: ")
        assert [message.startswith(place) for message, place in zip(found, places, strict=True)] == [True] * 4
