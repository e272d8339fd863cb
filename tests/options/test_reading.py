"""Option files: what YAML may say, how files build on each other, and that every problem is named."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin.options import checks, reading
from reblur_plugin.options.reading import OptionError, Options, in_iterations, merge, override, read, suggest, write

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def make(text: str, name: str = "a.yml") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


@pytest.fixture
def options(minimal_options: Options) -> Options:
    return minimal_options


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
            try:
                found = "; ".join(checks.problems(override(copy.deepcopy(options), [entry]), is_train=True))
            except OptionError as error:
                found = str(error)
            assert re.search(r"--force_yml|unknown key|name: expected", found)
        assert not target.exists()


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
    assert not [tag for tag in reading._Loader.yaml_constructors if tag and "python" in tag]
    assert not [tag for tag in reading._Loader.yaml_multi_constructors if tag and "python" in tag]
