"""From options to folders: which devices are used, what moves aside."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from reblur_plugin.engine import run, training
from reblur_plugin.options.reading import OptionError

Options = dict[str, Any]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """BasicSR's logger, whose lines others don't see otherwise."""
    monkeypatch.setattr(logging.getLogger("basicsr"), "propagate", True)
    return caplog


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


class TestDevices:
    @pytest.mark.parametrize(
        ("wanted", "available", "used"), [("auto", 0, 0), (0, 4, 0), (1, 4, 1), ("auto", 1, 1), ("auto", 4, 1)]
    )
    def test_one_process_uses_one_gpu_at_most(
        self,
        tmp_path: Path,
        tiny_options: Options,
        monkeypatch: pytest.MonkeyPatch,
        wanted: int | str,
        available: int,
        used: int,
    ) -> None:
        gpus(monkeypatch, available)
        assert run.start({**tiny_options, "num_gpu": wanted}, tmp_path, True, "none")["num_gpu"] == used

    def test_convolutions_are_chosen_by_trial_as_in_basicsr(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        run.start(tiny_options, tmp_path, True, "none")
        assert torch.backends.cudnn.benchmark is True

    def test_more_than_there_are_is_refused(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpus(monkeypatch, 2)
        with pytest.raises(OptionError, match=r"num_gpu: expected at most 2 \(what this machine has\), got 4; use aut"):
            run.start({**tiny_options, "num_gpu": 4}, tmp_path, True, "none")

    @pytest.mark.parametrize(("is_train", "program"), [(True, "train"), (False, "test")])
    def test_gpus_that_stay_idle_are_told_with_the_command_that_uses_them(
        self,
        tmp_path: Path,
        tiny_options: Options,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
        is_train: bool,
        program: str,
    ) -> None:
        gpus(monkeypatch, 4)
        run.start({**tiny_options, "num_gpu": "auto"}, tmp_path, is_train, "none")
        assert [record.getMessage() for record in log.records if record.levelno == logging.WARNING] == [
            f"num_gpu: one of 4 GPUs is used; all: torchrun --nproc_per_node 4 -m reblur_plugin.{program} -opt FILE "
            "--launcher pytorch"
        ]

    @pytest.mark.parametrize("wanted", [1, 0])
    def test_who_asks_for_one_or_none_is_told_nothing(
        self,
        tmp_path: Path,
        tiny_options: Options,
        monkeypatch: pytest.MonkeyPatch,
        log: pytest.LogCaptureFixture,
        wanted: int,
    ) -> None:
        gpus(monkeypatch, 4)
        run.start({**tiny_options, "num_gpu": wanted}, tmp_path, True, "none")
        assert [record for record in log.records if record.levelno == logging.WARNING] == []

    @pytest.mark.parametrize(
        ("wanted", "available", "backend", "used"),
        [(0, 4, "gloo", 0), ("auto", 4, "nccl", 4), ("auto", 0, "gloo", 0), (8, 1, "nccl", 1)],
        ids=["CPU beside GPUs", "GPUs", "no GPU", "srun shows each process one"],
    )
    def test_the_processes_meet_by_what_their_device_needs(
        self,
        tmp_path: Path,
        tiny_options: Options,
        monkeypatch: pytest.MonkeyPatch,
        wanted: int | str,
        available: int,
        backend: str,
        used: int,
    ) -> None:
        met, devices = [], []
        gpus(monkeypatch, available)
        monkeypatch.setattr(torch.cuda, "set_device", devices.append)
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, timeout: met.append(name))
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("LOCAL_RANK", "3")
        opt = run.start({**tiny_options, "num_gpu": wanted}, tmp_path, True, "pytorch")
        assert (met, opt["num_gpu"], opt["rank"], opt["world_size"]) == ([backend], used, 3, 8)
        assert devices == ([3 % available] if used else [])

    def test_fp16_on_a_cpu_is_warned_of(
        self, tmp_path: Path, tiny_options: Options, log: pytest.LogCaptureFixture
    ) -> None:
        tiny_options["train"]["amp"] = "fp16"
        run.start(tiny_options, tmp_path, True, "none")
        assert "train: amp: fp16 is far slower than float32 on a CPU; use auto, or leave it out" in log.text


class TestFolders:
    def test_a_new_run_moves_the_older_one_and_its_curves_aside_by_one_stamp(
        self, tmp_path: Path, tiny_options: Options
    ) -> None:
        tiny_options["logger"]["use_tb_logger"] = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TensorBoard's own imports
            for _ in range(3):  # two of them within one second
                training.train(tiny_options, tmp_path)
        names = [sorted(path.name for path in (tmp_path / folder).iterdir()) for folder in ("experiments", "tb_logger")]
        assert names[0] == names[1]
        assert len(names[0]) == 3
        assert len(list((tmp_path / "tb_logger" / "tiny").iterdir())) == 1
        log = next((tmp_path / "experiments" / "tiny").glob("*.log")).read_text()
        assert f"The older run of this name is in {tmp_path / 'experiments' / names[0][-1]} now" in log

    def test_a_resumed_run_keeps_its_curves(self, tmp_path: Path, tiny_options: Options) -> None:
        tiny_options["logger"]["use_tb_logger"] = True
        training.train(tiny_options, tmp_path)
        tiny_options["train"]["total_iter"] = 4
        training.train(tiny_options, tmp_path, auto_resume=True)
        assert [path.name for path in (tmp_path / "tb_logger").iterdir()] == ["tiny"]
        assert len(list((tmp_path / "tb_logger" / "tiny").iterdir())) == 2

    def test_curves_without_a_run_move_aside_too(self, tmp_path: Path, tiny_options: Options) -> None:
        (tmp_path / "tb_logger" / "tiny").mkdir(parents=True)
        training.train(tiny_options, tmp_path)
        assert [path.name[:14] for path in (tmp_path / "tb_logger").iterdir()] == ["tiny_archived_"]
