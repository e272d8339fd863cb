"""Two processes (gloo) against one: the same training, and a validation in which every image is scored once."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from reblur_plugin import checkpoints
from reblur_plugin.engine import training
from reblur_plugin.evaluation.scores import Scores
from reblur_plugin.options.reading import OptionError

# The sum over a batch is formed in another order; Adam's first steps carry the sign of small gradients on.
_ROUNDING = {"rtol": 1e-4, "atol": 1e-6}


def in_two_processes(options: dict[str, Any], folder: Path) -> str:
    """Run our training command as torchrun starts it, twice; return what the first process says."""
    (folder / "two.yml").write_text(yaml.safe_dump(options))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "reblur_plugin.train", "-opt", "two.yml", "--launcher", "pytorch"]
    processes = [
        subprocess.Popen(
            command,
            cwd=folder,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=200)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return errors[0]


@pytest.fixture
def options(tiny_options: dict[str, Any]) -> dict[str, Any]:
    tiny_options["train"] |= {"total_iter": 3, "grad_clip": 1.0, "ema_decay": 0.5}
    tiny_options["train"]["optim_g"] = tiny_options["train"]["optim_r"] = {"type": "Adam", "lr": 1e-4, "eps": 1e-4}
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
    assert "2 images" in log  # both images of the validation set in one table
    assert "adapted" in log


def test_both_networks_have_moved(tmp_path: Path, options: dict[str, Any]) -> None:
    # The comparison above would hold for a training that does nothing.
    training.train({**options, "name": "start", "train": {**options["train"], "total_iter": 1}}, tmp_path)
    training.train({**options, "name": "end"}, tmp_path)
    for label in "gr":
        start, end = (
            checkpoints.state_dict(tmp_path / "experiments" / name / "models" / f"net_{label}_latest.pth")
            for name in ("start", "end")
        )
        assert max((end[name] - start[name]).abs().max() for name in start) > 1e-4


def test_scores_of_all_processes_count_once_each() -> None:
    scores = Scores({"a": {"deblurred": {"psnr": 20.0}}, "b": {"deblurred": {"psnr": 30.0}}})
    assert scores.mean("deblurred", "psnr") == 25.0


class TestSlurm:
    def test_its_numbers_become_torchruns(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from reblur_plugin.engine import run

        scontrol = tmp_path / "scontrol"
        scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[3-4]" ] && printf "node3\\nnode4\\n"\n')
        scontrol.chmod(0o755)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "x")  # so that it is put back afterwards
            monkeypatch.delenv(name)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        slurm = {"PROCID": "5", "NTASKS": "8", "LOCALID": "1", "NODELIST": "node[3-4]"}
        for name, value in slurm.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        run._slurm_to_torchrun()
        found = [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")]
        assert found == ["5", "8", "1", "node3", "29500"]

    def test_without_srun_the_missing_number_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from reblur_plugin.engine import run

        monkeypatch.delenv("SLURM_NODELIST", raising=False)
        with pytest.raises(OptionError, match="--launcher slurm: SLURM_NODELIST isn't set; start with srun"):
            run._slurm_to_torchrun()


def test_torchrun_is_asked_for_when_its_numbers_are_missing(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(OptionError, match="--launcher pytorch: expected to be started by torchrun"):
        training.train(tiny_options, tmp_path, launcher="pytorch")
