"""What an option file may hold, as a JSON Schema: for `checks.check`, and for editors (docs/options.schema.json).

Every entry has a `title` in words, which stands in the message "KEY: expected TITLE, got VALUE". Blocks that belong to
somebody's registered class (networks, losses, metrics, other data sets and models) are open here; the class's own
signature checks them (`options.components`).

    python -m reblur_plugin.schema > docs/options.schema.json
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_PERCENT = {"type": "string", "pattern": r"^\d+(\.\d+)?%$", "title": "a percentage such as 50%"}


def _entry(kind: str | list[str], title: str, **rules: Any) -> Schema:
    return {"type": kind, "title": title, **rules}


def _choice(*values: Any) -> Schema:
    return {"enum": list(values), "title": f"one of {', '.join(map(str, values))}"}


def _block(properties: Schema, required: tuple[str, ...] = (), **rules: Any) -> Schema:
    block = {"type": "object", "title": "a block of keys", "properties": properties, "additionalProperties": False}
    return block | ({"required": list(required)} if required else {}) | rules


_COUNT = _entry("integer", "a whole number > 0", minimum=1)
_NATURAL = _entry("integer", "a whole number >= 0", minimum=0)
_POSITIVE = _entry("number", "a number > 0", exclusiveMinimum=0)
_WEIGHT = _entry("number", "a number >= 0", minimum=0)
_FLAG = _entry("boolean", "true or false")
_TEXT = _entry("string", "text")
_FILE = _entry("string", "a file's path")
_NAME = _entry("string", "letters, digits, _ . + -", pattern=r"^(?!\.+$)[A-Za-z0-9_.+-]+$")
_COMPONENT = _entry("object", "a block of keys", properties={"type": _TEXT})  # of a registered class: open
_LOSS = _COMPONENT | {"properties": {"type": _TEXT, "loss_weight": _WEIGHT}}
_METRIC = _COMPONENT | {"properties": {"type": _TEXT, "crop_border": _NATURAL}}
_SEQUENCES = _entry(
    "array", "a list of sequences", items=_entry("string", "the name of a sequence, in quotes if it is a number")
)
_ALL_OR = {"type": ["string", "array"], "pattern": "^all$"}
_NETWORKS = ("g", "r", "d")

_DATASET = {
    "type": "object",
    "title": "a block of keys",
    "required": ["type"],
    "properties": {"type": _entry("string", "a registered data set such as DeblurPairDataset")},
    "if": {"properties": {"type": {"const": "DeblurPairDataset"}}, "required": ["type"]},
    "then": _block(
        {
            "type": _TEXT,
            "name": _NAME,
            "layout": _choice("gopro", "reds", "hide", "realblur", "folders", "photographs", "packed"),
            "dataroot": _TEXT,
            "dataroot_lq": _TEXT,
            "dataroot_gt": _TEXT,
            "blur_key": _TEXT,
            "meta_info_file": _TEXT,  # RealBlur's list
            "only": _SEQUENCES,
            "without": _SEQUENCES,
            "augment": _choice("nah", "flip", "none"),
            "cache": _FLAG,
            "gt_size": _COUNT,
            "seed": _NATURAL,
            "batch_size_per_gpu": _COUNT,
            "num_worker_per_gpu": _NATURAL,
            "pin_memory": _FLAG,
            "prefetch_mode": _choice("cpu", "cuda"),  # read by BasicSR's own pipeline
            "dataset_enlarge_ratio": _COUNT,  # likewise
        }
    ),
}
_OPTIMIZER = _entry("object", "an optimiser such as {type: Adam, lr: 1e-4}", required=["lr"])
_OPTIMIZER |= {"properties": {"type": _TEXT, "lr": _POSITIVE}}
_SCHEDULER = _block(
    {
        "type": _choice("MultiStepLR"),
        "milestones": {
            "type": "array",
            "items": {"anyOf": [_COUNT, _PERCENT], "title": "an iteration or a percentage such as 50%"},
            "title": "a list of iterations or percentages",
        },
        "gamma": _POSITIVE,
    }
)
_KNOT = {"type": "array", "prefixItems": [_NATURAL, _WEIGHT], "minItems": 2, "maxItems": 2}
_SHARP_WEIGHT = {
    "anyOf": [_WEIGHT, {"type": "array", "minItems": 1, "items": _KNOT}],
    "title": "a number >= 0 or a list of [iteration, weight]",
}
_SIZE = {
    "type": ["integer", "string", "null"],
    "minimum": 1,
    "pattern": r"^(?=.*[1-9])\d+\.?\d* ?[KMGTkmgt]?([iI]?[Bb])?$",
    "title": "bytes > 0 or a size such as 4G",
}
_TRAIN: Schema = {
    "total_iter": _COUNT,
    "total_epoch": _COUNT,
    "warmup_iter": _entry("integer", "a whole number, -1 for none", minimum=-1),
    "ema_decay": _entry("number", "a number from 0 to below 1", minimum=0, exclusiveMaximum=1),
    "amp": _choice("bf16", "fp16", "auto"),
    "channels_last": _FLAG,
    "compile": _FLAG,
    "accumulate": _COUNT,
    "grad_clip": _WEIGHT,
    "freeze_deblur_net": _FLAG,
    "pixel_opt": _LOSS,
    "perceptual_opt": _COMPONENT,
    "gan_opt": _LOSS,
    "reblur_opt": _block(
        {
            "loss_weight": _WEIGHT,
            "sharp_reference": _choice("pseudo", "real", "none"),
            "sharp_weight": _SHARP_WEIGHT,
            "order": _choice("reblur_first", "deblur_first", "simultaneous"),
        }
    ),
    "scheduler": _SCHEDULER,
}
_TRAIN |= {f"optim_{label}": _OPTIMIZER for label in _NETWORKS}
_TRAIN |= {f"scheduler_{label}": _SCHEDULER for label in _NETWORKS}
_VAL = {
    "val_freq": _COUNT,
    "save_img": _FLAG,
    "suffix": _NAME,
    "pbar": _FLAG,
    "metrics": _entry("object", "a block of metrics", additionalProperties=_METRIC),
    "best": _entry("string", "the name of a metric"),
    "input_metrics": _FLAG,
    "reblurred": _FLAG,
    "comparison": _FLAG,
    "batch_size": _COUNT,
    "adapted_steps": {"type": "array", "items": _NATURAL, "title": "a list of steps such as [0, 1, 3, 5]"},
    "tta": _block(
        {
            "steps": _NATURAL,
            "lr": _POSITIVE,
            "optimizer": _choice("adam", "sgd"),
            "target": _choice("current", "initial"),
            "histogram": _choice("skimage", "torch", "none"),
            "parameters": _ALL_OR | {"items": _TEXT, "title": "all or a list of names of weights"},
            "max_change": _POSITIVE | {"type": ["number", "null"]},
            "amp": _choice("none", "bf16", "auto"),
            "channels_last": _FLAG,
            "fused": _FLAG,
            "max_memory": _SIZE,
        }
    ),
}
_LOGGER = {
    "print_freq": _COUNT,
    "save_checkpoint_freq": _COUNT,
    "keep_checkpoints": _COUNT,
    "use_tb_logger": _FLAG,
    "wandb": _entry("object", "a block of keys"),
}
_PATH = {"resume_state": _FILE, "ignore_resume_networks": _TEXT}
_PATH |= {f"pretrain_network_{label}": _FILE for label in _NETWORKS}
_PATH |= {f"param_key_{label}": _TEXT for label in _NETWORKS} | {f"strict_load_{label}": _FLAG for label in _NETWORKS}


def training(own_model: bool = True) -> Schema:
    """Return the schema of complete training options; `own_model` False leaves `train` to somebody's model class."""
    return _whole(
        ("name", "model_type", "datasets", "network_g", "path", "train", "logger"),
        train=_block(_TRAIN) if own_model else _COMPONENT,
        val=_block(_VAL, ("val_freq",)) if own_model else _COMPONENT,
        logger=_block(_LOGGER, ("print_freq", "save_checkpoint_freq")),
    )


