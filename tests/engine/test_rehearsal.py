"""The rehearsal tells what a training will take, and writes nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reblur_plugin import check, cli
from reblur_plugin.engine.rehearsal import rehearse
from reblur_plugin.errors import ReblurError


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
    assert report["val"] == "2 images; all metrics can be computed"
    assert float(report["rho"]) > 0
    assert re.fullmatch(r"\d+\.\d\d GiB at most", report["memory"])
    assert re.fullmatch(r"\d+\.\d{3} s an iteration, \d+:\d\d:\d\d in all", report["time"])
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_prints_it(
    tmp_path: Path, tiny_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "o.yml").write_text(yaml.safe_dump(tiny_options))
    monkeypatch.setattr(sys, "argv", ["check", "-opt", str(tmp_path / "o.yml")])
    assert cli.guarded(check.main) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("time: ")


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
