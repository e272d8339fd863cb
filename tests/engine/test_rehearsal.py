"""The rehearsal tells what a training will take, and writes nothing."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reblur_plugin import check, cli
from reblur_plugin.engine import rehearsal, training
from reblur_plugin.engine.rehearsal import rehearse
from reblur_plugin.errors import ReblurError
from reblur_plugin.models.reblur_model import ReblurModel


class Clock:
    """Stands in for `time`; goes on while functions run that take a known time."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def taking(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self.now += seconds
            return function(*arguments)

        return timed


def test_it_tells_sizes_plan_memory_and_time(tmp_path: Path, tiny_options: dict[str, Any]) -> None:
    before = sorted(tmp_path.rglob("*"))
    del tiny_options["train"]["total_iter"]
    tiny_options["train"] |= {"total_epoch": 5, "scheduler": {"milestones": ["50%", "90%"], "gamma": 0.1}}
    report = dict(line.split(": ", 1) for line in rehearse(tiny_options, tmp_path))
    assert report["data"].startswith("4 training images, 2 a batch, 2 iterations an epoch: 10 iterations = 5.0 epochs")
    # 1x1 stages of 4 channels: 5x5x3x4+4, 2 (3x3x4x4+4), 1 block of 2, 2 up (3x3x4x16+16), 5x5x4x3+3
    assert report["net_g"].startswith(f"ResUNet, {304 + 2 * 148 + 2 * 148 + 2 * 592 + 303:,} parameters, ")
    # 5x5x3x4+4, a block of two 5x5x4x4+4, 5x5x4x3+3; multiply-adds: the weights without biases at each of 16x16 pixels
    assert report["net_r"].startswith(f"ReblurNet, {304 + 2 * 404 + 303:,} parameters, 0.00 GMAC at 16x16")
    assert f"{1400 * 720 * 1280 / 1e9:.2f} GMAC at 1280x720" in report["net_r"]
    assert report["learning rate"] == "0.001, 0.0001 from 5, 1e-05 from 9"
    assert re.fullmatch(r"2 images, \d+\.\d{3} s each with all metrics, validated 5 times", report["val"])
    assert float(report["rho"]) > 0
    assert re.fullmatch(r"\d+\.\d\d GiB at most", report["memory"])
    assert re.fullmatch(r"\d+\.\d{3} s an iteration, \d+:\d\d:\d\d in all, validation included", report["time"])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("frequency", "times"), [(20, 5), (30, 4)])
