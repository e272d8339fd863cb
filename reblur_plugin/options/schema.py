"""What an option file may hold, as a JSON Schema made of `options.keys`: for `checks.problems`, and for editors."""

from __future__ import annotations

from typing import Any

from reblur_plugin.options.keys import DATASET, FILE_KEYS, LOGGER, METRIC, PATH, TRAIN, VAL
from reblur_plugin.options.values import COMPONENT, TEXT, Schema, block, entry, key

_FILES = {"anyOf": [TEXT, {"type": "array", "items": TEXT}], "title": "a file or a list of files"}
_BASE = key(_FILES, "Files that this one is laid over, block by block; a later one is laid over an earlier one.")
_NEEDED = ("name", "model_type", "datasets", "network_g", "path")
_SET = {
    "type": "object",
    "title": "a block of keys",
    "required": ["type"],
    "properties": {"type": entry("string", "a registered data set such as DeblurPairDataset")},
    "if": {"properties": {"type": {"const": "DeblurPairDataset"}}, "required": ["type"]},
    "then": block(DATASET, ("type",)),
}
_SETS = {
    "type": "object",
    "title": "a block of data sets",
    "patternProperties": {"^(train|(val|test)(_[A-Za-z0-9_.+-]*)?)$(?!\\n)": _SET},
    "additionalProperties": False,
}
_OTHERS_METRICS = {"additionalProperties": {"properties": {"better": METRIC["better"]}}}
_OTHERS_VAL = COMPONENT | {"properties": {"type": TEXT, "metrics": _OTHERS_METRICS}}


def training(own_model: bool = True) -> Schema:
    """Return the schema of complete training options; `own_model` False leaves `train` to the user's model class."""
    return _whole(
        (*_NEEDED, "train", "logger"),
        train=block(TRAIN) if own_model else COMPONENT,
        val=block(VAL, ("val_freq",)) if own_model else _OTHERS_VAL,
        logger=block(LOGGER, ("print_freq", "save_checkpoint_freq")),
    )


def test(own_model: bool = True) -> Schema:
    """Return the schema of complete test options; `train` and `logger` aren't looked into."""
    return _whole(
        _NEEDED,
        train=COMPONENT,
        val=block({**VAL, "val_freq": {}}) if own_model else _OTHERS_VAL,
        logger=COMPONENT,
    )


def for_editors() -> Schema:
    """Return the schema of one file, which may leave to its `_base_` whatever it likes and take keys of it back."""
    whole = _whole((), train=block(TRAIN), val=block(VAL), logger=block(LOGGER))
    part = _of_a_part({**whole, "properties": {"_base_": _BASE, **whole["properties"]}})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **part, "title": "reblur_plugin options"}


def _whole(required: tuple[str, ...], train: Schema, val: Schema, logger: Schema) -> Schema:
    blocks = {
        "datasets": key(_SETS, "`train`, and any number of `val`, `val_...`, `test`, `test_...`."),
        "path": key(block(PATH), "Where checkpoints are; a training from scratch writes `{}`."),
        "train": key(train, "How networks are trained."),
        "val": key(val, "How networks are validated and tested."),
        "logger": key(logger, "What a training writes, and when."),
    }
    return block({**FILE_KEYS, **blocks}, required)


def _of_a_part(schema: Any) -> Any:
    """Ask for no key anywhere and let each be null, but keep the conditions of "if"."""
    if isinstance(schema, list):
        return [_of_a_part(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    part = {key: value if key == "if" else _of_a_part(value) for key, value in schema.items() if key != "required"}
    for place in ("properties", "patternProperties"):
        if place in part:
            part[place] = {key: _or_null(value) for key, value in part[place].items()}
    return part


def _or_null(value: Schema) -> Schema:
    if "enum" in value:
        return value | {"enum": [*value["enum"], None]}
    if isinstance(value.get("type"), str):
        return value | {"type": [value["type"], "null"]}
    return value | {"anyOf": [*value["anyOf"], {"type": "null"}]} if "anyOf" in value else value
