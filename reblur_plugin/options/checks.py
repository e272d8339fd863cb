"""All that is wrong with an option file, as far as it can be found without loading torch or data."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

from reblur_plugin.core.choices import AdaptConfig
from reblur_plugin.errors import did_you_mean
from reblur_plugin.files import at_home
from reblur_plugin.names import problem
from reblur_plugin.options import schema
from reblur_plugin.options.keys import KNOWN_BETTER, TRAIN
from reblur_plugin.options.reading import Options, beyond_the_end

_BEYOND_FLOATS = 1 << 1023  # whole numbers from here on are no numbers for a computation
_PHASES = ("train", "val", "val_...", "test", "test_...")


def problems(options: Options, is_train: bool) -> list[str]:
    """Return a sentence for each problem that can be found without loading torch or data."""
    if is_train and _is_of_a_test(options):
        return ["train, datasets: train: missing: these are options of a test; python -m reblur_plugin.test -opt FILE"]
    own_model = options.get("model_type") in (None, "ReblurModel")
    found = _against_schema(options, schema.training(own_model) if is_train else schema.test(own_model))
    found += [
        said
        for said in _check_names(options)
        if not any(known.startswith(said.split("expected ")[0]) for known in found)
    ]
    found += _check_files(options)
    if is_train:
        found += _check_training(options, own_model)
    return found + _check_validation(options)


def _is_of_a_test(options: Options) -> bool:
    datasets = options.get("datasets")
    return isinstance(datasets, dict) and bool(datasets) and "train" not in datasets and "train" not in options


def _against_schema(options: Options, rules: dict[str, Any]) -> list[str]:
    validator = _validator()(rules)
    options = _with_text_keys(options)
    found: dict[str, None] = {}  # in order, each once
    for error in sorted(validator.iter_errors(options), key=lambda error: list(map(str, error.absolute_path))):
        where = ": ".join(map(str, error.absolute_path))
        prefix = f"{where}: " if where else ""
        if error.validator == "required":
            found |= {f"{prefix}{key}: missing": None for key in error.validator_value if key not in error.instance}
        elif error.validator == "additionalProperties":
            known = error.schema.get("properties") or _PHASES
            patterns = error.schema.get("patternProperties", {})
            for key in error.instance:
                if key not in known and not any(re.search(pattern, str(key)) for pattern in patterns):
                    found[f"{prefix}{key}: unknown key{did_you_mean(key, known)}"] = None
        elif error.validator == "maximum" and error.schema.get("type") == "integer":
            found[f"{prefix}expected at most {error.validator_value}, got {error.instance!r}"] = None
        else:
            found[f"{prefix}expected {error.schema.get('title', error.message)}, got {error.instance!r}"] = None
    return list(found)


def _with_text_keys(value: Any) -> Any:
    """Return `value` with keys such as 1 as text: a JSON Schema knows no others."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list) else value


@cache
def _validator() -> Any:
    import jsonschema  # only where options are checked: --help needs none

    def is_integer(_: Any, value: Any) -> bool:
        return is_number(_, value) and isinstance(value, int)  # 1e5 is a number, not a count

    def is_number(_: Any, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (isinstance(value, float) and math.isfinite(value)) or abs(value) < _BEYOND_FLOATS

    base = jsonschema.Draft202012Validator
    checker = base.TYPE_CHECKER.redefine("integer", is_integer).redefine("number", is_number)
    return jsonschema.validators.extend(base, type_checker=checker)


def _check_names(options: Options) -> list[str]:
    """Return what is wrong with names that become files and folders."""
    datasets = options.get("datasets")
    names = {"name": options.get("name")}
    for key, block in datasets.items() if isinstance(datasets, dict) else ():
        names[f"datasets: {key}"] = key
        names[f"datasets: {key}: name"] = block.get("name") if isinstance(block, dict) else None
    val = options.get("val")
    names["val: suffix"] = val.get("suffix") if isinstance(val, dict) else None
    return [
        f"{where}: expected a name for files, got {name!r}: {why}"
        for where, name in names.items()
        if isinstance(name, str) and (why := problem(name))
    ]


def _check_files(options: Options) -> list[str]:
    path = options.get("path")
    if not isinstance(path, dict):
        return []
    return [
        f"path: {key}: no such file {value}"
        for key, value in path.items()
        if (str(key).startswith("pretrain_network") or key == "resume_state") and value
        if not at_home(str(value)).is_file()
    ]


def _check_training(options: Options, own_model: bool) -> list[str]:
    """Return what no single key shows: numbers that contradict each other."""
    train, datasets = options.get("train"), options.get("datasets")
    if not isinstance(train, dict) or not isinstance(datasets, dict):
        return []
    if "train" not in datasets:
        return ["datasets: train: missing"]
    found = []
    lengths = [key for key in ("total_iter", "total_epoch") if key in train]
    if own_model and len(lengths) != 1:
        found.append(f"train: expected one of total_iter and total_epoch, got {' and '.join(lengths) or 'none'}")
    total = train.get("total_iter")
    for key, block in train.items():
        steps = block.get("milestones") if str(key).startswith("scheduler") and isinstance(block, dict) else None
        found += beyond_the_end(key, steps, total) if isinstance(steps, list) else []
    data = datasets["train"] if isinstance(datasets["train"], dict) else {}
    batch, parts = data.get("batch_size_per_gpu"), train.get("accumulate", TRAIN["accumulate"]["default"])
    if own_model and data and "batch_size_per_gpu" not in data:
        found.append("datasets: train: batch_size_per_gpu: missing")
    elif isinstance(batch, int) and isinstance(parts, int) and parts > 0 and batch % parts:
        found.append(f"train: accumulate: expected a divisor of batch_size_per_gpu {batch}, got {parts}")
    return found


def _check_validation(options: Options) -> list[str]:
    val = options.get("val")
    metrics = (val.get("metrics") or {}) if isinstance(val, dict) else None
    if not isinstance(val, dict) or not isinstance(metrics, dict):
        return []
    found = [
        f"val: metrics: {name}: better: missing; say higher or lower, so that the best result is known"
        for name, block in metrics.items()
        if isinstance(block, dict) and "better" not in block and str(block.get("type")) not in KNOWN_BETTER
    ]
    best = val.get("best")
    if isinstance(best, str) and best not in metrics:
        near = did_you_mean(best, metrics) if metrics else ", which has none"
        found.append(f"val: best: expected a name under val: metrics{near}")
    found += _check_adapted_steps(val)
    datasets = options.get("datasets")
    blocks = datasets.items() if isinstance(datasets, dict) else ()
    names = [block.get("name", phase) for phase, block in blocks if isinstance(block, dict)]
    found += [
        f"datasets: two sets are named {name!r}; give each its own name, they share a folder of results"
        for name in sorted({str(name) for name in names if name is not None and names.count(name) > 1})
    ]
    return found


def _check_adapted_steps(val: Options) -> list[str]:
    asked, tta = val.get("adapted_steps"), val.get("tta")
    if not isinstance(asked, list) or not all(isinstance(number, int) for number in asked):
        return []
    if tta is None:
        return ["val: adapted_steps: nothing is adapted; add val: tta"]
    last = tta.get("steps", AdaptConfig.steps) if isinstance(tta, dict) else None
    if not isinstance(last, int) or max(asked, default=0) <= last:
        return []
    return [f"val: adapted_steps: expected steps up to {last} (val: tta: steps), got {max(asked)}"]