def test_the_time_counts_validation_with_adaptation_and_metrics(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, frequency: int, times: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(rehearsal, "time", clock)
    for name, seconds in (("adapt", 0.375), ("optimize_parameters", 0.25)):
        monkeypatch.setattr(ReblurModel, name, clock.taking(seconds, getattr(ReblurModel, name)))
    tiny_options["train"]["total_iter"] = 100
    tiny_options["val"] |= {"val_freq": frequency, "tta": {"steps": 1, "lr": 1e-4}, "best": "psnr"}
    before = sorted(tmp_path.rglob("*"))
    report = dict(line.split(": ", 1) for line in rehearse(tiny_options, tmp_path))
    assert sorted(tmp_path.rglob("*")) == before  # not even the best networks
    assert report["val"] == f"2 images, 0.375 s each with all metrics, validated {times} times"
    # 100 iterations and two images each time: 25 s + 5 * 0.75 s = 28.75 s, 25 s + 4 * 0.75 s = 28 s
    seconds = {5: 29, 4: 28}[times]
    assert report["time"] == f"0.250 s an iteration, 0:00:{seconds} in all, validation included"


def test_an_image_that_a_worker_cannot_read_is_one_sentence(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 1
    for image in (tmp_path / "data" / "train").rglob("sharp/*.png"):
        image.write_bytes(b"x")
    errors = error_of(tmp_path, tiny_options, monkeypatch, capsys)
    assert re.fullmatch(
        r"error: .*\.png: expected an image, got a damaged or unknown file; unzip or download it again\n", errors
    )


def test_what_a_data_set_cannot_take_is_one_sentence(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_options["datasets"]["val"] = {"type": "PairedImageDataset"}
    errors = error_of(tmp_path, tiny_options, monkeypatch, capsys)
    assert errors.startswith(
        "error: datasets: val: PairedImageDataset can't take these options: KeyError('io_backend')"
    )


def test_numbers_that_are_not_finite_send_nobody_to_a_checkpoint_that_is_not_there(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_options["train"]["optim_g"]["lr"] = 1e30
    errors = error_of(tmp_path, tiny_options, monkeypatch, capsys)
    assert errors.startswith("error: loss: expected finite numbers, got nan or infinity since iteration ")
    assert "resume" not in errors


def test_several_processes_are_refused(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = error_of(tmp_path, tiny_options, monkeypatch, capsys, "--launcher", "pytorch")
    assert errors == "error: --launcher: expected none, got pytorch; a rehearsal is one process\n"


def test_basicsrs_own_models_are_rehearsed_too(tmp_path: Path, tiny_options: dict[str, Any]) -> None:
    tiny_options["model_type"] = "SRModel"
    del tiny_options["network_r"], tiny_options["train"]["optim_r"], tiny_options["train"]["reblur_opt"]
    report = dict(line.split(": ", 1) for line in rehearse(tiny_options, tmp_path))
    assert report["net_g"].startswith("ResUNet")
    assert float(report["l_pix"]) > 0


def error_of(
    folder: Path,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: str,
) -> str:
    """Run the command, which fails and writes nothing; return what it says."""
    (folder / "o.yml").write_text(yaml.safe_dump(options))
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "argv", ["check", "-opt", str(folder / "o.yml"), *arguments])
    assert cli.guarded(check.main) == 1
    assert sorted(folder.rglob("*")) == before
    return capsys.readouterr().err


def test_the_command_prints_it(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o.yml").write_text(yaml.safe_dump(tiny_options))
    monkeypatch.setattr(sys, "argv", ["check", "-opt", str(tmp_path / "o.yml")])
    assert cli.guarded(check.main) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"train: \d+ pairs, .*blur kind blur_gamma, fingerprint ", lines[0])
    assert lines[-1].startswith("time: ")


def test_a_metric_that_fails_shows_before_the_first_iteration(tmp_path: Path, tiny_options: dict[str, Any]) -> None:
    tiny_options["val"]["metrics"]["lpips"] = {"type": "reblur_lpips", "weights": str(tmp_path / "none.pth")}
    tiny_options["datasets"]["val"]["layout"] = "folders"
    folder = tmp_path / "data" / "big"
    tiny_options["datasets"]["val"] |= {"dataroot_lq": str(folder), "dataroot_gt": str(folder)}
    write_photograph(folder / "a.png")
    with pytest.raises(ReblurError, match=r"none\.pth: no such checkpoint"):
        list(rehearse(tiny_options, tmp_path))


def write_photograph(path: Path) -> None:
    import numpy as np

    from reblur_plugin.data.images import write_image

    write_image(path, np.zeros((40, 40, 3), dtype=np.uint8))


def test_a_resumed_training_is_rehearsed_with_its_own_networks(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training.train(copy.deepcopy(tiny_options), tmp_path)
    folder, taken = tmp_path / "experiments" / "tiny", list[str]()
    tiny_options["path"]["resume_state"] = str(folder / "training_states" / "2.state")
    tiny_options["train"]["total_iter"] = 4
    build = rehearsal.build_model
    monkeypatch.setattr(
        rehearsal, "build_model", lambda opt: (taken.append(opt["path"]["pretrain_network_g"]), build(opt))[1]
    )
    lines = list(rehearse(tiny_options, tmp_path))
    assert taken == [str(folder / "models" / "net_g_2.pth")]
    assert any("starting after iteration 2" in line for line in lines)
