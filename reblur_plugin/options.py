"""Option files: YAML to checked options. Nothing in them can run code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from reblur_plugin.errors import ReblurError

Options = dict[str, Any]

_NETWORKS = ("g", "r", "d")
_KEYS: dict[str, frozenset[str]] = {
    "": frozenset(
        ["name", "model_type", "scale", "num_gpu", "manual_seed", "datasets", "path", "train", "val", "logger"]
        + ["dist_params", "find_unused_parameters"]
        + [f"network_{label}" for label in _NETWORKS]
    ),
    "path": frozenset(
        ["resume_state", "ignore_resume_networks"]
        + [f"{key}_{label}" for key in ("param_key", "strict_load") for label in _NETWORKS]
        + [f"pretrain_network_{label}" for label in _NETWORKS]
    ),
    "train": frozenset(
        ["total_iter", "warmup_iter", "ema_decay", "amp", "channels_last", "grad_clip", "scheduler"]
        + ["pixel_opt", "perceptual_opt", "gan_opt", "reblur_opt"]
        + [f"{key}_{label}" for key in ("optim", "scheduler") for label in _NETWORKS]
    ),
    "val": frozenset(["val_freq", "save_img", "suffix", "pbar", "metrics", "tta", "input_metrics", "comparison"]),
    "val: tta": frozenset(["steps", "lr", "optimizer", "target", "histogram"]),
    "logger": frozenset(["print_freq", "save_checkpoint_freq", "use_tb_logger", "wandb"]),
}
_REQUIRED = ("name", "model_type", "datasets", "network_g", "path")
_REQUIRED_IN_TRAINING = ("train", "logger")
_PHASES = ("train", "val", "test")


class OptionError(ReblurError):
    """An option file or override that can't be used; all its problems are in the message."""


class _Loader(yaml.SafeLoader):
    """Plain YAML: no Python objects, no duplicate keys, and 1e-4 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(path: Path) -> Options:
    """Return the options in a YAML file, laid over those of the files that its `_base_` names (relative to itself).

    `_base_` is one name or a list; a later file goes over an earlier one.

    Raises:
        OptionError: if a file is missing, no plain YAML, or the bases run in a circle.
    """
    return _read(path, ())


def _read(path: Path, above: tuple[Path, ...]) -> Options:
    if path.resolve() in above:
        raise OptionError(f"{path}: _base_ leads back to this file; remove one link of the circle")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: expected an option file, but it can't be read ({error}); check the path") from error
    options = _parse(text, str(path))
    if not isinstance(options, dict):
        raise OptionError(f"{path}: expected keys and values, got {type(options).__name__}; see options/ for examples")
    bases = options.pop("_base_", [])
    merged: Options = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged = merge(merged, _read(path.parent / str(base), (*above, path.resolve())))
    return merge(merged, options)


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise OptionError(f"{source}{where}: expected plain YAML, but {problem}") from error


def merge(base: Options, changes: Mapping[str, Any]) -> Options:
    """Return `base` with `changes` laid over it, block by block; another `type` replaces the whole block."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        same = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type")
        )
        merged[key] = merge(old, value) if same and isinstance(old, dict) else value
    return merged


def override(options: Options, entries: Iterable[str]) -> Options:
    """Return `options` with entries such as `train:total_iter=1000` set; values are plain YAML.

    Raises:
        OptionError: if an entry has no `=`, or goes through something that is no block.
    """
    for entry in entries:
        keys, separator, text = entry.partition("=")
        if not separator or not keys:
            raise OptionError(f"--force_yml {entry}: expected block:key=value, e.g. train:total_iter=1000")
        value = _parse(text, f"--force_yml {entry}")
        *blocks, last = keys.strip().split(":")
        target = options
        for block in blocks:
            target = target.setdefault(block, {})
            if not isinstance(target, dict):
                raise OptionError(f"--force_yml {entry}: {block} is a value, not a block")
        target[last] = value
    return options


def check(options: Options, is_train: bool) -> None:
    """Check keys, numbers and files before anything is built or created.

    Raises:
        OptionError: with all problems at once.
    """
    problems = [*_check_sections(options, is_train), *_check_datasets(options, is_train), *_check_files(options)]
    if not problems and is_train:
        problems = _check_training(options)
    if problems:
        raise OptionError("; ".join(problems))


def _check_sections(options: Options, is_train: bool) -> list[str]:
    required = _REQUIRED + (_REQUIRED_IN_TRAINING if is_train else ())
    problems = [f"{key}: missing" for key in required if options.get(key) is None]
    for section, known in _KEYS.items():
        block: Any = options
        for part in section.split(": ") if section else ():
            block = block.get(part) if isinstance(block, dict) else None
        if block is None:
            continue
        if not isinstance(block, dict):
            problems.append(f"{section}: expected a block of keys, got {block!r}")
            continue
        prefix = f"{section}: " if section else ""
        problems += [f"{prefix}{key}: unknown key{suggest(key, known)}" for key in block if key not in known]
    name = options.get("name")
    if name is not None and (not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name)):
        problems.append(f"name: expected letters, digits, _ . + -, got {name!r}")
    return problems


def _check_datasets(options: Options, is_train: bool) -> list[str]:
    datasets = options.get("datasets")
    if not isinstance(datasets, dict):
        return []
    problems = []
    for phase, block in datasets.items():
        if str(phase).split("_")[0] not in _PHASES:
            problems.append(f"datasets: {phase}: expected train, val, val_..., test or test_...")
        elif not isinstance(block, dict) or "type" not in block:
            problems.append(f"datasets: {phase}: type: missing, e.g. DeblurPairDataset")
    if is_train and "train" not in datasets:
        problems.append("datasets: train: missing")
    return problems


def _check_files(options: Options) -> list[str]:
    path = options.get("path")
    if not isinstance(path, dict):
        return []
    return [
        f"path: {key}: no such file {value}"
        for key, value in path.items()
        if (key.startswith("pretrain_network") or key == "resume_state") and value
        if not Path(str(value)).expanduser().is_file()
    ]


def _check_training(options: Options) -> list[str]:
    train, logger = options["train"], options["logger"]
    counts = {
        "train: total_iter": train.get("total_iter"),
        "logger: print_freq": logger.get("print_freq"),
        "logger: save_checkpoint_freq": logger.get("save_checkpoint_freq"),
        "datasets: train: batch_size_per_gpu": options["datasets"]["train"].get("batch_size_per_gpu"),
    }
    if options.get("val"):
        counts["val: val_freq"] = options["val"].get("val_freq")
    return [
        f"{key}: expected a whole number > 0, got {value!r}"
        for key, value in counts.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]


def suggest(name: Any, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the nearest known names, or all of them where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else f"; expected one of {', '.join(known)}"


def write(options: Options, path: Path) -> None:
    """Write `options` as YAML, in their order."""
    path.write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
