"""Training states on disk: what is in them (checkpoints.py), which one a training goes on from, which are kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from reblur_plugin.checkpoints import CheckpointError, load, origin, plain, state_dict
from reblur_plugin.core.updater import Updater
from reblur_plugin.files import at_home
from reblur_plugin.options.reading import OptionError, Options

_KEYS = {"iter", "draws", "to_validate", "updaters", "best"}  # by which a training goes on


def content(
    opt: Mapping[str, Any],
    epoch: int,
    iteration: int,
    updaters: Mapping[str, Updater],
    best: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of a training state."""
    return {
        "epoch": epoch,
        "iter": iteration,
        "draws": opt.get("draws", 0),
        "to_validate": opt.get("to_validate", False),
        "updaters": {label: updater.state_dict() for label, updater in updaters.items()},
        "best": best,
        "judged": plain(judged(opt)),
        "origin": origin(opt, iteration),
    }


def judged(opt: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what makes means comparable: of each validation set its data, and the options of each metric."""
    metrics = (opt.get("val") or {}).get("metrics") or {}
    return {
        name: {"data": data, "metrics": {metric: dict(options) for metric, options in metrics.items()}}
        for name, data in (opt.get("validated") or {}).items()
    }


class Found(NamedTuple):
    """A training state to go on from, if any; keys of `path` that load its networks; what was skipped."""

    state: dict[str, Any] | None
    path: dict[str, str]
    notes: list[str]


def find(opt: Options, auto_resume: bool) -> Found:
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
        return Found(*_whole_state(opt, at_home(opt["path"]["resume_state"])), notes)
    return Found(None, {}, notes)


def _whole_state(opt: Options, path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a training state whose networks are all there and whole, and where they are.

    Raises:
        CheckpointError: if one of its files isn't.
        OptionError: if it is beyond the end of the training.
    """
    state = load(path)
    missing = _KEYS - state.keys()
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
