"""Weights and training states on disk: written whole or not at all, read without running foreign code.

The format, described here alone. All files are PyTorch's own and hold tensors and plain values, nothing else.

- `models/net_<label>_<iteration>.pth`, a network; label g is M_D, r is M_R, d the discriminator:
  - `params`: its state dict, on the CPU, without a data-parallel prefix,
  - `params_ema`: the averaged M_D's, where there is one; tests and photographs take it,
  - `origin`: what it comes from: `options` (as resolved; the networks' own blocks are there, by which `network` builds
    them again), `versions`, `seed`, `data` and `blur_kind` of the training set, `processes`, `iteration`.
- `training_states/<iteration>.state`, what the networks of that iteration need to be trained on: `epoch`, `iter`,
  `draws` (images drawn so far), `to_validate`, `updaters` (by label: `type`, `optimizer`, `scaler`, `skipped`), `best`
  (metrics so far, by data set), `judged` (by what: the set's data and each metric's options), `origin`.

Files of others are read too (wrappings.py); they have no origin.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import bare, choose_output
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import FileError, at_home, whole_file
from reblur_plugin.version import __version__
from reblur_plugin.wrappings import entries, weights_in, without_prefixes

# What torch.load meets in damaged files, by format and place of the damage.
_DAMAGED: tuple[type[Exception], ...] = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_DAMAGED += (AttributeError, AssertionError, struct.error)
_TOLD: tuple[str, ...] = ("name", "model_type", "manual_seed", "datasets", "train", "val", "deblurred_output")
_TOLD += ("network_g", "network_r", "network_d")


class CheckpointError(ReblurError):
    """A checkpoint that is missing, damaged, unsafe or doesn't fit; the message names the file."""


def save(content: dict[str, Any], path: Path) -> None:
    """Write `content` to `path`: the file is complete or not there, also after a crash."""
    remedy = "free or change the disk, then resume"
    try:
        with whole_file(path, remedy) as file:
            torch.save(content, file)
    except RuntimeError as error:  # PyTorch's for a full disk
        raise FileError(f"{path}: can't be written ({error}); {remedy}") from error


