"""From checked options to devices, processes, data sets and the options that BasicSR's classes expect."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import reblur_plugin
from reblur_plugin.engine import processes
from reblur_plugin.engine.preparation import prepare, try_metrics
from reblur_plugin.errors import MetricError
from reblur_plugin.host import get_root_logger
from reblur_plugin.options.reading import OptionError

Options = dict[str, Any]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """BasicSR's logger, whose lines others don't see otherwise."""
    monkeypatch.setattr(get_root_logger(), "propagate", True)
    return caplog


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


class TestDevices:
    def test_one_process_uses_one_gpu_at_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for wanted, available, used in [("auto", 0, 0), (0, 4, 0), (1, 4, 1), ("auto", 1, 1), ("auto", 4, 1)]:
            gpus(monkeypatch, available)
            expected = {"dist": False, "num_gpu": used, "rank": 0, "world_size": 1}
            assert processes.join({"num_gpu": wanted}, "none", "train") == expected

    def test_convolutions_are_chosen_by_trial_as_in_basicsr(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        prepare(tiny_options, tmp_path, is_train=True)
        assert torch.backends.cudnn.benchmark is True

    def test_more_than_there_are_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus(monkeypatch, 2)
        with pytest.raises(OptionError, match=r"num_gpu: expected at most 2 \(what this machine has\), got 4; use aut"):
            processes.join({"num_gpu": 4}, "none", "train")

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
        prepare({**tiny_options, "num_gpu": "auto"}, tmp_path, is_train)
        assert [record.getMessage() for record in log.records if record.levelno == logging.WARNING] == [
            f"num_gpu: one of 4 GPUs is used; all: torchrun --nproc_per_node 4 -m reblur_plugin.{program} -opt FILE"
        ]

    def test_a_gpu_that_pytorch_cannot_use_leaves_the_cpu_with_a_word(
        self, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # an old driver
        assert processes.join({"num_gpu": "auto"}, "none", "train")["num_gpu"] == 0
        assert "a GPU that PyTorch can't use, so the CPU computes; update its driver" in log.text
        with pytest.raises(
            OptionError, match=r"num_gpu: expected at most 0 \(what this machine has\), got 1; use auto"
        ):
            processes.join({"num_gpu": 1}, "none", "train")

    def test_who_asks_for_one_or_none_is_told_nothing(
        self, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
    ) -> None:
        gpus(monkeypatch, 4)
        for wanted in (1, 0):
            processes.join({"num_gpu": wanted}, "none", "train")
        assert [record for record in log.records if record.levelno == logging.WARNING] == []

    @pytest.mark.parametrize(
        ("wanted", "available", "has_nccl", "backend", "used"),
        [
            (0, 4, True, "gloo", 0),
            ("auto", 4, True, "nccl", 4),
            ("auto", 4, False, "gloo", 4),
            ("auto", 0, True, "gloo", 0),
            (8, 1, True, "nccl", 1),
        ],
        ids=["CPU beside GPUs", "GPUs", "GPUs under Windows", "no GPU", "srun shows each process one"],
    )
    def test_the_processes_meet_by_what_their_device_and_system_have(
        self,
        monkeypatch: pytest.MonkeyPatch,
        wanted: int | str,
        available: int,
        has_nccl: bool,
        backend: str,
        used: int,
    ) -> None:
        met, devices = [], []
        gpus(monkeypatch, available)
        monkeypatch.setattr(torch.cuda, "set_device", devices.append)
        monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, timeout: met.append(name))
        monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: has_nccl)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 8)
        monkeypatch.setenv("RANK", "3")
        monkeypatch.setenv("LOCAL_RANK", "3")
        found = processes.join({"num_gpu": wanted}, "pytorch", "train")
        assert (met, found) == ([backend], {"dist": True, "num_gpu": used, "rank": 3, "world_size": 8})
        assert devices == ([3 % available] if used else [])

    def test_what_is_to_be_stored_holds_every_value_and_counts_iterations(
        self, tmp_path: Path, tiny_options: Options
    ) -> None:
        del tiny_options["train"]["total_iter"], tiny_options["manual_seed"], tiny_options["val"]["save_img"]
        tiny_options["train"] |= {"total_epoch": 3, "scheduler": {"milestones": ["50%"]}}
        opt, datasets = prepare(tiny_options, tmp_path, is_train=True)
        # 4 images in batches of 2
        assert (opt["train"]["total_iter"], opt["train"]["scheduler"]["milestones"]) == (6, [3])
        assert opt["resolved"]["train"] == opt["train"]
        assert (opt["resolved"]["manual_seed"], opt["resolved"]["val"]["save_img"]) == (0, False)
        assert {name: len(dataset) for name, dataset in datasets.items()} == {"train": 4, "val": 2}
        assert opt["data_fingerprint"] == datasets["train"].fingerprint()
        assert [path.name for path in tmp_path.iterdir()] == ["data"]

    def test_a_test_needs_no_training_data(self, tmp_path: Path, tiny_options: Options) -> None:
        tiny_options["datasets"]["train"]["dataroot"] = "none"
        opt, datasets = prepare(tiny_options, tmp_path, is_train=False)
        assert list(datasets) == ["val"]
        assert opt["val"]["suffix"] is None

    def test_fp16_on_a_cpu_is_warned_of(
        self, tmp_path: Path, tiny_options: Options, log: pytest.LogCaptureFixture
    ) -> None:
        tiny_options["train"]["amp"] = "fp16"
        prepare(tiny_options, tmp_path, is_train=True)
        assert "train: amp: fp16 is far slower than float32 on a CPU; use auto, or leave it out" in log.text


class TestPyTorchWithoutProcesses:
    """Built so that `torch.distributed` holds little more than `is_available`."""

    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.distributed, "is_available", lambda: False)
        monkeypatch.delattr(torch.distributed, "is_initialized")

    def test_a_launcher_is_refused(self) -> None:
        with pytest.raises(OptionError, match="--launcher: expected a PyTorch that knows several processes, got one"):
            processes.join({"num_gpu": 0}, "pytorch", "train")

    def test_one_process_has_nothing_to_leave(self) -> None:
        processes.leave()


class TestSlurm:
    def test_its_numbers_become_torchruns(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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
        processes.slurm_to_torchrun()
        found = [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")]
        assert found == ["5", "8", "1", "node3", "29500"]

    def test_without_srun_the_missing_number_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SLURM_NODELIST", raising=False)
        with pytest.raises(OptionError, match="--launcher slurm: SLURM_NODELIST isn't set; start with srun"):
            processes.slurm_to_torchrun()


def test_torchrun_is_asked_for_when_its_numbers_are_missing(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(OptionError, match="--launcher pytorch: expected to be started by torchrun"):
        prepare(tiny_options, tmp_path, is_train=True, launcher="pytorch")


class Images(list[dict[str, Any]]):
    """Stands in for a data set of one grey image."""

    def __init__(self, name: str, with_sharp: bool = True) -> None:
        sharp = {"gt": torch.full((3, 16, 24), 0.8)} if with_sharp else {}
        super().__init__([{"lq_path": "0.png", "lq": torch.full((3, 16, 24), 0.2), **sharp}])
        self.opt = {"name": name}


class TestTrial:
    @pytest.fixture
    def train(self) -> dict[str, Any]:
        reblur_plugin.register()
        return {
            "is_train": True,
            "datasets": {name: {"name": name, "phase": "val"} for name in ("first", "second")},
            "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
        }

    def test_a_first_set_without_sharp_images_cant_choose_by_psnr(self, train: dict[str, Any]) -> None:
        train["val"]["best"] = "psnr"
        with pytest.raises(MetricError, match="val: best: psnr needs sharp images, and first, the first validation"):
            try_metrics(Images("first", with_sharp=False), train)
        try_metrics(Images("second", with_sharp=False), train)
        train["val"] |= {"best": "niqe", "metrics": {"niqe": {"type": "reblur_niqe"}}}
        try_metrics(Images("first", with_sharp=False), train)

    def test_options_stay_as_they_are(self, train: dict[str, Any]) -> None:
        try_metrics(Images("first"), train)
        assert train["val"]["metrics"] == {"psnr": {"type": "calculate_psnr", "crop_border": 0}}
