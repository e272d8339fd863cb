"""What `checks` finds wrong with options: every problem, as a sentence of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pytest

from reblur_plugin.options import checks, reading
from reblur_plugin.options.reading import Options, override


@pytest.fixture
def options(minimal_options: Options) -> Options:
    return minimal_options


def problems(options: Options, is_train: bool = True) -> str:
    found = checks.problems(options, is_train)
    assert found
    return "; ".join(found)


def said_of(options: Options, entries: Iterable[str]) -> dict[str, str]:
    """Return what is wrong with each entry of --force_yml, laid over the options by itself."""
    changed = {entry: override(copy.deepcopy(options), [entry]) for entry in entries}
    return {entry: "; ".join(checks.problems(found, is_train=True)) for entry, found in changed.items()}


class TestCheck:
    def test_options_in_order_pass(self, options: Options) -> None:
        assert [checks.problems(options, is_train) for is_train in (True, False)] == [[], []]

    def test_a_test_needs_neither_train_nor_logger(self, options: Options) -> None:
        del options["train"], options["logger"]
        assert checks.problems(options, is_train=False) == []
        assert problems(options) == "train: missing; logger: missing"

    def test_a_missing_key_is_named(self, options: Options) -> None:
        cases = list(product(("name", "model_type", "datasets", "network_g", "path"), (True, False)))
        found = {
            (key, is_train): checks.problems({name: value for name, value in options.items() if name != key}, is_train)
            for key, is_train in cases
        }
        assert found == {(key, is_train): [f"{key}: missing"] for key, is_train in cases}

    def test_an_unknown_key_is_named_with_the_nearest_one(self, options: Options) -> None:
        # what BasicSR takes in silence: a typo anywhere
        expected = {
            "trian:total_iter=5": "trian: unknown key; did you mean train?",
            "train:totl_iter=5": "train: totl_iter: unknown key; did you mean total_iter or total_epoch?",
            "val:val_frq=5": "val: val_frq: unknown key; did you mean val_freq?",
            "val:tta:max_memory=four": "val: tta: max_memory: expected bytes > 0 or a size such as 4G, got 'four'",
            "val:tta:stpes=5": "val: tta: stpes: unknown key; did you mean steps?",
            "logger:print_frq=5": "logger: print_frq: unknown key; did you mean print_freq?",
            "path:pretrained_network_g=x.pth": (
                "path: pretrained_network_g: unknown key; did you mean pretrain_network_g or pretrain_network_r?"
            ),
            "datasets:train:blur_kye=blur": "datasets: train: blur_kye: unknown key; did you mean blur_key?",
            "datasets:train:augmnet=flip": "datasets: train: augmnet: unknown key; did you mean augment?",
            "logger:zzz=1": (
                "logger: zzz: unknown key; expected one of keep_checkpoints, print_freq, save_checkpoint_freq, "
                "use_tb_logger, wandb"
            ),
        }
        assert said_of(options, expected) == expected

    def test_a_section_that_is_no_block_is_named(self, options: Options) -> None:
        cases = [(section, value) for section in ("path", "train", "val", "logger") for value in (5, "text", [1])]
        found = [checks.problems({**options, section: value}, is_train=True) for section, value in cases]
        assert found == [[f"{section}: expected a block of keys, got {value!r}"] for section, value in cases]

    def test_datasets_that_are_no_block_are_named(self, options: Options) -> None:
        for value, is_train in product((5, "text", [1]), (True, False)):
            assert problems({**options, "datasets": value}, is_train).startswith("datasets: expected a block"), value

    def test_adaptation_that_is_no_block_is_named(self, options: Options) -> None:
        assert problems(override(options, ["val:tta=5"])) == "val: tta: expected a block of keys, got 5"

    def test_a_name_that_is_no_folder_name_or_leads_out_is_refused(self, options: Options) -> None:
        names = ("a/b", 5, "", "a b", "../a", "ä:", ".", "..")
        found = [checks.problems({**options, "name": name}, is_train=True) for name in names]
        assert found == [[f"name: expected letters, digits, _ . + -, got {name!r}"] for name in names]

    def test_an_unknown_phase_is_named(self, options: Options) -> None:
        options["datasets"]["valid"] = {"type": "DeblurPairDataset"}
        assert problems(options) == "datasets: valid: unknown key; did you mean val?"

    def test_several_sets_of_a_phase_pass(self, options: Options) -> None:
        for phase in ("val", "val_2", "test_reds", "test"):
            options["datasets"][phase] = {"type": "DeblurPairDataset"}
        assert checks.problems(options, is_train=True) == []

    def test_a_data_set_without_type_or_that_is_no_block_is_named(self, options: Options) -> None:
        for block in ({}, {"dataroot": "x"}):
            options["datasets"]["val"] = block
            assert problems(options) == "datasets: val: type: missing"
        for block in (None, "text"):
            options["datasets"]["val"] = block
            assert problems(options) == f"datasets: val: expected a block of keys, got {block!r}"

    def test_training_needs_a_training_set(self, options: Options) -> None:
        options["datasets"] = {"val": {"type": "DeblurPairDataset"}}
        assert problems(options) == "datasets: train: missing"
        assert checks.problems(options, is_train=False) == []

    def test_options_of_a_test_are_sent_to_the_test(self, options: Options) -> None:
        options["datasets"] = {"test": {"type": "DeblurPairDataset"}}
        options["path"]["pretrain_network_g"] = "not/trained/yet.pth"
        del options["train"], options["logger"]
        assert problems(options) == (
            "train, datasets: train: missing: these are options of a test; python -m reblur_plugin.test -opt FILE"
        )

    def test_a_missing_file_is_named(self, options: Options, tmp_path: Path) -> None:
        keys = ("pretrain_network_g", "pretrain_network_r", "resume_state")
        for key, path in product(keys, (f"{tmp_path}/none.pth", str(tmp_path))):
            options["path"] = {key: path}
            assert problems(options) == f"path: {key}: no such file {path}"

    def test_files_may_lie_in_the_home_folder_or_be_left_out(
        self, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "net.pth").touch()
        options["path"] = {"pretrain_network_g": "~/net.pth"}
        assert checks.problems(options, is_train=True) == []

    def test_a_key_that_is_a_number_is_named(self, options: Options) -> None:
        for section in ("path", "datasets"):
            message = problems({**options, section: {**options[section], 1: "x"}})
            assert message.startswith(f"{section}: 1: unknown key")

    def test_a_count_that_is_no_whole_number_above_zero_is_named(self, options: Options) -> None:
        keys = ("train:total_iter", "logger:print_freq", "logger:save_checkpoint_freq")
        keys += ("datasets:train:batch_size_per_gpu", "val:val_freq")
        values = {"0": 0, "-5": -5, "1e5": 1e5, "true": True, "ten": "ten"}
        expected = {
            f"{key}={text}": f"{key.replace(':', ': ')}: expected a whole number > 0, got {value!r}"
            for key in keys
            for text, value in values.items()
        }
        assert said_of(options, expected) == expected

    def test_the_length_given_last_holds(self, options: Options) -> None:
        assert "total_iter" not in override(options, ["train:total_epoch=3"])["train"]
        assert reading.merge({"total_epoch": 3}, {"total_iter": 5}) == {"total_iter": 5}

    def test_without_validation_no_frequency_is_asked_for(self, options: Options) -> None:
        del options["val"]
        assert checks.problems(options, is_train=True) == []

    def test_a_test_asks_for_no_counts(self, options: Options) -> None:
        assert checks.problems(override(options, ["train:total_iter=0", "val:val_freq=0"]), is_train=False) == []

    def test_numbers_of_gpus_and_seeds_are_checked(self, options: Options) -> None:
        found = said_of(options, ["num_gpu=two", "manual_seed=x"])
        assert [message.split(" ")[:2] for message in found.values()] == [
            ["num_gpu:", "expected"],
            ["manual_seed:", "expected"],
        ]

    def test_all_problems_stand_in_one_message(self, options: Options, tmp_path: Path) -> None:
        entries = ["nmae=x", "val:val_frq=1", "datasets:valid={}", f"path:resume_state={tmp_path}/none", "name=a/b"]
        del options["network_g"]
        assert set(problems(override(options, entries)).split("; ")) == {
            "network_g: missing",
            "nmae: unknown key",
            "did you mean name?",
            "val: val_frq: unknown key",
            "did you mean val_freq?",
            "name: expected letters, digits, _ . + -, got 'a/b'",
            "datasets: valid: unknown key",
            "did you mean val?",
            f"path: resume_state: no such file {tmp_path}/none",
        }

    def test_wrong_numbers_stand_beside_the_other_problems(self, options: Options) -> None:
        message = problems(override(options, ["train:totl_iter=1", "logger:print_freq=0"]))
        assert "train: totl_iter: unknown key" in message
        assert "logger: print_freq: expected a whole number > 0, got 0" in message

    def test_values_that_make_no_sense_are_named(self, options: Options) -> None:
        expected = {
            "train:scheduler={type: MultiStepLR, milestones: [10, 50%, 11]}": (
                "train: scheduler: milestones: 11 lies beyond total_iter 10; lower it"
            ),
            "train:scheduler_r={type: MultiStepLR, milestones: [half]}": (
                "train: scheduler_r: milestones: 0: expected an iteration or a percentage such as 50%, got 'half'"
            ),
            "train:accumulate=3": "train: accumulate: expected a divisor of batch_size_per_gpu 2, got 3",
            "train:reblur_opt:order=simultaneous": (
                "train: reblur_opt: order: expected one of reblur_first, deblur_first, got 'simultaneous'"
            ),
            "train:amp=fp61": "train: amp: expected one of bf16, fp16, auto, got 'fp61'",
            "train:optim_g={type: Adam}": "train: optim_g: lr: missing",
            "train:optim_g={type: Adam, lr: fast}": "train: optim_g: lr: expected a number > 0, got 'fast'",
            "train:reblur_opt:sharp_weight=[[400, 0.0], [500]]": (
                "train: reblur_opt: sharp_weight: expected a number >= 0 or a list of [iteration, weight], got [[400, "
                "0.0], [500]]"
            ),
            "val:best=pnsr": "val: best: expected a name under val: metrics; did you mean psnr?",
            "val:metrics:mine={type: my_metric}": (
                "val: metrics: mine: better: missing; say higher or lower, so that the best result is known"
            ),
            "val:adapted_steps=[0, 1]": "val: adapted_steps: nothing is adapted; add val: tta",
            "val:metrics:psnr:better=up": "val: metrics: psnr: better: expected higher or lower, got 'up'",
            "datasets:train:layout=GoPro": (
                "datasets: train: layout: expected one of gopro, reds, hide, realblur, folders, photographs, packed, "
                "got 'GoPro'"
            ),
        }
        assert said_of(options, expected) == expected

    def test_the_direction_of_a_metric_is_checked_for_other_models_too(self, options: Options) -> None:
        options["model_type"] = "SRModel"
        assert problems(override(options, ["val:metrics:psnr:better=up"])) == (
            "val: metrics: psnr: better: expected higher or lower, got 'up'"
        )

    def test_steps_are_asked_for_up_to_the_last(self, options: Options) -> None:
        for tta, last in (("{steps: 3}", 3), ("{}", 5)):
            adapted = override(options, [f"val:tta={tta}"])
            message = f"val: adapted_steps: expected steps up to {last} (val: tta: steps), got {last + 1}"
            expected = {f"val:adapted_steps=[0, {last}]": "", f"val:adapted_steps=[{last + 1}, 1]": message}
            assert said_of(adapted, expected) == expected

    def test_a_training_has_one_length(self, options: Options) -> None:
        for lengths, got in (({"total_iter": 10, "total_epoch": 3}, "total_iter and total_epoch"), ({}, "none")):
            message = problems({**options, "train": lengths})
            assert message == f"train: expected one of total_iter and total_epoch, got {got}"

    def test_two_data_sets_of_one_name_are_named(self, options: Options) -> None:
        for phase in ("val", "test"):
            options["datasets"][phase] = {"type": "DeblurPairDataset", "name": "gopro"}
        assert problems(options) == (
            "datasets: two sets are named 'gopro'; give each its own name, they share a folder of results"
        )

    def test_a_list_in_the_place_of_a_name_is_named(self, options: Options) -> None:
        entries = ["model_type=[a]", "val:metrics=[psnr, ssim]", "val:metrics:psnr:type=[a]", "val:best=[psnr]"]
        for entry, message in said_of(options, [*entries, "datasets:train:type=[a]"]).items():
            assert message.startswith(f"{entry.partition('=')[0].replace(':', ': ')}: expected ")

    def test_a_block_of_the_base_can_be_taken_back_by_nothing(self, options: Options) -> None:
        entries = ["val=", "val:tta=", "network_r=", "train:scheduler=", "val:metrics="]
        assert said_of(options, entries) == dict.fromkeys(entries, "")

    def test_checking_changes_nothing(self, options: Options) -> None:
        before = copy.deepcopy(options)
        assert checks.problems(options, is_train=True) == []
        assert options == before
