"""What a resumed training does otherwise than the one that it goes on from: the options hold, and all is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reblur_plugin import checkpoints
from reblur_plugin.options.reading import Options

# Keys that change no result, or are told elsewhere: optimisers by their updaters, data by their fingerprint.
_SILENT = {"total_iter", "optim_g", "optim_r", "optim_d", "compile"}
_SILENT_OF_DATA = {"name", "dataroot", "dataroot_lq", "dataroot_gt", "meta_info_file", "layout", "only", "without"}
_SILENT_OF_DATA |= {"cache", "num_worker_per_gpu", "pin_memory", "prefetch_mode", "blur_key"}
_ORIGINS = {
    "data": "training data",
    "blur_kind": "kind of blur",
    "processes": "processes",
    "versions": "version",
}


def differences(state: Mapping[str, Any], opt: Options) -> list[str]:
    """Return a sentence for each thing that changes results and isn't as it was when `state` was saved.

    What the state doesn't tell of (older ones know less) isn't compared.
    """
    before, now = state.get("origin") or {}, checkpoints.origin(opt, state["iter"])
    found: list[tuple[str, Any, Any]] = []
    if before.get("options"):
        found += _changed("", _of_training(before["options"]), _of_training(now["options"]))
    for key, name in _ORIGINS.items():
        if before.get(key) is not None:
            found += _changed(name, before[key], now[key])
    return [f"resumed: {key} is {new!r}, was {old!r}; the present value holds" for key, old, new in found]


def _of_training(options: Mapping[str, Any]) -> dict[str, Any]:
    data = (options.get("datasets") or {}).get("train") or {}
    train = options.get("train") or {}
    return {
        "manual_seed": options.get("manual_seed", 0),
        **{key: options.get(key) for key in ("network_g", "network_r", "network_d", "deblurred_output")},
        "datasets: train": {key: value for key, value in data.items() if key not in _SILENT_OF_DATA},
        "train": {key: value for key, value in train.items() if key not in _SILENT},
    }


def _changed(where: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the place of each value that differs, with the older (None: there was none) and the present one."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _changed(f"{where}: {key}" if where else str(key), before.get(key), now.get(key))
    elif before != now:
        yield where, before, now
