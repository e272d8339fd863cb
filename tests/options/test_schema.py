"""The schema for editors is the one that the options are checked by."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from reblur_plugin.core.choices import AdaptError, bytes_of
from reblur_plugin.options import reading, schema

_FILES = sorted((Path(__file__).resolve().parents[2] / "options").rglob("*.yml"))


def test_the_file_in_docs_is_up_to_date(root: Path) -> None:
    assert json.loads((root / "docs" / "options.schema.json").read_text()) == schema.for_editors()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.for_editors())
    for own_model in (True, False):
        jsonschema.Draft202012Validator.check_schema(schema.training(own_model))
        jsonschema.Draft202012Validator.check_schema(schema.test(own_model))


@pytest.mark.parametrize("path", _FILES, ids=[path.stem for path in _FILES])
def test_every_option_file_and_fragment_passes_by_itself(path: Path) -> None:
    content = reading._parse(path.read_text(encoding="utf-8"), str(path))
    jsonschema.validate(content, schema.for_editors())


def test_a_typo_shows_in_an_editor() -> None:
    with pytest.raises(jsonschema.ValidationError, match="totl_iter"):
        jsonschema.validate({"train": {"totl_iter": 5}}, schema.for_editors())


@pytest.mark.parametrize(
    "word", ["4G", "800M", "2.5 GiB", "7", "1kb", "4GIB", "4Gi", "0G", "0.0", "four", "", "4 G B", "-1"]
)
def test_a_size_is_one_for_the_schema_as_for_adaptation(word: str) -> None:
    try:
        bytes_of(word)
        is_size = True
    except AdaptError:
        is_size = False
    block = {"val": {"tta": {"max_memory": word}}}
    assert jsonschema.Draft202012Validator(schema.for_editors()).is_valid(block) is is_size
