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

Files of others are read too: BasicSR's (`params`) and bare state dicts; they have no origin.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import bare, choose_output
from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import FileError, whole_file
from reblur_plugin.options.reading import OptionError, Options
from reblur_plugin.version import __version__

# What torch.load meets in damaged files, by format and place of the damage.
_DAMAGED: tuple[type[Exception], ...] = (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError)
_DAMAGED += (AttributeError, AssertionError, struct.error)
_STATE = {"iter", "draws", "to_validate", "updaters", "best"}  # keys that a training goes on by
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
    fit(network, state_dict(path, key), path, strict)


def fit(network: nn.Module, weights: dict[str, Tensor], source: str | Path, strict: bool = True) -> None:
    """Put weights into `network`; errors as for `load_weights`, naming `source`."""
    own = network.state_dict()
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


def network(weights: str | Path, label: Literal["g", "r"]) -> nn.Module:
    """Return M_D (label "g") or M_R ("r") of `net_<label>_*.pth`, in eval mode on the CPU, built as its origin says.

    Its class must be in BasicSR's registry: `reblur_plugin.register()` puts ours there.

    Raises:
        CheckpointError: if the file is missing, damaged, doesn't fit or doesn't tell of a network that is known here.
    """
    from reblur_plugin.host import build_network  # here: weights are read without BasicSR

    told = options(weights)
    block = told.get(f"network_{label}")
    if not isinstance(block, dict):
        raise CheckpointError(
            f"{weights}: doesn't tell which network it belongs to; "
            f"expected net_{label}_*.pth from reblur_plugin's training"
        )
    try:
        built: nn.Module = build_network(block)
    except KeyError as error:
        raise CheckpointError(
            f"{weights}: belongs to a network {block.get('type')!r} that isn't known here; give its module by --import"
        ) from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{weights}: {block.get('type')} can't take the options in it: {error}") from error
    if label == "g":
        choose_output(built, told.get("deblurred_output"))
    load_weights(built, weights)
    return built.eval()


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
        "options": _plain(resolved),
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


def training_state(
    opt: Mapping[str, Any],
    epoch: int,
    iteration: int,
    updaters: Mapping[str, Updater],
    best: Mapping[str, Any],
    judged: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of a training state."""
    return {
        "epoch": epoch,
        "iter": iteration,
        "draws": opt.get("draws", 0),
        "to_validate": opt.get("to_validate", False),
        "updaters": {label: updater.state_dict() for label, updater in updaters.items()},
        "best": best,
        "judged": _plain(judged),
        "origin": origin(opt, iteration),
    }


class Found(NamedTuple):
    """A training state to go on from, if any; keys of `path` that load its networks; what was skipped."""

    state: dict[str, Any] | None
    path: dict[str, str]
    notes: list[str]


def find_state(opt: Options, auto_resume: bool) -> Found:
    """Return the training state to go on from: with `auto_resume` the experiment's newest whole one, if it has any.

    Otherwise it is `path: resume_state`, if that is given.

    Raises:
        ReblurError: if `resume_state` can't be used, or a state is beyond `total_iter`.
    """
    notes: list[str] = []
    if auto_resume:
        states = Path(opt["path"]["training_states"]).glob("*.state")
        numbered = [state for state in states if state.stem.isdigit()]
        for path in sorted(numbered, key=lambda state: int(state.stem), reverse=True):
            try:
                return Found(*_whole_state(opt, path), notes)
            except CheckpointError as error:
                notes.append(f"skipped {path.name}: {error}")
    if opt["path"].get("resume_state"):
        return Found(*_whole_state(opt, Path(opt["path"]["resume_state"]).expanduser()), notes)
    return Found(None, {}, notes)


def _whole_state(opt: Options, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a training state whose networks are all there and whole, and where they are.

    Raises:
        CheckpointError: if one of its files isn't.
        OptionError: if it is beyond the end of the training.
    """
    state = load(path)
    missing = _STATE - state.keys()
    if missing:
        raise CheckpointError(f"{path}: expected a training state of ours, but {min(missing)} is missing")
    if state["iter"] > opt["train"]["total_iter"]:
        raise OptionError(
            f"train: total_iter: expected at least the {state['iter']} iterations that {path} has been trained for, "
            f"got {opt['train']['total_iter']}; raise it, or train anew under another name"
        )
    frozen = ("g",) if opt["train"].get("freeze_deblur_net") else ()
    networks: dict[str, str] = {}
    for label in ("g", "r", "d"):
        if opt.get(f"network_{label}") and label not in frozen:
            file = path.resolve().parent.parent / "models" / f"net_{label}_{state['iter']}.pth"
            state_dict(file, "params")
            networks |= {f"pretrain_network_{label}": str(file), f"param_key_{label}": "params"}
    return state, networks


def forget(states: Path, models: Path, keep: int | None) -> None:
    """Delete all but the newest `keep` (None: all) training states and the networks that belong to the others."""
    if not keep:
        return
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
