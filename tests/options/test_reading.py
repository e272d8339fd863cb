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
from reblur_plugin.options.reading import (
    OptionError,
    Options,
    complete,
    in_iterations,
    merge,
    metric_options,
    override,
    read,
    write,
)

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path) -> Write:
    def make(text: str, name: str = "a.yml") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


def refusal(text: Path | tuple[Options, str]) -> str:
    """Return the one line with which a file, or options and an entry of --force_yml, are refused."""
    with pytest.raises(OptionError) as caught:
        read(text) if isinstance(text, Path) else override(copy.deepcopy(text[0]), [text[1]])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def options(minimal_options: Options) -> Options:
    return minimal_options


class TestYaml:
    def test_numbers_are_numbers(self, file: Write) -> None:
        expected = {
            "1e-4": 1e-4,
            "-1e-4": -1e-4,
            "+1e2": 100.0,
            "3E6": 3e6,
            ".5e1": 5.0,
            "2.e-1": 0.2,
            "1.0e-4": 1e-4,
            "0.25": 0.25,
            "12": 12,
            "-1": -1,
            "true": True,
            "[1, 2e0]": [1, 2.0],
            "1e-4x": "1e-4x",
            "e5": "e5",
            "'1e-4'": "1e-4",
        }
        found = {text: read(file(f"key: {text}\n"))["key"] for text in expected}
        assert found == expected
        assert {text: type(value) for text, value in found.items()} == {
            text: type(value) for text, value in expected.items()
        }

    def test_special_floats_are_read(self, file: Write) -> None:
        assert read(file("a: .inf\n"))["a"] == math.inf

    def test_a_key_that_stands_twice_is_named_with_its_line(self, file: Write) -> None:
        cases = (("a: 1\nb: 2\na: 3\n", 3, "a"), ("a:\n  b: 1\n  b: 2\n", 3, "b"), ("a: {lr: 1, lr: 2}\n", 1, "lr"))
        for text, line, key in cases:
            expected = f"a.yml, line {line}: expected plain YAML, but the key '{key}' stands twice"
            assert expected in refusal(file(text))

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
        message = refusal(file(f"name: x\nval: {payload.format(target=target)}\n"))
        assert re.search(r"a\.yml, line 2: expected plain YAML, but .*python/", message)
        assert not target.exists()

    def test_broken_yaml_is_named_with_its_line(self, file: Write) -> None:
        lines = {"a: 1\n\tb: 2\n": 2, "a: [1, 2\n": 2, "a: b: c\n": 1, "a: @b\n": 1, "a: 'b\n": 2, "? [a, b]\n: c\n": 1}
        for text, line in lines.items():
            assert f"a.yml, line {line}: expected plain YAML, but " in refusal(file(text)), text

    def test_control_characters_are_refused_in_one_line(self, file: Write) -> None:
        assert "a.yml: expected plain YAML, but unacceptable character" in refusal(file("a: \x01\n"))

    def test_a_file_without_keys_is_named_with_what_it_holds(self, file: Write) -> None:
        kinds = {"": "NoneType", "- 1\n": "list", "text\n": "str", "# only this\n": "NoneType"}
        for text, kind in kinds.items():
            assert f"a.yml: expected keys and values, got {kind}; see options/" in refusal(file(text))

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
        with pytest.raises(
            OptionError, match=r"latin\.yml: expected an option file in UTF-8, got another encoding at byte 6; save"
        ):
            read(tmp_path / "latin.yml")

    @pytest.mark.parametrize(
        ("word", "value"),
        [
            ("0100", 100),  # not 64
            ("5:6", "5:6"),  # not 306
            ("1:30.5", "1:30.5"),
            ("2021-01-01", "2021-01-01"),
            ("0x10", 16),
            ("0o17", 15),
            ("1_000", 1000),
            ("-7", -7),
            ("1e-4", 1e-4),
            (".5", 0.5),
            ("3.", 3.0),
            ("-.inf", float("-inf")),
            ("1.2.3", "1.2.3"),
            ("true", True),
            ("'0100'", "0100"),
        ],
    )
    def test_words_are_what_people_mean(self, tmp_path: Path, word: str, value: object) -> None:
        (tmp_path / "a.yml").write_text(f"a: {word}\n")
        found = read(tmp_path / "a.yml")["a"]
        assert (type(found), found) == (type(value), value)
        write({"a": found}, tmp_path / "b.yml")
        assert read(tmp_path / "b.yml")["a"] == value

    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
    def test_any_editors_unicode_is_read(self, tmp_path: Path, encoding: str) -> None:
        (tmp_path / "a.yml").write_bytes("name: \u00e9\n".encode(encoding))
        assert read(tmp_path / "a.yml") == {"name": "\u00e9"}

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

    def test_a_circle_is_named(self, file: Write) -> None:
        for links in (["a.yml"], ["b.yml", "a.yml"], ["b.yml", "c.yml", "a.yml"]):
            for name, link in zip(["a.yml", *links[:-1]], links, strict=True):
                path = file(f"_base_: {link}\n", name)
            message = refusal(path.with_name("a.yml"))
            assert message.endswith("a.yml: _base_ leads back to this file; remove one link of the circle")

    def test_a_missing_base_is_named(self, file: Write) -> None:
        with pytest.raises(OptionError, match=r"none\.yml: expected an option file, but it can't be read"):
            read(file("_base_: none.yml\n"))

    def test_a_fault_in_a_base_is_named_with_its_file(self, file: Write) -> None:
        file("x: [\n", "base.yml")
        with pytest.raises(OptionError, match=r"base\.yml, line 2: expected plain YAML"):
            read(file("_base_: base.yml\n"))

    def test_a_base_that_is_no_name_is_refused(self, file: Write) -> None:
        for value in ("5", "", "{a: b}", "true"):
            assert "a.yml: _base_: expected " in refusal(file(f"_base_: {value}\nb: 1\n"))


