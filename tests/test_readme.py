"""What the README shows runs as it stands."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.options import checks, reading

_README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```(\w+)\n(.*?)```", _README, re.DOTALL)


def block(language: str, containing: str) -> str:
    (text,) = (text for kind, text in _BLOCKS if kind == language and containing in text)
    return text


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_the_script_for_a_basicsr_project_trains(tmp_path: Path, tiny_options: dict[str, Any]) -> None:
    tiny_options["path"]["resume_state"] = None
    (tmp_path / "o.yml").write_text(yaml.safe_dump(tiny_options))
    done = run(block("python", "train_pipeline"), tmp_path, "-opt", "o.yml")
    assert done.returncode == 0, done.stderr
    deblur_net, reblur_net = reblur_plugin.load(tmp_path / "experiments" / "tiny" / "models" / "net_g_latest.pth")
    assert (type(deblur_net).__name__, type(reblur_net).__name__) == ("ResUNet", "ReblurNet")


def test_the_block_for_srmodel_trains(tmp_path: Path, tiny_options: dict[str, Any]) -> None:
    checkpoints.save({"params": ReblurNet(num_blocks=2).state_dict()}, tmp_path / "net_r.pth")
    train = {key: tiny_options["train"][key] for key in ("total_iter", "optim_g", "scheduler")}
    stock = {**tiny_options, "model_type": "SRModel", "path": {"resume_state": None}}
    stock["train"] = train | yaml.safe_load(block("yaml", "FrozenReblurLoss"))["train"]
    stock["datasets"] = {"train": stock["datasets"]["train"]}
    del stock["network_r"], stock["val"]
    (tmp_path / "o.yml").write_text(yaml.safe_dump(stock))
    done = run(block("python", "train_pipeline"), tmp_path, "-opt", "o.yml")
    assert done.returncode == 0, done.stderr
    assert "l_percep" in done.stderr


def test_the_lines_that_adapt_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    networks = """
import torch
deblur_net, reblur_net = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
blurry = torch.rand(1, 3, 8, 8)
"""
    (tmp_path / "script.py").write_text(networks + block("python", "reblur_plugin.adapt"), encoding="utf-8")
    runpy.run_path(str(tmp_path / "script.py"))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list("012345")


def test_the_loop_of_ones_own_trains(tmp_path: Path) -> None:
    networks = """
import torch
deblur_net, reblur_net = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
before = [network.weight.detach().clone() for network in (deblur_net, reblur_net)]
batches = [(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))] * 2
"""
    (tmp_path / "script.py").write_text(networks + block("python", "JointStep"), encoding="utf-8")
    end = runpy.run_path(str(tmp_path / "script.py"))
    assert set(end["losses"]) == {"l_blur", "rho", "l_sharp", "l_1", "l_reblur"}
    for network, weight in zip((end["deblur_net"], end["reblur_net"]), end["before"], strict=True):
        assert not network.weight.equal(weight)


def test_every_option_file_that_it_names_exists(root: Path) -> None:
    named = set(re.findall(r"options/(\w+)\.yml", _README)) | set(re.findall(r"`((?:gopro|reds)_\w+)`", _README))
    for pattern in re.findall(r"`(gopro_\w+_\{n1,n2\}_tta)`", _README):
        named |= {pattern.replace("{n1,n2}", blocks) for blocks in ("n1", "n2")}
    assert len(named) > 15
    assert [name for name in sorted(named) if not (root / "options" / f"{name}.yml").is_file()] == []


def test_its_commands_name_files_that_pass_the_check(root: Path) -> None:
    lines = [line for _, text in _BLOCKS for line in text.splitlines() if "-opt options/" in line]
    assert lines
    failures = []
    for line in lines:
        file = re.search(r"-opt (options/\w+\.yml)", line)
        assert file is not None
        read = reading.read(root / file[1])
        read["path"] = {}
        failures += [f"{line}: {found}" for found in checks.problems(read, is_train="reblur_plugin.train" in line)]
    assert failures == []
