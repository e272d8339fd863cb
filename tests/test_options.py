"""Option files: what YAML may say, how files build on each other, and that every problem is named."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin import options as reader
from reblur_plugin.options import OptionError, Options, check, in_iterations, merge, override, read, suggest, write

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "options").glob("*.yml"))
Write = Callable[..., Path]


def is_training(path: Path) -> bool:
    return not path.stem.endswith(("_test", "_tta"))


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def make(text: str, name: str = "a.yml") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


@pytest.fixture
def options() -> Options:
    """Return options that are in order for training and for test."""
    return {
        "name": "a",
        "model_type": "ReblurModel",
        "datasets": {"train": {"type": "DeblurPairDataset", "batch_size_per_gpu": 2}},
        "network_g": {"type": "SRN"},
        "path": {},
        "train": {"total_iter": 10},
        "val": {"val_freq": 5, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
    }


def problems(options: Options, is_train: bool = True) -> str:
    with pytest.raises(OptionError) as caught:
        check(options, is_train)
    return str(caught.value)


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-4", 1e-4),
            ("-1e-4", -1e-4),
            ("+1e2", 100.0),
            ("3E6", 3e6),
            (".5e1", 5.0),
            ("2.e-1", 0.2),
            ("1.0e-4", 1e-4),
            ("0.25", 0.25),
            ("12", 12),
            ("-1", -1),
            ("true", True),
            ("[1, 2e0]", [1, 2.0]),
            ("1e-4x", "1e-4x"),
            ("e5", "e5"),
            ("'1e-4'", "1e-4"),
        ],
    )
    def test_numbers_are_numbers(self, file: Write, text: str, value: object) -> None:
        found = read(file(f"key: {text}\n"))["key"]
        assert found == value
        assert type(found) is type(value)

    def test_special_floats_are_read(self, file: Write) -> None:
        assert read(file("a: .inf\n"))["a"] == math.inf

    @pytest.mark.parametrize(
        ("text", "line", "key"),
        [("a: 1\nb: 2\na: 3\n", 3, "a"), ("a:\n  b: 1\n  b: 2\n", 3, "b"), ("a: {lr: 1, lr: 2}\n", 1, "lr")],
    )
    def test_a_key_that_stands_twice_is_named_with_its_line(self, file: Write, text: str, line: int, key: str) -> None:
        with pytest.raises(
            OptionError, match=rf"a\.yml, line {line}: expected plain YAML, but the key '{key}' stands twice"
        ):
            read(file(text))

    @pytest.mark.parametrize(
        "payload",
        [
            "!!python/object/apply:os.mkdir [{target}]",
            "!!python/object/apply:subprocess.check_call [[mkdir, {target}]]",
            "!!python/object/new:os.mkdir [{target}]",
            "!!python/name:os.system",
            "!!python/module:antigravity",
            "!!python/tuple [1, 2]",
        ],
    )
    def test_python_objects_are_refused_and_nothing_runs(self, file: Write, tmp_path: Path, payload: str) -> None:
        target = tmp_path / "made"
        with pytest.raises(OptionError, match=r"a\.yml, line 2: expected plain YAML, but .*python/") as caught:
            read(file(f"name: x\nval: {payload.format(target=target)}\n"))
        assert not target.exists()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "line"),
        [("a: 1\n\tb: 2\n", 2), ("a: [1, 2\n", 2), ("a: b: c\n", 1), ("a: @b\n", 1), ("a: 'b\n", 2)],
        ids=["tab", "list", "two colons", "at sign", "quote"],
    )
    def test_broken_yaml_is_named_with_its_line(self, file: Write, text: str, line: int) -> None:
        with pytest.raises(OptionError, match=rf"a\.yml, line {line}: expected plain YAML, but "):
            read(file(text))

    def test_a_key_that_is_a_list_is_named_with_its_line(self, file: Write) -> None:
        with pytest.raises(OptionError, match=r"a\.yml, line 1: expected plain YAML, but "):
            read(file("? [a, b]\n: c\n"))

    def test_control_characters_are_refused_in_one_line(self, file: Write) -> None:
        with pytest.raises(OptionError, match=r"a\.yml: expected plain YAML, but unacceptable character") as caught:
            read(file("a: \x01\n"))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "kind"), [("", "NoneType"), ("- 1\n", "list"), ("text\n", "str"), ("# only this\n", "NoneType")]
    )
    def test_a_file_without_keys_is_named_with_what_it_holds(self, file: Write, text: str, kind: str) -> None:
        with pytest.raises(OptionError, match=rf"a\.yml: expected keys and values, got {kind}; see options/"):
            read(file(text))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            OptionError, match=rf"{tmp_path}/none\.yml: expected an option file, but it can't be read \(.*No such file"
        ):
            read(tmp_path / "none.yml")

    def test_a_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=rf"{tmp_path}: expected an option file, but .*Is a directory"):
            read(tmp_path)

    def test_other_encodings_than_utf_8_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "latin.yml").write_bytes("name: é\n".encode("latin-1"))
        with pytest.raises(OptionError, match=r"latin\.yml: expected an option file, but .*utf-8.*; check the path"):
            read(tmp_path / "latin.yml")

    def test_what_is_written_reads_the_same_in_its_order(self, tmp_path: Path) -> None:
        content: Options = {"b": 3e-6, "a": {"list": [[400, 0.0]], "text": "true", "yes": True}}
        write(content, tmp_path / "out.yml")
        assert read(tmp_path / "out.yml") == content
        assert list(read(tmp_path / "out.yml")) == ["b", "a"]

    def test_text_that_looks_like_a_number_stays_text_when_written(self, tmp_path: Path) -> None:
        write({"name": "1e4"}, tmp_path / "out.yml")
        assert read(tmp_path / "out.yml") == {"name": "1e4"}


class TestBase:
    def test_a_file_goes_over_its_base_block_by_block(self, file: Write) -> None:
        file("a: 1\nb: {c: 2, d: {e: 3}}\n", "base.yml")
        path = file("_base_: base.yml\nb: {d: {e: 4, f: 5}}\ng: 6\n")
        assert read(path) == {"a": 1, "b": {"c": 2, "d": {"e": 4, "f": 5}}, "g": 6}

    def test_null_takes_back_a_key_of_a_base(self, file: Write) -> None:
        file("train: {total_iter: 5, grad_clip: 1}\nval: {val_freq: 5}\n", "base.yml")
        assert read(file("_base_: base.yml\ntrain: {grad_clip: ~}\nval:\n")) == {"train": {"total_iter": 5}}

    def test_later_bases_go_over_earlier_ones(self, file: Write) -> None:
        file("a: 1\nb: 1\nc: 1\n", "one.yml")
        file("b: 2\nc: 2\n", "two.yml")
        assert read(file("_base_: [one.yml, two.yml]\nc: 3\n")) == {"a": 1, "b": 2, "c": 3}

    def test_bases_are_found_beside_the_file_that_names_them(self, file: Write) -> None:
        file("a: 1\n", "sub/deep/low.yml")
        file("_base_: deep/low.yml\nb: 2\n", "sub/middle.yml")
        assert read(file("_base_: sub/middle.yml\nc: 3\n")) == {"a": 1, "b": 2, "c": 3}

    def test_two_ways_to_one_base_are_no_circle(self, file: Write) -> None:
        file("a: 1\n", "low.yml")
        file("_base_: low.yml\nb: 2\n", "left.yml")
        file("_base_: low.yml\nc: 3\n", "right.yml")
        assert read(file("_base_: [left.yml, right.yml]\n")) == {"a": 1, "b": 2, "c": 3}

    @pytest.mark.parametrize("links", [["a.yml"], ["b.yml", "a.yml"], ["b.yml", "c.yml", "a.yml"]])
    def test_a_circle_is_named(self, file: Write, links: list[str]) -> None:
        names = ["a.yml", *links[:-1]]
        for name, link in zip(names, links, strict=True):
            path = file(f"_base_: {link}\n", name)
        with pytest.raises(OptionError, match=r"a\.yml: _base_ leads back to this file; remove one link of the circle"):
            read(path.with_name("a.yml"))

    def test_a_missing_base_is_named(self, file: Write) -> None:
        with pytest.raises(OptionError, match=r"none\.yml: expected an option file, but it can't be read"):
            read(file("_base_: none.yml\n"))

    def test_a_fault_in_a_base_is_named_with_its_file(self, file: Write) -> None:
        file("x: [\n", "base.yml")
        with pytest.raises(OptionError, match=r"base\.yml, line 2: expected plain YAML"):
            read(file("_base_: base.yml\n"))

    @pytest.mark.parametrize("value", ["5", "", "{a: b}", "true"])
    def test_a_base_that_is_no_name_is_refused(self, file: Write, value: str) -> None:
        with pytest.raises(OptionError, match=r"a\.yml: _base_: expected "):
            read(file(f"_base_: {value}\nb: 1\n"))


class TestMerge:
    def test_a_block_of_another_type_replaces_the_whole_block(self) -> None:
        base = {"network_g": {"type": "SRN", "upsample": "deconv"}, "a": 1}
        assert merge(base, {"network_g": {"type": "DHN"}}) == {"network_g": {"type": "DHN"}, "a": 1}

    @pytest.mark.parametrize("changes", [{"b": 2}, {"type": "SRN", "b": 2}])
    def test_a_block_of_the_same_type_keeps_its_other_keys(self, changes: Options) -> None:
        assert merge({"x": {"type": "SRN", "a": 1}}, {"x": changes}) == {"x": {"type": "SRN", "a": 1, "b": 2}}

    @pytest.mark.parametrize(("old", "new"), [({"a": 1}, 5), (5, {"a": 1}), ({"a": 1}, None), ([1], [2])])
    def test_other_values_replace_what_was_there(self, old: object, new: object) -> None:
        assert merge({"x": old}, {"x": new}) == {"x": new}

    def test_neither_side_is_changed(self) -> None:
        base, changes = {"x": {"a": {"b": 1}}}, {"x": {"a": {"c": 2}}}
        before = copy.deepcopy((base, changes))
        merge(base, changes)
        assert (base, changes) == before


class TestOverride:
    @pytest.mark.parametrize(
        ("entry", "where", "value"),
        [
            ("train:total_iter=1000", ("train", "total_iter"), 1000),
            ("train:optim_g:lr=1e-4", ("train", "optim_g", "lr"), 1e-4),
            ("train:warmup_iter=-1", ("train", "warmup_iter"), -1),
            ("train:scheduler:milestones=[1, 2]", ("train", "scheduler", "milestones"), [1, 2]),
            ("train:channels_last=true", ("train", "channels_last"), True),
            ("network_g={type: DHN}", ("network_g",), {"type": "DHN"}),
            ("path:pretrain_network_g=a=b.pth", ("path", "pretrain_network_g"), "a=b.pth"),
            ("datasets:train:dataroot=/data/x y", ("datasets", "train", "dataroot"), "/data/x y"),
            ("name='7'", ("name",), "7"),
        ],
    )
    def test_values_are_plain_yaml(self, options: Options, entry: str, where: tuple[str, ...], value: object) -> None:
        found: Any = override(options, [entry])
        for key in where:
            found = found[key]
        assert found == value
        assert type(found) is type(value)

    def test_null_takes_a_key_back(self, options: Options) -> None:
        options["val"] = {"metrics": {"psnr": {"type": "calculate_psnr"}, "ssim": {"type": "reblur_ssim"}}}
        assert override(options, ["val:metrics:psnr=null"])["val"] == {"metrics": {"ssim": {"type": "reblur_ssim"}}}
        assert "val" not in override(options, ["val=~"])

    def test_null_is_a_value_to_somebody_s_class(self, options: Options) -> None:
        options["network_g"] = {"type": "Mine", "norm": "batch"}
        assert override(options, ["network_g:norm=null"])["network_g"] == {"type": "Mine", "norm": None}

    def test_other_keys_stay(self, options: Options) -> None:
        expected = copy.deepcopy(options)
        expected["logger"]["print_freq"] = 7
        assert override(options, ["logger:print_freq=7"]) == expected

    @pytest.mark.parametrize(("given", "entry"), [("total_iter", "total_epoch"), ("total_epoch", "total_iter")])
    def test_one_length_of_a_training_takes_the_others_place(self, options: Options, given: str, entry: str) -> None:
        options["train"] = {given: 10}
        assert override(options, [f"train:{entry}=3"])["train"] == {entry: 3}
        assert merge({"train": {given: 10, "amp": "auto"}}, {"train": {entry: 3}})["train"] == {"amp": "auto", entry: 3}

    def test_later_entries_win(self, options: Options) -> None:
        assert override(options, ["name=b", "name=c"])["name"] == "c"

    @pytest.mark.parametrize("entry", ["train:total_iter", "=5", "total_iter 5", ""])
    def test_an_entry_without_key_or_value_is_named(self, options: Options, entry: str) -> None:
        message = f"--force_yml {entry}: expected block:key=value, e.g. train:total_iter=1000"
        with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
            override(options, [entry])

    def test_an_entry_that_goes_through_a_value_is_named(self, options: Options) -> None:
        with pytest.raises(OptionError, match=r"--force_yml name:x=4: name is a value, not a block"):
            override(options, ["name:x=4"])

    @pytest.mark.parametrize("text", ["[1", "{a: 1, a: 2}", "a: b: c"])
    def test_broken_yaml_is_named_with_its_entry(self, options: Options, text: str) -> None:
        with pytest.raises(OptionError, match=rf"--force_yml name={re.escape(text)}.*: expected plain YAML, but "):
            override(options, [f"name={text}"])

    def test_python_objects_are_refused_and_nothing_runs(self, options: Options, tmp_path: Path) -> None:
        target = tmp_path / "made"
        for entry in (
            f"name=!!python/object/apply:os.mkdir [{target}]",
            f'name=[__import__("os").mkdir("{target}")]',
            f'x"]; __import__("os").mkdir("{target}"); opt["y=1',
        ):
            with pytest.raises(OptionError, match=r"--force_yml|unknown key|name: expected"):
                check(override(copy.deepcopy(options), [entry]), True)
        assert not target.exists()


class TestCheck:
    @pytest.mark.parametrize("is_train", [True, False])
    def test_options_in_order_pass(self, options: Options, is_train: bool) -> None:
        check(options, is_train)

    def test_a_test_needs_neither_train_nor_logger(self, options: Options) -> None:
        del options["train"], options["logger"]
        check(options, is_train=False)
        assert problems(options) == "train: missing; logger: missing"

    @pytest.mark.parametrize("key", ["name", "model_type", "datasets", "network_g", "path"])
    @pytest.mark.parametrize("is_train", [True, False])
    def test_a_missing_key_is_named(self, options: Options, key: str, is_train: bool) -> None:
        del options[key]
        assert problems(options, is_train) == f"{key}: missing"

    # What BasicSR takes in silence: a typo anywhere
    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("trian:total_iter=5", "trian: unknown key; did you mean train?"),
            ("train:totl_iter=5", "train: totl_iter: unknown key; did you mean total_iter or total_epoch?"),
            ("val:val_frq=5", "val: val_frq: unknown key; did you mean val_freq?"),
            ("val:tta:stpes=5", "val: tta: stpes: unknown key; did you mean steps?"),
            ("logger:print_frq=5", "logger: print_frq: unknown key; did you mean print_freq?"),
            (
                "path:pretrained_network_g=x.pth",
                "path: pretrained_network_g: unknown key; did you mean pretrain_network_g or pretrain_network_r?",
            ),
            ("datasets:train:blur_kye=blur", "datasets: train: blur_kye: unknown key; did you mean blur_key?"),
            ("datasets:train:augmnet=flip", "datasets: train: augmnet: unknown key; did you mean augment?"),
            (
                "logger:zzz=1",
                "logger: zzz: unknown key; expected one of keep_checkpoints, "
                "print_freq, save_checkpoint_freq, use_tb_logger, wandb",
            ),
        ],
    )
    def test_an_unknown_key_is_named_with_the_nearest_one(self, options: Options, entry: str, message: str) -> None:
        assert problems(override(options, [entry])) == message

    @pytest.mark.parametrize("section", ["path", "train", "val", "logger"])
    @pytest.mark.parametrize("value", [5, "text", [1]])
    def test_a_section_that_is_no_block_is_named(self, options: Options, section: str, value: object) -> None:
        options[section] = value
        assert problems(options) == f"{section}: expected a block of keys, got {value!r}"

    @pytest.mark.parametrize("is_train", [True, False])
    @pytest.mark.parametrize("value", [5, "text", [1]])
    def test_datasets_that_are_no_block_are_named(self, options: Options, value: object, is_train: bool) -> None:
        options["datasets"] = value
        assert problems(options, is_train).startswith("datasets: expected a block")

    def test_adaptation_that_is_no_block_is_named(self, options: Options) -> None:
        assert problems(override(options, ["val:tta=5"])) == "val: tta: expected a block of keys, got 5"

    @pytest.mark.parametrize("name", ["a/b", 5, "", "a b", "../a", "ä:"])
    def test_a_name_that_is_no_folder_name_is_refused(self, options: Options, name: object) -> None:
        options["name"] = name
        assert problems(options) == f"name: expected letters, digits, _ . + -, got {name!r}"

    @pytest.mark.parametrize("name", [".", ".."])
    def test_a_name_that_leads_out_of_its_folder_is_refused(self, options: Options, name: str) -> None:
        options["name"] = name
        assert problems(options).startswith("name: expected ")

    def test_an_unknown_phase_is_named(self, options: Options) -> None:
        options["datasets"]["valid"] = {"type": "DeblurPairDataset"}
        assert problems(options) == "datasets: valid: unknown key; did you mean val?"

    def test_several_sets_of_a_phase_pass(self, options: Options) -> None:
        for phase in ("val", "val_2", "test_reds", "test"):
            options["datasets"][phase] = {"type": "DeblurPairDataset"}
        check(options, is_train=True)

    @pytest.mark.parametrize("block", [{}, {"dataroot": "x"}])
    def test_a_data_set_without_type_is_named(self, options: Options, block: object) -> None:
        options["datasets"]["val"] = block
        assert problems(options) == "datasets: val: type: missing"

    @pytest.mark.parametrize("block", [None, "text"])
    def test_a_data_set_that_is_no_block_is_named(self, options: Options, block: object) -> None:
        options["datasets"]["val"] = block
        assert problems(options) == f"datasets: val: expected a block of keys, got {block!r}"

    def test_training_needs_a_training_set(self, options: Options) -> None:
        options["datasets"] = {"val": {"type": "DeblurPairDataset"}}
        assert problems(options) == "datasets: train: missing"
        check(options, is_train=False)

    @pytest.mark.parametrize("key", ["pretrain_network_g", "pretrain_network_r", "resume_state"])
    def test_a_missing_file_is_named(self, options: Options, tmp_path: Path, key: str) -> None:
        options["path"][key] = f"{tmp_path}/none.pth"
        assert problems(options) == f"path: {key}: no such file {tmp_path}/none.pth"
        options["path"][key] = str(tmp_path)
        assert problems(options) == f"path: {key}: no such file {tmp_path}"

    def test_files_may_lie_in_the_home_folder_or_be_left_out(
        self, options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "net.pth").touch()
        options["path"] = {"pretrain_network_g": "~/net.pth"}
        check(options, is_train=True)

    @pytest.mark.parametrize("section", ["path", "datasets"])
    def test_a_key_that_is_a_number_is_named(self, options: Options, section: str) -> None:
        options[section][1] = "x"
        assert problems(options).startswith(f"{section}: 1: unknown key")

    @pytest.mark.parametrize(
        ("entry", "key"),
        [
            ("train:total_iter", "train: total_iter"),
            ("logger:print_freq", "logger: print_freq"),
            ("logger:save_checkpoint_freq", "logger: save_checkpoint_freq"),
            ("datasets:train:batch_size_per_gpu", "datasets: train: batch_size_per_gpu"),
            ("val:val_freq", "val: val_freq"),
        ],
    )
    @pytest.mark.parametrize(("text", "value"), [("0", 0), ("-5", -5), ("1e5", 1e5), ("true", True), ("ten", "ten")])
    def test_a_count_that_is_no_whole_number_above_zero_is_named(
        self, options: Options, entry: str, key: str, text: str, value: object
    ) -> None:
        assert problems(override(options, [f"{entry}={text}"])) == f"{key}: expected a whole number > 0, got {value!r}"

    def test_two_lengths_in_one_file_contradict_each_other(self, options: Options) -> None:
        options["train"]["total_epoch"] = 3
        message = "train: expected one of total_iter and total_epoch, got total_iter and total_epoch"
        assert problems(options) == message

    def test_the_length_given_last_holds(self, options: Options) -> None:
        assert "total_iter" not in override(options, ["train:total_epoch=3"])["train"]
        assert reader.merge({"total_epoch": 3}, {"total_iter": 5}) == {"total_iter": 5}

    def test_without_validation_no_frequency_is_asked_for(self, options: Options) -> None:
        del options["val"]
        check(options, is_train=True)

    def test_a_test_asks_for_no_counts(self, options: Options) -> None:
        check(override(options, ["train:total_iter=0", "val:val_freq=0"]), is_train=False)

    @pytest.mark.parametrize(
        ("entry", "start"), [("num_gpu=two", "num_gpu: expected "), ("manual_seed=x", "manual_seed: expected ")]
    )
    def test_numbers_of_gpus_and_seeds_are_checked(self, options: Options, entry: str, start: str) -> None:
        assert problems(override(options, [entry])).startswith(start)

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

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            (
                "train:scheduler={type: MultiStepLR, milestones: [10, 50%, 11]}",
                "train: scheduler: milestones: 11 lies beyond total_iter 10; lower it",
            ),
            (
                "train:scheduler_r={type: MultiStepLR, milestones: [half]}",
                "train: scheduler_r: milestones: 0: expected an iteration or a percentage such as 50%, got 'half'",
            ),
            ("train:accumulate=3", "train: accumulate: expected a divisor of batch_size_per_gpu 2, got 3"),
            ("train:amp=fp61", "train: amp: expected one of bf16, fp16, auto, got 'fp61'"),
            ("train:optim_g={type: Adam}", "train: optim_g: lr: missing"),
            ("train:optim_g={type: Adam, lr: fast}", "train: optim_g: lr: expected a number > 0, got 'fast'"),
            (
                "train:reblur_opt:sharp_weight=[[400, 0.0], [500]]",
                "train: reblur_opt: sharp_weight: expected a number >= 0 or a list of [iteration, weight], "
                "got [[400, 0.0], [500]]",
            ),
            ("val:best=pnsr", "val: best: expected a name under val: metrics; did you mean psnr?"),
            (
                "val:metrics:mine={type: my_metric}",
                "val: metrics: mine: better: missing; say higher or lower, so that the best result is known",
            ),
            ("val:metrics:psnr:better=up", "val: metrics: psnr: better: expected higher or lower, got 'up'"),
            (
                "datasets:train:layout=GoPro",
                "datasets: train: layout: expected one of gopro, reds, folders, photographs, got 'GoPro'",
            ),
        ],
    )
    def test_values_that_make_no_sense_are_named(self, options: Options, entry: str, message: str) -> None:
        assert problems(override(options, [entry])) == message

    @pytest.mark.parametrize(
        ("lengths", "got"), [({"total_iter": 10, "total_epoch": 3}, "total_iter and total_epoch"), ({}, "none")]
    )
    def test_a_training_has_one_length(self, options: Options, lengths: Options, got: str) -> None:
        options["train"] = lengths
        assert problems(options) == f"train: expected one of total_iter and total_epoch, got {got}"

    def test_two_data_sets_of_one_name_are_named(self, options: Options) -> None:
        for phase in ("val", "test"):
            options["datasets"][phase] = {"type": "DeblurPairDataset", "name": "gopro"}
        assert problems(options) == (
            "datasets: two sets are named 'gopro'; give each its own name, they share a folder of results"
        )

    @pytest.mark.parametrize(
        "entry",
        [
            "model_type=[a]",
            "val:metrics=[psnr, ssim]",
            "val:metrics:psnr:type=[a]",
            "val:best=[psnr]",
            "datasets:train:type=[a]",
        ],
    )
    def test_a_list_in_the_place_of_a_name_is_named(self, options: Options, entry: str) -> None:
        where = entry.partition("=")[0].replace(":", ": ")
        assert problems(override(options, [entry])).startswith(f"{where}: expected ")

    @pytest.mark.parametrize("entry", ["val=", "val:tta=", "network_r=", "train:scheduler=", "val:metrics="])
    def test_a_block_of_the_base_can_be_taken_back_by_nothing(self, options: Options, entry: str) -> None:
        check(override(options, [entry]), is_train=True)

    def test_checking_changes_nothing(self, options: Options) -> None:
        before = copy.deepcopy(options)
        check(options, is_train=True)
        assert options == before


class TestInIterations:
    # 103 images in batches of 8: 12 iterations an epoch, 7 images wait for the next; 22.5 rounds to 22
    @pytest.mark.parametrize(
        ("processes", "total", "milestones"), [(1, 120, [60, 90, 20]), (2, 60, [30, 45, 20]), (4, 30, [15, 22, 20])]
    )
    def test_epochs_and_percentages_become_iterations(
        self, options: Options, processes: int, total: int, milestones: list[int]
    ) -> None:
        del options["train"]["total_iter"]
        options["train"] |= {"total_epoch": 10, "scheduler": {"type": "MultiStepLR", "milestones": ["50%", "75%", 20]}}
        options["datasets"]["train"]["batch_size_per_gpu"] = 8
        before = copy.deepcopy(options)
        found = in_iterations(options, 103, processes)
        assert found["train"] == {"total_iter": total, "scheduler": {"type": "MultiStepLR", "milestones": milestones}}
        assert {**found, "train": None} == {**before, "train": None}
        assert options == before

    def test_iterations_stay_as_they_are(self, options: Options) -> None:
        assert in_iterations(options, 5, 1) == options

    def test_fewer_images_than_a_batch_are_refused(self, options: Options) -> None:
        with pytest.raises(
            OptionError,
            match=r"^datasets: train: batch_size_per_gpu: expected at most the 3 images there are, got 4 over 2 ",
        ):
            in_iterations(options, 3, 2)


class TestSuggest:
    def test_one_or_two_near_names_are_suggested(self) -> None:
        assert suggest("SNR", ["SRN", "DHN", "ResUNet"]) == "; did you mean SRN?"
        assert suggest("optim", ["optim_r", "optim_g", "amp"]) == "; did you mean optim_r or optim_g?"

    def test_else_all_names_are_listed_in_order(self) -> None:
        assert suggest("zzz", {"b", "c", "a"}) == "; expected one of a, b, c"


def test_the_loader_knows_no_python_objects() -> None:
    assert not [tag for tag in reader._Loader.yaml_constructors if tag and "python" in tag]
    assert not [tag for tag in reader._Loader.yaml_multi_constructors if tag and "python" in tag]
