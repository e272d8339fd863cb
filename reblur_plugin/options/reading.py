"""Option files: YAML to options. Nothing in them can run code; `checks` says what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from reblur_plugin.errors import ReblurError
from reblur_plugin.files import decoded
from reblur_plugin.options.keys import DATASET, FILE_KEYS, KNOWN_BETTER, LOGGER, VAL, defaults

Options = dict[str, Any]

_LENGTHS = {"total_iter": "total_epoch", "total_epoch": "total_iter"}  # the one given last takes the other's place


_LARGEST, _DEEPEST = 100_000, 40  # values of a file, and levels of blocks in blocks


class OptionError(ReblurError):
    """An option file or override that can't be used; all its problems are in the message."""


class _Loader(yaml.SafeLoader):
    """Plain YAML, with numbers as YAML 1.2 has them: no Python objects, no duplicate keys, 1e-4 is a number.

    So 0100 is a hundred, and 5:6 and 2021-01-01 are text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise ConstructorError(None, None, "<< isn't supported; use _base_", key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in seen:
                raise ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        word = self.construct_scalar(node).replace("_", "")
        return int(word, 0) if re.match(r"[-+]?0[xo]", word) else int(word)


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: text that looks like 1e-4 gets quotes."""


_FIRST = list("-+.0123456789")  # letters of numbers
_FLOAT = r"^[-+]?((\d+\.?\d*|\.\d+)[eE][-+]?\d+|\d+\.\d*|\.\d+|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
_INT = r"^([-+]?\d[\d_]*|0x[0-9a-fA-F]+|0o[0-7]+)$"
_NOT_OURS = {f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp")}
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _NOT_OURS]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), _FIRST)
    _yaml.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(_INT), _FIRST)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read(path: Path) -> Options:
    """Return the options in a YAML file, laid over those of the files that its `_base_` names (relative to itself).

    `_base_` is one name or a list; a later file goes over an earlier one, and `key: null` takes a key of one back.

    Raises:
        OptionError: if a file is missing, no plain YAML, or the bases run in a circle.
    """
    return _without_nulls(_read(path, ()))


def _read(path: Path, above: tuple[Path, ...]) -> Options:
    if path.resolve() in above:
        raise OptionError(f"{path}: _base_ leads back to this file; remove one link of the circle")
    try:
        text = decoded(path.read_bytes())
    except OSError as error:
        raise OptionError(f"{path}: expected an option file, but it can't be read ({error}); check the path") from error
    except UnicodeDecodeError as error:
        said = f"got another encoding at byte {error.start}; save it as UTF-8"
        raise OptionError(f"{path}: expected an option file in UTF-8, {said}") from error
    options = parse(text, str(path))
    if not isinstance(options, dict):
        raise OptionError(f"{path}: expected keys and values, got {type(options).__name__}; see options/ for examples")
    bases = options.pop("_base_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(base and isinstance(base, str) for base in bases):
        raise OptionError(f"{path}: _base_: expected a file's name or a list of them, got {bases!r}")
    merged: Options = {}
    for base in bases:
        merged = merge(merged, _read(path.parent / str(base), (*above, path.resolve())))
    return merge(merged, options)


def parse(text: str, source: str) -> Any:
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        _size(value, {}, _DEEPEST)
        return value
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a 13th month is a ValueError
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        problem = problem.removeprefix("but ")
        raise OptionError(f"{source}{where}: expected plain YAML, but {problem}") from error


def _size(value: Any, known: dict[int, int], levels: int) -> int:
    """Return how many values there are when all aliases are followed, which may be far more than are written.

    Raises:
        ValueError: if they are too many, or nested too deep, as in a block that holds itself.
    """
    if levels == 0:
        raise ValueError(f"blocks are nested deeper than {_DEEPEST}")
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known, levels - 1) for item in items)
        if known[id(value)] > _LARGEST:
            raise ValueError(f"its aliases (*) stand for more than {_LARGEST:,} values")
    return known[id(value)]


def merge(base: Options, changes: Mapping[str, Any]) -> Options:
    """Return `base` with `changes` laid over it, block by block; another `type` replaces the whole block."""
    merged = {key: value for key, value in base.items() if key not in _LENGTHS or _LENGTHS[key] not in changes}
    for key, value in changes.items():
        old = merged.get(key)
        same = (
            isinstance(old, dict) and isinstance(value, dict) and value.get("type", old.get("type")) == old.get("type")
        )
        merged[key] = merge(old, value) if same and isinstance(old, dict) else value
    return merged


