"""A training that is killed again and again ends with the weights of one that never was."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import torch
from conftest import Trainer

from reblur_plugin import checkpoints

KILLS = 30


def test_thirty_kills_change_nothing(tmp_path: Path, tiny_options: dict[str, Any], trainer: Trainer) -> None:
    tiny_options["train"] |= {"total_iter": 250, "ema_decay": 0.9}
    tiny_options["logger"] |= {"save_checkpoint_freq": 1, "keep_checkpoints": 3, "print_freq": 10}
    tiny_options["val"] |= {"val_freq": 40, "save_img": False, "best": "psnr"}
    assert trainer.run({**tiny_options, "name": "unbroken"}, tmp_path) == [0]
    broken = {**tiny_options, "name": "broken"}
    states = tmp_path / "experiments" / "broken" / "training_states"
    when = random.Random(0)
    for _ in range(KILLS):
        before = newest(states)
        child = trainer.start(broken, tmp_path, auto_resume=True)
        # Saving takes most of an iteration here: a random moment a few iterations on often lies inside it.
        deadline = time.monotonic() + 60
        while newest(states) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(when.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert trainer.wait() == [-signal.SIGKILL]
        # No file that counts is unreadable: a half-written one keeps its temporary name.
        for path in [*states.glob("[0-9]*.state"), *states.parent.glob("models/net_*.pth")]:
            checkpoints.load(path)
    assert trainer.run(broken, tmp_path, auto_resume=True) == [0]
    ends = [
        checkpoints.load(tmp_path / "experiments" / name / "training_states" / "250.state")
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