def load(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU.

    Raises:
        CheckpointError: if it is missing, no checkpoint, truncated, or holds more than tensors and plain values.
    """
    path = at_home(path)
    if not os.path.isfile(path):  # Path's own raises where a name is too long
        raise CheckpointError(f"{path}: no such checkpoint; check the path")
    try:
        with _numbers_of_numpy():
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


def _numbers_of_numpy() -> AbstractContextManager[Any]:
    """Allow NumPy's numbers, such as a metric beside the weights, where PyTorch (2.6 on) can be told to.

    A number is made of its type and its bytes. Types that hold objects or fields can't be read: they aren't allowed.
    """
    if not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        return nullcontext()
    scalar: Any = np.float64().__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # NumPy before 2, and since
    kinds = [type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"]
    return torch.serialization.safe_globals([*[(scalar, name) for name in names], np.dtype, *kinds])


def state_dict(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Return a network's weights by the checkpoint's names.

    Args:
        path: a checkpoint of BasicSR (`{"params": ...}`), a bare state dict, or one under a usual entry.
        key: the entry that holds them; None finds it (`wrappings.weights_in`).

    Raises:
        CheckpointError: if the file has no such entry, or doesn't show which one holds them.
    """
    content = load(path)
    blocks = ", ".join(str(name) for name, value in content.items() if isinstance(value, dict))
    if key is not None and key not in content:
        raise CheckpointError(f"{path}: expected the entry {key!r}, found {blocks or 'bare weights'}")
    weights = weights_in(content if key is None else content[key])
    if weights is None:
        named = entries(content)
        remedy = f"; name its entry by param_key_g or param_key_r under path, such as {named[0]}" if named else ""
        raise CheckpointError(f"{path}: expected the weights of one network, found {blocks or 'none'}{remedy}")
    return weights


def load_weights(network: nn.Module, path: str | Path, key: str | None = None, strict: bool = True) -> None:
    """Put the weights of a checkpoint into `network`.

    Raises:
        CheckpointError: if names or shapes don't fit; with `strict` False only where shapes differ.
    """
    fit(network, state_dict(path, key), path, strict)


def fit(network: nn.Module, weights: dict[str, Tensor], source: str | Path, strict: bool = True) -> None:
    """Put weights into `network`, without the usual prefixes; errors as for `load_weights`, naming `source`."""
    own = network.state_dict()
    weights = without_prefixes(weights, own)
    missing, unknown = own.keys() - weights.keys(), weights.keys() - own.keys()
    shapes = [name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape]
    problems = [f"{len(shapes)} of other shape (such as {_shapes(min(shapes), own, weights)})"] if shapes else []
    if strict or not own.keys() & weights.keys():
        for names, what in ((missing, "missing"), (unknown, "unknown")):
            problems += [f"{len(names)} {what} (such as {min(names)})"] if names else []
    if problems:
        raise CheckpointError(
            f"{source}: doesn't fit {type(network).__name__} with {len(own)} tensors: {', '.join(problems)}; "
            "check the network's type and options"
        )
    network.load_state_dict(weights, strict=strict)


def network(weights: str | Path, label: Literal["g", "r"], block: Mapping[str, Any] | None = None) -> nn.Module:
    """Return M_D (label "g") or M_R ("r") of `net_<label>_*.pth`, in eval mode on the CPU, built as its origin says.

    Its class must be in BasicSR's registry: `reblur_plugin.register()` puts ours there. A `block`, as an option file
    has it, goes before the origin's.

    Raises:
        CheckpointError: if the file is missing, damaged, doesn't fit or doesn't tell of a network that is known here.
    """
    from reblur_plugin.host import build_network  # here: weights are read without BasicSR

    told = {} if block else options(weights)
    block = dict(block) if block else told.get(f"network_{label}")
    if not isinstance(block, dict):
        raise CheckpointError(
            f"{weights}: doesn't tell which network it belongs to; "
            f"expected net_{label}_*.pth from reblur_plugin's training"
        )
    holds_weights = block.get("type") == "SpandrelNet"  # by a path of the machine that trained it, or the user's
    if holds_weights and told:
        block = block | {"weights": state_dict(weights)}
    if told:
        _refuse_paths(weights, block)
    try:
        built: nn.Module = build_network(block)
    except KeyError as error:
        raise CheckpointError(
            f"{weights}: belongs to a network {block.get('type')!r} that isn't known here; give its module by --import"
        ) from error
    except ReblurError:
        raise
    except Exception as error:  # it may be anybody's class, and anybody's file
        raise CheckpointError(f"{weights}: {block.get('type')} can't take the options in it: {error}") from error
    if label == "g":
        choose_output(built, told.get("deblurred_output"))
    if not holds_weights:
        load_weights(built, weights)
    return built.eval()


def _refuse_paths(path: str | Path, block: Mapping[str, Any]) -> None:
    """Refuse options of a file, which may be a stranger's, that make a network read another one."""
    for name, value in block.items():
        if isinstance(value, str) and value and "path" in name:
            kind = block.get("type")
            raise CheckpointError(
                f"{path}: expected a network that reads no other file, got {kind} with {name}: {value}; "
                f"if you trust it, name it yourself: --network '{{type: {kind}, ...}}'"
            )


def save_network(networks: Mapping[str, nn.Module], origin: Mapping[str, Any], path: Path) -> None:
    """Write a network's weights, as `params` and, averaged, as `params_ema`, with what they come from."""
    content: dict[str, Any] = {
        key: {name: value.detach().cpu() for name, value in bare(network).state_dict().items()}
        for key, network in networks.items()
    }
    save(content | {"origin": dict(origin)}, path)


def origin(opt: Mapping[str, Any], iteration: int) -> dict[str, Any]:
    """Return what a checkpoint comes from, in plain values: options (as resolved), versions, seed, data.

    BasicSR's own pipelines resolve nothing: their options are stored as they are.
    """
    resolved = opt.get("resolved") or {key: opt[key] for key in _TOLD if key in opt}
    return {
        "options": plain(resolved),
        "versions": {"reblur_plugin": __version__, "torch": str(torch.__version__)},
        "seed": opt.get("manual_seed"),
        "data": opt.get("data_fingerprint"),
        "blur_kind": opt.get("blur_kind"),
        "processes": opt.get("world_size", 1),
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


def plain(value: Any) -> Any:
    """Return `value` as what loads without running code: text, numbers, lists and dictionaries of them."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _shapes(name: str, own: dict[str, Tensor], weights: dict[str, Tensor]) -> str:
    return f"{name}: {tuple(own[name].shape)} in the network, {tuple(weights[name].shape)} in the file"
