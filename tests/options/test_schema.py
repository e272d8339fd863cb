"""One declaration of each key: the check, the schema for editors, the page and the defaults of those who read it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from reblur_plugin.core import choices
from reblur_plugin.core.choices import AdaptError, bytes_of
from reblur_plugin.data.augment import AUGMENTATIONS
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.pairs import DatasetError
from reblur_plugin.options import keys, page, reading, schema

BLOCKS = [keys.FILE_KEYS, keys.DATASET, keys.PATH, keys.TRAIN, keys.REBLUR, keys.OPTIMIZER, keys.SCHEDULER]
BLOCKS += [keys.VAL, keys.METRIC, keys.TTA, keys.LOGGER]


def test_the_files_in_docs_are_what_is_generated(root: Path) -> None:
    assert json.loads((root / "docs" / "options.schema.json").read_text()) == schema.for_editors()
    assert (root / "docs" / "options.md").read_text(encoding="utf-8") == page.markdown()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.for_editors())
    for own_model in (True, False):
        jsonschema.Draft202012Validator.check_schema(schema.training(own_model))
        jsonschema.Draft202012Validator.check_schema(schema.test(own_model))


def test_every_option_file_and_fragment_passes_by_itself(root: Path) -> None:
    validator, failures = jsonschema.Draft202012Validator(schema.for_editors()), []
    for path in sorted((root / "options").rglob("*.yml")):
        content = reading.parse(path.read_text(encoding="utf-8"), str(path))
        failures += [f"{path.name}: {error.message}" for error in validator.iter_errors(content)]
    assert failures == []


def test_a_typo_shows_in_an_editor() -> None:
    with pytest.raises(jsonschema.ValidationError, match="totl_iter"):
        jsonschema.validate({"train": {"totl_iter": 5}}, schema.for_editors())


def test_a_size_is_one_for_the_schema_as_for_adaptation() -> None:
    def is_size(word: str) -> bool:
        try:
            bytes_of(word)
        except AdaptError:
            return False
        return True

    words = ["4G", "800M", "2.5 GiB", "7", "1kb", "4GIB", "4Gi", "0G", "0.0", "four", "", "4 G B", "-1"]
    assert not is_size("9" * 400)  # more than a float holds
    validator = jsonschema.Draft202012Validator(schema.for_editors())
    found = {word: validator.is_valid({"val": {"tta": {"max_memory": word}}}) for word in words}
    assert found == {word: is_size(word) for word in words}


class TestKeys:
    def test_each_has_a_sentence_and_a_default_that_it_may_have(self) -> None:
        failures = []
        for name, rules in ((name, rules) for block in BLOCKS for name, rules in block.items()):
            if not re.fullmatch(r".{10,}\.", rules["description"]):
                failures.append(f"{name}: {rules['description']!r}")
            if not jsonschema.Draft202012Validator(rules).is_valid(rules.get("default", 1)) and "default" in rules:
                failures.append(f"{name}: {rules['default']!r}")
        assert failures == []

    def test_decisions_that_they_name_exist(self, root: Path) -> None:
        decisions = re.findall(r"^\*\*(D\d+) ", (root / "docs" / "decisions.md").read_text(encoding="utf-8"), re.M)
        named = {name for block in BLOCKS for rules in block.values() for name in re.findall(r"\bD\d+", str(rules))}
        assert len(named) > 10
        assert named <= set(decisions)

    def test_every_choice_of_adaptation_is_a_key_with_the_papers_default(self) -> None:
        by_hand = {"steps": 5, "lr": 3e-6, "optimizer": "adam", "target": "current", "histogram": "skimage"}
        by_hand |= {"parameters": "all", "max_change": 0.1, "amp": "none", "channels_last": False, "fused": False}
        assert keys.defaults(keys.TTA) == {**by_hand, "max_memory": None}
        assert set(choices.AdaptConfig.__dataclass_fields__) == {*keys.TTA, "keep"}  # val: adapted_steps says it

    def test_layouts_and_augmentations_are_those_that_there_are(self) -> None:
        assert keys.DATASET["augment"]["enum"] == list(AUGMENTATIONS)
        with pytest.raises(DatasetError) as caught:
            list_pairs({"layout": "x"})
        assert str(caught.value) == f"layout: expected {keys.DATASET['layout']['title']}, got 'x'"

    def test_a_block_is_laid_over_the_defaults(self) -> None:
        assert keys.defaults(keys.REBLUR) | {"order": "deblur_first"} == {
            "loss_weight": 1.0,
            "sharp_reference": "pseudo",
            "sharp_weight": 1.0,
            "order": "deblur_first",
        }
        assert keys.defaults(keys.VAL, "batch_size", "best") == {"batch_size": 1}

    def test_who_reads_a_key_takes_the_default_that_is_declared(self, root: Path) -> None:
        declared: dict[str, list[Any]] = {}
        for block in BLOCKS:
            for name, default in keys.defaults(block).items():
                declared.setdefault(name, []).append(default)
        del declared["type"]  # each block has its own
        passed_over = ("doctor.py", "blur_key")  # names the blur of a data set without images
        failures = [
            f"{path.name}: {name}: {default!r}"
            for path in sorted((root / "reblur_plugin").rglob("*.py"))
            for name, default in _defaults_taken(path.read_text(encoding="utf-8"))
            if default not in declared.get(name, [default]) and (path.name, name) != passed_over
        ]
        assert failures == []

    def test_such_defaults_are_found(self) -> None:
        text = 'a.get("x", 1) + f(b["c"].get("y", ())) + a.get("z") + a.get("w", d)'
        assert sorted(_defaults_taken(text)) == [("x", 1), ("y", [])]


def _defaults_taken(text: str) -> Iterator[tuple[str, Any]]:
    """Yield key and default of each `block.get("key", default)` with a plain default."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), default]):
                try:
                    value = ast.literal_eval(default)
                except ValueError:
                    continue
                yield name, list(value) if isinstance(value, tuple) else value