def override(options: Options, entries: Iterable[str]) -> Options:
    """Return `options` with entries such as `train:total_iter=1000` set; values are plain YAML, none takes a key back.

    Raises:
        OptionError: if an entry has no `=`, or goes through something that is no block.
    """
    for entry in entries:
        keys, separator, text = entry.partition("=")
        if not separator or not keys:
            raise OptionError(f"--force_yml {entry}: expected block:key=value, e.g. train:total_iter=1000")
        value = parse(text, f"--force_yml {entry}")
        *blocks, last = keys.strip().split(":")
        target = options
        for block in blocks:
            target = target.setdefault(block, {})
            if not isinstance(target, dict):
                raise OptionError(f"--force_yml {entry}: {block} is a value, not a block")
        target[last] = value
        if last in _LENGTHS:
            target.pop(_LENGTHS[last], None)
    return _without_nulls(options)


def _without_nulls(options: Options) -> Options:
    """Return `options` without null keys, but in blocks of others' classes, to which None may be a value."""
    if options.get("type", "DeblurPairDataset") != "DeblurPairDataset":
        return options
    return {
        key: _without_nulls(value) if isinstance(value, dict) else value
        for key, value in options.items()
        if value is not None
    }


def complete(options: Options) -> Options:
    """Return `options` with the keys filled in that BasicSR's own pipelines can't do without."""
    workers = defaults(DATASET, "num_worker_per_gpu")
    datasets = {
        phase: {"name": phase, **(workers if phase == "train" else {}), **block}
        for phase, block in options["datasets"].items()
    }
    completed = {**defaults(FILE_KEYS, "manual_seed", "num_gpu"), **options, "datasets": datasets}
    for section, needed in (("val", defaults(VAL, "save_img")), ("logger", defaults(LOGGER, "use_tb_logger"))):
        if options.get(section):
            completed[section] = {**needed, **options[section]}
    if metrics := metric_options(options):  # BasicSR's own models take one without `better` for "higher"
        completed["val"]["metrics"] = metrics
    return completed


def metric_options(options: Options) -> dict[str, Options]:
    """Return `val: metrics`, a new dict in which each says which way it points."""
    metrics = (options.get("val") or {}).get("metrics") or {}
    return {
        name: {**block, "better": block.get("better", KNOWN_BETTER.get(block["type"], "higher"))}
        for name, block in metrics.items()
    }


def in_iterations(options: Options, images: int, processes: int) -> Options:
    """Return training options whose length and milestones (epochs, percentages) are iterations.

    An epoch is `images` // (`batch_size_per_gpu` * `processes`) iterations, as in the paper's framework.

    Raises:
        OptionError: if the data set is smaller than a batch, or a milestone is beyond the last epoch.
    """
    train = dict(options["train"])
    batch = options["datasets"]["train"]["batch_size_per_gpu"] * processes
    if images < batch:
        raise OptionError(
            f"datasets: train: batch_size_per_gpu: expected at most the {images} images there are, got {batch} "
            f"over {processes} process{'es' if processes > 1 else ''}; lower it"
        )
    epochs = train.pop("total_epoch", None)
    if epochs is not None:
        train["total_iter"] = epochs * (images // batch)
    total = train["total_iter"]
    for key in [key for key, block in train.items() if key.startswith("scheduler") and block]:
        steps = [_iteration(step, total) for step in train[key].get("milestones", [])]
        train[key] = {**train[key], "milestones": steps}
        beyond = beyond_the_end(key, steps, total)
        if beyond and epochs is not None:  # with total_iter `checks` has said so
            raise OptionError("; ".join(beyond))
    return {**options, "train": train}


def _iteration(step: int | str, total: int) -> int:
    return round(float(step[:-1]) / 100 * total) if isinstance(step, str) else step


def beyond_the_end(key: str, steps: list[Any], total: Any) -> list[str]:
    """Return a sentence for each milestone of `train: key` that a training of `total` iterations never reaches.

    Milestones are iterations or percentages; what is neither is passed over, and so are iterations if `total` is none.
    """
    length = f" {total}" if total is not None else ""
    return [
        f"train: {key}: milestones: {step} lies beyond total_iter{length}; lower it"
        for step in steps
        if (isinstance(step, int) and isinstance(total, int) and step > total)
        or (isinstance(step, str) and re.fullmatch(r"\d+(\.\d+)?%", step) and float(step[:-1]) > 100)
    ]


def write(options: Options, path: Path) -> None:
    """Write `options` as YAML, in their order."""
    path.write_text(yaml.dump(options, Dumper=_Dumper, sort_keys=False), encoding="utf-8")
