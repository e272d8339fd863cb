"""Two processes (gloo) against one: the same training, and a validation in which every image is scored once."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import HANG, Meeting

from reblur_plugin import checkpoints
from reblur_plugin.engine import training
from reblur_plugin.evaluation.scores import Scores

# The sum over a batch is formed in another order; Adam's first steps carry the sign of small gradients on.
_ROUNDING = {"rtol": 1e-4, "atol": 1e-6}


def in_two_processes(options: dict[str, Any], folder: Path) -> str:
    """Run our training command as torchrun starts it, twice; return what the first process says."""
    (folder / "two.yml").write_text(yaml.safe_dump(options))
    meeting = Meeting(2)
    command = [sys.executable, "-m", "reblur_plugin.train", "-opt", "two.yml", "--launcher", "pytorch"]
    started = [
        subprocess.Popen(
            command,
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), **meeting.variables},
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=HANG)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
    return errors[0]


@pytest.fixture
def options(tiny_options: dict[str, Any]) -> dict[str, Any]:
    tiny_options["train"] |= {"total_iter": 3, "grad_clip": 1.0, "ema_decay": 0.5}
    tiny_options["train"]["optim_g"] = tiny_options["train"]["optim_r"] = {"type": "Adam", "lr": 1e-4, "eps": 1e-4}
    tiny_options["logger"]["save_checkpoint_freq"] = 1
    tiny_options["val"] |= {"val_freq": 3, "tta": {"steps": 1, "lr": 1e-4}}
    return tiny_options


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path, options: dict[str, Any]) -> None:
    one, two = copy.deepcopy(options) | {"name": "one"}, copy.deepcopy(options) | {"name": "two"}
    one["datasets"]["train"]["batch_size_per_gpu"] = 4
    training.train(one, tmp_path)
    log = in_two_processes(two, tmp_path)
    for label, key in (("g", "params"), ("g", "params_ema"), ("r", "params")):
        both = [
            checkpoints.state_dict(tmp_path / "experiments" / name / "models" / f"net_{label}_latest.pth", key)
            for name in ("one", "two")
        ]
        for name, expected in both[0].items():
            torch.testing.assert_close(both[1][name], expected, **_ROUNDING)
    for label in "gr":  # the comparison would hold for a training that does nothing
        start, end = (
            checkpoints.state_dict(tmp_path / "experiments" / "two" / "models" / f"net_{label}_{iteration}.pth")
            for iteration in (1, 3)
        )
        assert max((end[name] - start[name]).abs().max() for name in start) > 1e-4
    assert "2 images" in log  # both images of the validation set in one table
    assert "adapted" in log


def test_scores_of_all_processes_count_once_each() -> None:
    scores = Scores({"a": {"deblurred": {"psnr": 20.0}}, "b": {"deblurred": {"psnr": 30.0}}})
    assert scores.mean("deblurred", "psnr") == 25.0
