"""The command `photograph`: `reblur_plugin.deblur` on one photograph, in each precision, within a bound and without."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks import measure
from benchmarks.report import BenchError, Case, Results, Row
from reblur_plugin.core.device import device_named
from reblur_plugin.data.images import read_image, write_image

_FORMS = {
    "float32": (),
    "bf16": ("--amp", "bf16"),
    "float32, 4 GiB": ("--max-memory", "4G"),
    "bf16, 4 GiB": ("--amp", "bf16", "--max-memory", "4G"),
}


def run(arguments: argparse.Namespace) -> Results:
    """Measure whole runs of the command, its start included: seconds by the clock, resident memory at most."""
    device = device_named(arguments.device)
    cases = []
    for width, height in [(64, 48)] if arguments.quick else arguments.sizes or [(1280, 720), (4000, 3000)]:
        with tempfile.TemporaryDirectory() as temporary:
            cases.append(_measured(Path(temporary), width, height, arguments))
    notes = ["difference: mean grey levels from the float32 result; a photograph of smoothed noise"]
    return Results("one photograph", measure.machine(device), cases, notes)


def _measured(folder: Path, width: int, height: int, arguments: argparse.Namespace) -> Case:
    grain = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    write_image(folder / "photo.png", cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC))
    forms = measure.chosen(_FORMS, arguments.forms)
    common = ["--weights", arguments.weights, "--steps", str(arguments.steps), "--device", arguments.device]
    rows = {name: Row(name, []) for name in forms}
    for _ in range(arguments.repeats):
        for name, words in forms.items():
            seconds, peak = _once(folder, name, [*words, *common])
            rows[name].seconds.append(seconds)
            rows[name].peak_bytes = max(rows[name].peak_bytes or 0, peak)
    reference = next(iter(rows))
    images = {name: 255 * read_image(folder / name / "photo.png") for name in rows}
    for name, row in rows.items():
        row.values["difference"] = float(np.abs(images[name] - images[reference]).mean())
    settings = {"size": f"{width}x{height}", "weights": arguments.weights, "steps": arguments.steps}
    return Case("deblur", reference, list(rows.values()), settings)


def _once(folder: Path, name: str, words: list[str]) -> tuple[float, int]:
    """Return the seconds and the resident bytes at most of one run."""
    command = [sys.executable, "-m", "reblur_plugin.deblur", "photo.png", "-o", name, "--overwrite", *words]
    paths = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"deblur: {said.strip().splitlines()[-1]}")
    return time.perf_counter() - started, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
