"""A training that is killed again and again ends with the weights of one that never was."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import torch
from conftest import Runner

from reblur_plugin import checkpoints

KILLS, TOTAL = 30, 200
# A start adds two to six saved iterations and is killed at a random moment, whatever else the machine does: saving
# takes most of an iteration here, so the moment is often within it.
_KILLED = """
import os, signal, threading, time
from reblur_plugin.models.reblur_model import ReblurModel
whole, done = ReblurModel.optimize_parameters, []
def kill():
    time.sleep({delay})
    os.kill(os.getpid(), signal.SIGKILL)
def optimize_parameters(self, iteration):
    if len(done) == 2:
        threading.Thread(target=kill).start()
    if len(done) == 6:
        threading.Event().wait()
    done.append(iteration)
    whole(self, iteration)
ReblurModel.optimize_parameters = optimize_parameters
"""


def test_thirty_kills_change_nothing(tmp_path: Path, tiny_options: dict[str, Any], runner: Runner) -> None:
    tiny_options["train"] |= {"total_iter": TOTAL, "ema_decay": 0.9}
    tiny_options["logger"] |= {"save_checkpoint_freq": 1, "keep_checkpoints": 3, "print_freq": 10}
    tiny_options["val"] |= {"val_freq": 40, "save_img": False, "best": "psnr"}
    assert runner.run({**tiny_options, "name": "unbroken"}, tmp_path) == [0]
    broken = {**tiny_options, "name": "broken"}
    states = tmp_path / "experiments" / "broken" / "training_states"
    when = random.Random(0)
    for _ in range(KILLS):
        before = newest(states)
        prelude = _KILLED.format(delay=when.uniform(0, 0.03))
        assert runner.run(broken, tmp_path, auto_resume=True, prelude=prelude) == [-signal.SIGKILL]
        assert before + 2 <= newest(states) <= before + 6
        # No file that counts is unreadable: a half-written one keeps its temporary name.
        for path in [*states.glob("[0-9]*.state"), *states.parent.glob("models/net_*.pth")]:
            checkpoints.load(path)
    assert runner.run(broken, tmp_path, auto_resume=True) == [0]
    assert list(tmp_path.rglob(".*")) == []  # neither halves of files nor locks
    ends = [
        checkpoints.load(tmp_path / "experiments" / name / "training_states" / f"{TOTAL}.state")
        for name in ("unbroken", "broken")
    ]
    assert ends[0]["best"] == ends[1]["best"]  # no validation was lost either
    for label, key in (("g", "params"), ("g", "params_ema"), ("r", "params")):
        first, second = (
            checkpoints.state_dict(tmp_path / "experiments" / name / "models" / f"net_{label}_latest.pth", key)
            for name in ("unbroken", "broken")
        )
        assert [name for name in first if not torch.equal(first[name], second[name])] == []


def newest(states: Path) -> int:
    """Return the number of the newest training state."""
    return max((int(path.stem) for path in states.glob("[0-9]*.state")), default=0)
