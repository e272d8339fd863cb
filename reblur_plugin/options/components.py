"""Option blocks and the classes of BasicSR's registries: names and arguments are checked, data sets built."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from reblur_plugin.errors import ReblurError, did_you_mean
from reblur_plugin.host import build_dataset as build_by_basicsr
from reblur_plugin.host import registry
from reblur_plugin.options.reading import OptionError, Options


def build_dataset(name: str, block: Options) -> Any:
    """Return the data set of the block `datasets: name`.

    Raises:
        ReblurError: for what is wrong with its files, and for what a class of BasicSR's or the user's can't take.
    """
    try:
        return build_by_basicsr(block)
    except ReblurError:
        raise
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise OptionError(f"datasets: {name}: {block['type']} can't take these options: {error!r}") from error


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
        parameters = {name: item for name, item in parameters.items() if name not in ("img", "img2")}
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
    return found