class TestMerge:
    def test_a_block_of_another_type_replaces_the_whole_block(self) -> None:
        base = {"network_g": {"type": "SRN", "upsample": "deconv"}, "a": 1}
        assert merge(base, {"network_g": {"type": "DHN"}}) == {"network_g": {"type": "DHN"}, "a": 1}

    def test_a_block_of_the_same_type_keeps_its_other_keys(self) -> None:
        for changes in ({"b": 2}, {"type": "SRN", "b": 2}):
            assert merge({"x": {"type": "SRN", "a": 1}}, {"x": changes}) == {"x": {"type": "SRN", "a": 1, "b": 2}}

    def test_other_values_replace_what_was_there(self) -> None:
        for old, new in (({"a": 1}, 5), (5, {"a": 1}), ({"a": 1}, None), ([1], [2])):
            assert merge({"x": old}, {"x": new}) == {"x": new}

    def test_neither_side_is_changed(self) -> None:
        base, changes = {"x": {"a": {"b": 1}}}, {"x": {"a": {"c": 2}}}
        before = copy.deepcopy((base, changes))
        merge(base, changes)
        assert (base, changes) == before


class TestOverride:
    def test_values_are_plain_yaml(self, options: Options) -> None:
        expected: dict[str, object] = {
            "train:total_iter=1000": 1000,
            "train:optim_g:lr=1e-4": 1e-4,
            "train:warmup_iter=-1": -1,
            "train:scheduler:milestones=[1, 2]": [1, 2],
            "train:channels_last=true": True,
            "network_g={type: DHN}": {"type": "DHN"},
            "path:pretrain_network_g=a=b.pth": "a=b.pth",
            "datasets:train:dataroot=/data/x y": "/data/x y",
            "name='7'": "7",
        }
        for entry, value in expected.items():
            found: Any = override(copy.deepcopy(options), [entry])
            for key in entry.partition("=")[0].split(":"):
                found = found[key]
            assert (found, type(found)) == (value, type(value)), entry

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

    def test_one_length_of_a_training_takes_the_others_place(self, options: Options) -> None:
        for given, entry in (("total_iter", "total_epoch"), ("total_epoch", "total_iter")):
            options["train"] = {given: 10}
            assert override(copy.deepcopy(options), [f"train:{entry}=3"])["train"] == {entry: 3}
            merged = merge({"train": {given: 10, "amp": "auto"}}, {"train": {entry: 3}})
            assert merged["train"] == {"amp": "auto", entry: 3}

    def test_later_entries_win(self, options: Options) -> None:
        assert override(options, ["name=b", "name=c"])["name"] == "c"

    def test_an_entry_without_key_or_value_is_named(self, options: Options) -> None:
        for entry in ("train:total_iter", "=5", "total_iter 5", ""):
            message = f"--force_yml {entry}: expected block:key=value, e.g. train:total_iter=1000"
            assert refusal((options, entry)) == message

    def test_an_entry_that_goes_through_a_value_is_named(self, options: Options) -> None:
        assert refusal((options, "name:x=4")) == "--force_yml name:x=4: name is a value, not a block"

    def test_broken_yaml_is_named_with_its_entry(self, options: Options) -> None:
        for text in ("[1", "{a: 1, a: 2}", "a: b: c"):
            pattern = rf"--force_yml name={re.escape(text)}.*: expected plain YAML, but "
            assert re.match(pattern, refusal((options, f"name={text}")))

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
    def test_epochs_and_percentages_become_iterations(self, options: Options) -> None:
        del options["train"]["total_iter"]
        options["train"] |= {"total_epoch": 10, "scheduler": {"type": "MultiStepLR", "milestones": ["50%", "75%", 20]}}
        options["datasets"]["train"]["batch_size_per_gpu"] = 8
        before = copy.deepcopy(options)
        for processes, total, milestones in ((1, 120, [60, 90, 20]), (2, 60, [30, 45, 20]), (4, 30, [15, 22, 20])):
            found = in_iterations(options, 103, processes)
            scheduler = {"type": "MultiStepLR", "milestones": milestones}
            assert found["train"] == {"total_iter": total, "scheduler": scheduler}
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


class TestDirections:
    def test_known_metrics_have_theirs_and_the_options_stay(self) -> None:
        val = {"metrics": {"a": {"type": "reblur_niqe"}, "b": {"better": "lower", "type": "x"}, "c": {"type": "x"}}}
        found = metric_options({"val": val})
        assert {name: options["better"] for name, options in found.items()} == {
            "a": "lower",
            "b": "lower",
            "c": "higher",
        }
        assert val["metrics"]["a"] == {"type": "reblur_niqe"}
        assert list(found["b"]) == ["better", "type"]

    def test_stored_options_have_them(self) -> None:
        metrics = {"n": {"type": "reblur_niqe", "crop_border": 4}}
        stored = complete({"datasets": {}, "val": {"metrics": metrics, "val_freq": 5}})["val"]
        assert stored["metrics"] == {"n": {"type": "reblur_niqe", "crop_border": 4, "better": "lower"}}
        assert metrics == {"n": {"type": "reblur_niqe", "crop_border": 4}}
        for without in ({}, {"val": {}}, {"val": {"val_freq": 5}}):
            assert "metrics" not in complete({"datasets": {}, **without}).get("val", {})


def test_the_loader_knows_no_python_objects() -> None:
    assert not [tag for tag in reading._Loader.yaml_constructors if tag and "python" in tag]
    assert not [tag for tag in reading._Loader.yaml_multi_constructors if tag and "python" in tag]
