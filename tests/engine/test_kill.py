"""A training that is killed again and again ends with the weights of one that never was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from reblur_plugin import checkpoints

KILLS = 30

# Trains with --auto_resume in children forked from one process that has loaded everything already: each starts at once.
_SCRIPT = """
import os, pathlib, sys
import yaml
import torch
torch.set_num_threads(1)
import reblur_plugin.engine.training as training
options = yaml.safe_load(open("o.yml"))
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            training.train({**options, "name": line.strip()}, pathlib.Path.cwd(), auto_resume=True)
        finally:
            os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)
"""


def test_thirty_kills_change_nothing(tmp_path: Path, tiny_options: dict[str, Any]) -> None:
    tiny_options["train"] |= {"total_iter": 150, "ema_decay": 0.9}
    tiny_options["logger"] |= {"save_checkpoint_freq": 1, "keep_checkpoints": 3, "print_freq": 10}
    tiny_options["val"] |= {"val_freq": 40, "save_img": False, "best": "psnr"}
    (tmp_path / "o.yml").write_text(yaml.safe_dump(tiny_options))
    trainer = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    assert trainer.stdout.readline() == "ready\n"
    start(trainer, "unbroken")
    assert trainer.stdout.readline() == "ended\n"
    states = tmp_path / "experiments" / "broken" / "training_states"
    when = random.Random(0)
    kills = 0
    for _ in range(10 * KILLS):
        before = newest(states)
        child = start(trainer, "broken")
        if kills < KILLS:
            # Saving takes most of an iteration here: a random moment a few iterations on often lies inside it.
            deadline = time.monotonic() + 60
            while newest(states) < before + 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(when.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        if trainer.stdout.readline() == "ended\n":
            break
        kills += 1
        # No file that counts is unreadable: a half-written one keeps its temporary name.
        for path in [*states.glob("[0-9]*.state"), *states.parent.glob("models/net_*.pth")]:
            checkpoints.load(path)
    trainer.stdin.close()
    trainer.wait(timeout=60)
    assert kills >= KILLS
    ends = [
        checkpoints.load(tmp_path / "experiments" / name / "training_states" / "150.state")
        for name in ("unbroken", "broken")
    ]
    assert ends[0]["best"] == ends[1]["best"]  # no validation was lost either
    for label, key in (("g", "params"), ("g", "params_ema"), ("r", "params")):
        unbroken, broken = (
            checkpoints.state_dict(tmp_path / "experiments" / name / "models" / f"net_{label}_latest.pth", key)
            for name in ("unbroken", "broken")
        )
        assert [name for name in unbroken if not torch.equal(unbroken[name], broken[name])] == []


def start(trainer: subprocess.Popen[str], name: str) -> int:
    """Let the trainer fork a training of that name; return the child's number."""
    assert trainer.stdin is not None
    assert trainer.stdout is not None
    trainer.stdin.write(f"{name}\n")
    trainer.stdin.flush()
    return int(trainer.stdout.readline())


def newest(states: Path) -> int:
    """Return the number of the newest training state."""
    return max((int(path.stem) for path in states.glob("[0-9]*.state")), default=0)
