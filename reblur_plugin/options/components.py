"""Option blocks and the classes of BasicSR's registries: names and arguments are checked, data sets built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from reblur_plugin.errors import building, did_you_mean
from reblur_plugin.host import build_dataset as build_by_basicsr
from reblur_plugin.host import registry
from reblur_plugin.options.reading import OptionError, Options

_HANDED_OVER = ("img", "img2", "reblur_net")  # to metrics, by BasicSR or ReblurModel: no keys of option files
_LARGEST = 100_000  # of a network's counts: more is a slip


def build_dataset(name: str, block: Options) -> Any:
    """Return the data set of the block `datasets: name`.

    Raises:
        ReblurError: for what is wrong with its files, and for what a class of BasicSR's or the user's can't take.
    """
    with building(f"datasets: {name}", block["type"], OptionError):
        return build_by_basicsr(block)


def problems(options: Options) -> list[str]:
    """Return a sentence for each name that no registry has and each argument that its class doesn't take.

    Blocks that are no blocks are left to `checks.problems`.
    """
    found = []
    model = options.get("model_type")
    if model is not None and not _is_known(model, registry.MODEL_REGISTRY):
        found.append(_unknown("model_type", model, registry.MODEL_REGISTRY))
    for where, table, block in _blocks(options):
        if "type" not in block:
            found.append(f"{where}: type: missing")
        elif not _is_known(block["type"], table):
            found.append(_unknown(f"{where}: type", block["type"], table))
        elif table is not registry.DATASET_REGISTRY:  # data sets take the whole block as one argument
            found += _arguments(where, table.get(block["type"]), block, table is registry.METRIC_REGISTRY)
    return found


def _blocks(options: Options) -> Iterator[tuple[str, Any, Options]]:
    """Yield each block of a registered class: its place in the file, its registry and itself."""
    train, val = _block(options.get("train")), _block(options.get("val"))
    places = [(key, registry.ARCH_REGISTRY, block) for key, block in options.items() if str(key).startswith("network_")]
    places += [
        (f"train: {key}", registry.LOSS_REGISTRY, train.get(key)) for key in ("pixel_opt", "perceptual_opt", "gan_opt")
    ]
    metrics, datasets = _block(val.get("metrics")), _block(options.get("datasets"))
    places += [(f"val: metrics: {name}", registry.METRIC_REGISTRY, block) for name, block in metrics.items()]
    places += [(f"datasets: {name}", registry.DATASET_REGISTRY, block) for name, block in datasets.items()]
    yield from ((where, table, block) for where, table, block in places if isinstance(block, dict))


def _block(value: Any) -> Options:
    return value if isinstance(value, dict) else {}


def _is_known(name: Any, table: Any) -> bool:
    return isinstance(name, str) and name in _names(table)


def _names(table: Any) -> set[str]:
    return {name.removesuffix("_basicsr") for name in table.keys()} | set(table.keys())  # noqa: SIM118 - a Registry


def _unknown(where: str, name: Any, table: Any) -> str:
    return (
        f"{where}: nothing is registered as {name!r}{did_you_mean(name, _names(table))}; --import MODULE for your own"
    )


def _arguments(where: str, component: Any, block: Options, is_metric: bool) -> list[str]:
    parameters = dict(inspect.signature(component).parameters)
    given = set(block) - {"type"}
    if is_metric:
        given -= {"better"}  # BasicSR's own key
        parameters = {name: item for name, item in parameters.items() if name not in _HANDED_OVER}
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    named = {name: item for name, item in parameters.items() if item.kind not in variable}
    needed = {name for name, item in named.items() if item.default is inspect.Parameter.empty}
    found = [f"{where}: {name}: missing; {component.__name__} needs it" for name in sorted(needed - given)]
    # BasicSR's metrics take any keyword and ignore it; a user's class may pass it on.
    ignores = is_metric and component.__module__.startswith("basicsr.")
    if ignores or all(item.kind is not inspect.Parameter.VAR_KEYWORD for item in parameters.values()):
        found += [
            f"{where}: {key}: unknown key{did_you_mean(key, named)}" for key in sorted(given - set(named), key=str)
        ]
    return found + _values(where, component, block)


def _values(where: str, component: Any, block: Options) -> list[str]:
    """Return what is wrong with values of simple types, by the class's annotations; our networks' counts are > 0."""
    try:
        hints = get_type_hints(component.__init__ if inspect.isclass(component) else component)
    except Exception:  # anybody's annotations
        return []
    least = 1 if component.__module__.startswith("reblur_plugin.archs.") else None
    found = []
    for key, value in block.items():
        expected = _expected(hints.get(str(key)), value, least)
        found += [f"{where}: {key}: expected {expected}, got {value!r}"] if expected else []
    return found


def _expected(hint: Any, value: Any, least: int | None) -> str:
    """Return in words what a value should be instead; empty if it may stay, or the annotation says nothing of it."""
    if hint is bool:
        return "" if isinstance(value, bool) else "true or false"
    if get_origin(hint) is Literal:
        return "" if value in get_args(hint) else f"one of {', '.join(map(str, get_args(hint)))}"
    if hint is int or hint == Sequence[int]:
        numbers = value if isinstance(value, list) and hint is not int else [value]
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        if whole and (least is None or all(least <= number <= _LARGEST for number in numbers)):
            return ""
        bounds = "" if least is None else f" from {least} to {_LARGEST:,}"
        return f"a whole number{bounds}" if hint is int else f"a list of whole numbers{bounds}"
    return ""
