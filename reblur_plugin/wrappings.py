"""The weights of one network in a checkpoint of others: under the usual entries, with the usual prefixes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

Weights = dict[str, Tensor]

_FIRST = ("params_ema", "params")  # BasicSR's and ours: averaged weights go before raw ones
_ENTRIES = {"state_dict", "model", "net", "net_g", "generator"}
_PREFIXES = ("module.", "_orig_mod.", "net_g.", "model.", "net.", "generator.")  # of DataParallel, compile, Lightning


def weights_in(content: Any, levels: int = 3) -> Weights | None:
    """Return the weights of one network that `content` holds, None where there are none or it isn't clear which.

    `params_ema` goes before `params`. Otherwise one entry must have one of the usual names (state_dict, model, net,
    net_g, generator), and no other one that or an average's.

    Args:
        content: of a checkpoint.
        levels: of dictionaries that may lie around the weights.
    """
    if _is_weights(content):
        return dict(content)
    if not isinstance(content, Mapping) or levels == 0:
        return None
    entry = next((name for name in _FIRST if name in content), None)
    if entry is None:
        usual = [name for name in entries(content, levels - 1) if name in _ENTRIES or "ema" in name]
        entry = usual[0] if len(usual) == 1 else None
    return None if entry is None else weights_in(content[entry], levels - 1)


def entries(content: Mapping[str, Any], levels: int = 3) -> list[str]:
    """Return the names under which `content` holds weights of one network; arguments as for `weights_in`."""
    return [name for name, value in content.items() if isinstance(name, str) and weights_in(value, levels)]


def without_prefixes(weights: Weights, own: Collection[str]) -> Weights:
    """Return the weights by the network's names, as far as the usual prefixes keep them from being so.

    Args:
        weights: by the names of a checkpoint.
        own: the network's names. Nothing is taken off that they begin with themselves.
    """
    forms = list(_forms(weights))
    return max(forms, key=lambda form: len(form.keys() & set(own)))  # of equal ones the first


def _forms(weights: Weights) -> Iterator[Weights]:
    """Yield `weights`, and again with each prefix taken off that all names have."""
    while weights:
        yield weights
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in weights)), None)
        if prefix is None:
            return
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}


def _is_weights(value: Any) -> bool:
    items = value.items() if isinstance(value, Mapping) else ()
    return bool(items) and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in items)
