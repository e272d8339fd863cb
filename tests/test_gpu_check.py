"""scripts/gpu_check.sh and gpu_check.py, which wait for a GPU, go on working: here they run on a CPU."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks import __main__ as benchmarks
from benchmarks import measure, step, tta
from reblur_plugin import cli, deblur, registration
from reblur_plugin.options import checks, components, reading

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
_LONG = 900  # seconds: for something that hangs, never for something slow


def test_all_checks_hold_on_a_cpu(tmp_path: Path) -> None:
    out, crops = tmp_path / "check.json", tmp_path / "crops"
    command = [sys.executable, SCRIPTS / "gpu_check.py", "cpu", out, tmp_path / "no pairs", crops, "--tiny"]
    path = os.pathsep.join([str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=_LONG)
    found: dict[str, Any] = json.loads(out.read_text())
    assert found.pop("machine")["device"] == "CPU"
    assert {name: row["broken"] for name, row in found.items() if row["broken"] or not row["found"]} == {}
    assert done.returncode == 0, done.stderr
    assert len(found) == done.stdout.count("ok ") == 11
    assert len(list((crops / "train").rglob("*.png"))) >= 2 * 16  # a batch of pairs


@pytest.fixture
def checks_of_two(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with two checks in the place of its own: one stops, one finds something wrong."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPTS / "gpu_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_check", module)
    spec.loader.exec_module(module)
    for name in [name for name in vars(module) if name.startswith("check_")]:
        delattr(module, name)

    def check_a(at: Any) -> None:
        raise ValueError("no")

    def check_b(at: Any) -> None:
        at.note("far", 3.0, holds=False)
        at.note("near", 0.0)

    vars(module).update(check_a=check_a, check_b=check_b)
    monkeypatch.setattr(logging, "disable", lambda level: None)
    return module


def test_what_does_not_hold_is_named_and_the_next_check_runs(
    checks_of_two: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.json"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "cpu", str(out), "no pairs", str(tmp_path), "--tiny"])
    assert checks_of_two.main() == 1
    found = json.loads(out.read_text())
    assert found["check_a"]["broken"][0].startswith("ValueError: no: Traceback")
    assert found["check_b"]["broken"] == ["far: 3.0"]
    assert found["check_b"]["found"] == {"far": 3.0, "near": 0.0}
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()] == [
        ["BROKEN", "check_a"],
        ["BROKEN", "check_b"],
    ]


PARTS = ["tests", "check", "train_bf16", "resume_bf16", "step", "tta", "train_fp16", "train_fp32"]
PARTS += ["test_tta", "deblur", "compile"]
# Writes each call's words down, apart by a character that none of them has.
RECORDER = "#!/usr/bin/env bash\nIFS=$'\\x1f'\nprintf '%s\\n' \"$*\" >>\"$CALLS\"\n"


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, list[list[str]]]:
    """What gpu_check.sh runs on a GPU: words behind the module or script, by its name."""
    python = tmp_path / "python"
    python.write_text(RECORDER)
    python.chmod(0o755)
    places = {"OUT": tmp_path / "out", "WORK": tmp_path / "work", "PYTHON": python, "CALLS": tmp_path / "calls"}
    kept = {name: value for name, value in os.environ.items() if name not in ("PARTS", "TINY")}
    done = subprocess.run(
        [SCRIPTS / "gpu_check.sh", "cuda:0", "9999"],
        env=kept | {name: str(value) for name, value in places.items()},
        capture_output=True,
        text=True,
        timeout=_LONG,
    )
    assert done.returncode == 0, done.stderr
    summary = (tmp_path / "out" / "summary.txt").read_text()
    assert len(PARTS) == summary.count("exit 0")
    assert [line.partition(":")[0] for line in summary.splitlines()] == PARTS
    found: dict[str, list[list[str]]] = {}
    for line in (tmp_path / "calls").read_text().splitlines():
        words = line.split("\x1f")
        if words[0] != "-c":
            name, *words = words[1:] if words[0] == "-m" else words
            found.setdefault(Path(name).name, []).append(words)
    return found


def problems(words: list[str], is_train: bool) -> list[str]:
    parser = cli.parser("train", "", "")
    parser.add_argument("--auto_resume", action="store_true")
    arguments = parser.parse_args(words)
    options = reading.override(reading.read(arguments.opt), arguments.force_yml)
    return checks.problems(options, is_train) + components.problems(options)


def forms(words: list[str]) -> set[str]:
    """Return the names of the forms that a benchmark measures; an unknown one is an error."""
    arguments: argparse.Namespace = benchmarks.parse(words)
    gpu = torch.device("cuda")
    known: Any = step._forms(arguments, gpu) if arguments.command == "step" else tta._forms(gpu)
    return set(measure.chosen({form.name: form for form in known}, arguments.forms))


def test_the_commands_for_a_gpu_are_in_order(
    commands: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    monkeypatch.setattr(tta, "has_fast_bf16", lambda device: True)
    assert [problems(words, is_train=True) for words in commands["reblur_plugin.train"]] == [[]] * 4
    (words,) = commands["reblur_plugin.test"]
    missing = problems(words, is_train=False)
    assert [line.partition(": no such file ")[0] for line in missing] == [
        f"path: pretrain_network_{label}" for label in "gr"
    ]
    assert [len(forms(words)) for words in commands["benchmarks"]] == [5, 4, 2]  # those named, and the plain one
    (words,) = commands["reblur_plugin.deblur"]
    assert deblur._parser().parse_args(words).steps == 2
    (words,) = commands["pytest"]
    assert Path(words[-1]).is_dir()
    assert [words[0] for words in commands["gpu_check.py"]] == ["cuda:0"]
