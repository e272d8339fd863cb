"""Weights and training states on disk: written whole or not at all, read without running foreign code."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin import __version__
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

# What torch.load meets in damaged files, by format and place of the damage.
_DAMAGED: tuple[type[Exception], ...] = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_DAMAGED += (AttributeError, AssertionError, struct.error)


class CheckpointError(ReblurError):
    """A checkpoint that is missing, damaged, unsafe or doesn't fit; the message names the file."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write `content` to `path`: the file is complete or not there, also after a crash.

    Raises:
        FileError: if the disk refuses (full, read-only).
    """
    with whole_file(path, "free or change the disk, then resume") as file:
        torch.save(content, file)


def load(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Raises:
        CheckpointError: if it is missing, no checkpoint, truncated, or holds more than tensors and plain values.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: expected tensors and plain values only, got a file that holds other objects or none; "
            "only weights are loaded, since anything else could run code"
        ) from error
    except _DAMAGED as error:
        raise CheckpointError(f"{path}: damaged or no checkpoint of PyTorch; copy or download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dictionary of weights, got {type(content).__name__}")
    return content


def state_dict(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Return a network's weights from a checkpoint of BasicSR (`{"params": ...}`) or a bare state dict.

    Args:
        path: the checkpoint.
        key: "params" or "params_ema"; None takes "params_ema" where the file has it, then "params".

    Raises:
        CheckpointError: if the file has no such entry.
    """
    content = load(path)
    entries = [name for name, value in content.items() if isinstance(value, dict)]
    if key is None:
        key = next((name for name in ("params_ema", "params") if name in content), None)
        weights = content if key is None else content[key]
    elif key in content:
        weights = content[key]
    else:
        raise CheckpointError(f"{path}: expected the entry {key!r}, found {', '.join(entries) or 'bare weights'}")
    if not _is_weights(weights):
        raise CheckpointError(f"{path}: expected the weights of one network, found {', '.join(entries) or 'none'}")
    return {name.removeprefix("module."): value for name, value in weights.items()}  # "module." is DataParallel's


def _is_weights(value: Any) -> bool:
    items = value.items() if isinstance(value, dict) else ()
    return bool(items) and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in items)


def load_weights(network: nn.Module, path: str | Path, key: str | None = None, strict: bool = True) -> None:
    """Put the weights of a checkpoint into `network`.

    Raises:
        CheckpointError: if names or shapes don't fit; with `strict` False only where shapes differ.
    """
    weights = state_dict(path, key)
    own = network.state_dict()
    missing, unknown = own.keys() - weights.keys(), weights.keys() - own.keys()
    shapes = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    problems = [f"{len(shapes)} of other shape (such as {_shapes(min(shapes), own, weights)})"] if shapes else []
    if strict or not own.keys() & weights.keys():
        for names, what in ((missing, "missing"), (unknown, "unknown")):
            problems += [f"{len(names)} {what} (such as {min(names)})"] if names else []
    if problems:
        raise CheckpointError(
            f"{path}: doesn't fit {type(network).__name__} with {len(own)} tensors: {', '.join(problems)}; "
            "check the network's type and options"
        )
    network.load_state_dict(weights, strict=strict)


def origin(opt: Mapping[str, Any], iteration: int) -> dict[str, Any]:
    """Return what a checkpoint tells of its making, in plain values: options (as resolved), versions, seed, data."""
    return {
        "options": _plain(opt.get("resolved", {})),
        "versions": {"reblur_plugin": __version__, "torch": str(torch.__version__)},
        "seed": opt.get("manual_seed"),
        "data": opt.get("data_fingerprint"),
        "blur_kind": opt.get("blur_kind"),
        "iteration": iteration,
    }


def options(path: str | Path) -> dict[str, Any]:
    """Return the options that a checkpoint's `origin` holds, none if it has no such entry.

    Raises:
        CheckpointError: as `load` does.
    """
    found: Any = load(path)
    for key in ("origin", "options"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def forget(states: Path, models: Path, keep: int) -> None:
    """Delete all but the newest `keep` numbered training states and the networks that belong to the others."""
    numbers = sorted(int(path.stem) for path in states.glob("*.state") if path.stem.isdigit())
    for number in numbers[:-keep]:
        (states / f"{number}.state").unlink()  # the state first: without it nobody looks for the networks
        for path in models.glob(f"net_?_{number}.pth"):
            path.unlink()


def _plain(value: Any) -> Any:
    """Return `value` as what loads without running code."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _shapes(name: str, own: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    return f"{name}: {tuple(own[name].shape)} in the network, {tuple(weights[name].shape)} in the file"
