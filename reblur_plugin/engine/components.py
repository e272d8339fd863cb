"""Names and arguments in an option file against the classes that BasicSR's registries hold."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from reblur_plugin import host
from reblur_plugin.options import OptionError, Options, suggest

host.prepare()

from basicsr.utils import registry  # noqa: E402 - after host.prepare()

Named = tuple[str, Any, Options]  # where it stands, its registry, its block


def check_components(options: Options) -> None:
    """Check that every `type` is registered and takes the arguments that its block gives.

    Raises:
        OptionError: with all problems at once, near names included.
    """
    problems = []
    if options["model_type"] not in _names(registry.MODEL_REGISTRY):
        problems.append(_unknown("model_type", options["model_type"], registry.MODEL_REGISTRY))
    for where, table, block in _blocks(options):
        if not isinstance(block, dict) or "type" not in block:
            problems.append(f"{where}: type: missing")
        elif block["type"] not in _names(table):
            problems.append(_unknown(f"{where}: type", block["type"], table))
        elif table is not registry.DATASET_REGISTRY:  # data sets take the whole block as one argument
            problems += _arguments(where, table.get(block["type"]), block, table is registry.METRIC_REGISTRY)
    if problems:
        raise OptionError("; ".join(problems))


def _blocks(options: Options) -> Iterator[Named]:
    for key, block in options.items():
        if key.startswith("network_") and block:
            yield key, registry.ARCH_REGISTRY, block
    for key in ("pixel_opt", "perceptual_opt", "gan_opt"):
        block = (options.get("train") or {}).get(key)
        if block:
            yield f"train: {key}", registry.LOSS_REGISTRY, block
    for name, block in ((options.get("val") or {}).get("metrics") or {}).items():
        yield f"val: metrics: {name}", registry.METRIC_REGISTRY, block
    for phase, block in options["datasets"].items():
        yield f"datasets: {phase}", registry.DATASET_REGISTRY, block


def _names(table: Any) -> set[str]:
    return {name.removesuffix("_basicsr") for name in table.keys()} | set(table.keys())  # noqa: SIM118 - a Registry


def _unknown(where: str, name: Any, table: Any) -> str:
    return f"{where}: nothing is registered as {name!r}{suggest(name, _names(table))}"


def _arguments(where: str, component: Any, block: Options, is_metric: bool) -> list[str]:
    parameters = inspect.signature(component).parameters
    given = set(block) - {"type"}
    if is_metric:
        given -= {"better"}  # BasicSR's own key
        parameters = {name: item for name, item in parameters.items() if name not in ("img", "img2")}  # type: ignore[assignment]
    open_ended = any(item.kind is inspect.Parameter.VAR_KEYWORD for item in parameters.values())
    known = {name for name, item in parameters.items() if item.kind is not inspect.Parameter.VAR_KEYWORD}
    needed = {
        name for name, item in parameters.items() if item.default is inspect.Parameter.empty and name in known
    } - {"args"}
    problems = [f"{where}: {name}: missing; {component.__name__} needs it" for name in sorted(needed - given)]
    if not open_ended:
        problems += [f"{where}: {name}: unknown key{suggest(name, known)}" for name in sorted(given - known)]
    return problems