def test(own_model: bool = True) -> Schema:
    """Return the schema of complete test options; `train` and `logger` aren't looked into."""
    tolerant = {**_VAL, "val_freq": {}}
    return _whole(
        ("name", "model_type", "datasets", "network_g", "path"),
        train=_COMPONENT,
        val=_block(tolerant) if own_model else _COMPONENT,
        logger=_COMPONENT,
    )


def for_editors() -> Schema:
    """Return the schema of one file, which may leave to its `_base_` whatever it likes and take keys of it back."""
    bases = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}], "title": "a file or a list of files"}
    schema = _whole((), train=_block(_TRAIN), val=_block(_VAL), logger=_block(_LOGGER))
    schema = _of_a_part({**schema, "properties": {"_base_": bases, **schema["properties"]}})
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "reblur_plugin options", **schema}


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


def _whole(required: tuple[str, ...], train: Schema, val: Schema, logger: Schema) -> Schema:
    properties: Schema = {
        "name": _NAME,
        "model_type": _TEXT,
        "scale": _entry("integer", "1", const=1),
        "num_gpu": {"anyOf": [_NATURAL, {"const": "auto"}], "title": "auto or a whole number >= 0"},
        "manual_seed": _NATURAL,
        "find_unused_parameters": _FLAG,
        "dist_params": _COMPONENT,
        "datasets": {
            "type": "object",
            "title": "a block of data sets",
            "patternProperties": {"^(train|(val|test)(_.*)?)$": _DATASET},
            "additionalProperties": False,
        },
        "path": _block(_PATH),
        "train": train,
        "val": val,
        "logger": logger,
    }
    properties |= {"network_g": _COMPONENT, "network_r": _COMPONENT, "network_d": _COMPONENT}
    return _block(properties, required)
