"""Finds the training state that a run goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reblur_plugin import checkpoints
from reblur_plugin.options.reading import OptionError, Options

_KEYS = {"iter", "draws", "to_validate", "updaters", "best"}


def find_state(opt: Options, auto_resume: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the training state to go on from, if any, and a note on each newer one that had to be skipped.

    With `auto_resume` the newest whole state of the experiment comes first, then `path: resume_state`.
    `path: pretrain_network_*` then point at the networks beside the state.

    Raises:
        ReblurError: if `resume_state` can't be used, or a state is beyond `total_iter`.
    """
    notes: list[str] = []
    if auto_resume:
        states = Path(opt["path"]["training_states"]).glob("*.state")
        numbered = [state for state in states if state.stem.isdigit()]
        for path in sorted(numbered, key=lambda state: int(state.stem), reverse=True):
            try:
                return _take_up(opt, path), notes
            except checkpoints.CheckpointError as error:
                notes.append(f"skipped {path.name}: {error}")
    if opt["path"].get("resume_state"):
        return _take_up(opt, Path(opt["path"]["resume_state"]).expanduser()), notes
    return None, notes


def _take_up(opt: Options, path: Path) -> dict[str, Any]:
    """Return a training state whose networks are there and whole.

    Raises:
        CheckpointError: if one of its files isn't.
        OptionError: if it is beyond the end of the training.
    """
    state = checkpoints.load(path)
    missing = _KEYS - state.keys()
    if missing:
        raise checkpoints.CheckpointError(f"{path}: expected a training state of ours, but {min(missing)} is missing")
    if state["iter"] > opt["train"]["total_iter"]:
        raise OptionError(
            f"train: total_iter: expected at least the {state['iter']} iterations that {path} has been trained for, "
            f"got {opt['train']['total_iter']}; raise it, or train anew under another name"
        )
    frozen = ("g",) if opt["train"].get("freeze_deblur_net") else ()
    networks: dict[str, str] = {}
    for label in ("g", "r", "d"):
        if opt.get(f"network_{label}") and label not in frozen:
            network = path.resolve().parent.parent / "models" / f"net_{label}_{state['iter']}.pth"
            checkpoints.state_dict(network, "params")
            networks |= {f"pretrain_network_{label}": str(network), f"param_key_{label}": "params"}
    opt["path"] |= networks
    return state
