"""The command `evaluate`: scoring result files by all cores beside BasicSR's functions called in a loop."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks import measure
from benchmarks.report import Case, Results, Row
from reblur_plugin.data.images import write_image
from reblur_plugin.evaluate import chosen_metrics
from reblur_plugin.evaluation.folders import Pool, pool_of
from reblur_plugin.host import registry
from reblur_plugin.registration import register

_METRICS = {
    "niqe": "calculate_niqe",
    "psnr": "calculate_psnr",
    "ssim": "calculate_ssim",
}  # BasicSR has no LPIPS function
_LOOP, _OURS = "BasicSR's functions in a loop", "reblur_plugin.evaluate"
_NOTES = [
    "each form reads the files, which are smoothed noise; by the clock",
    "starting the processes (a few seconds, once) is left out",
]


def run(arguments: argparse.Namespace) -> Results:
    """Measure NIQE, PSNR and SSIM of pairs of files."""
    register()
    width, height = (192, 96) if arguments.quick else (1280, 720)
    count = 2 if arguments.quick else arguments.images
    with tempfile.TemporaryDirectory() as temporary, pool_of(arguments.processes, ["cpu"]) as pool:
        pairs = [_pair(Path(temporary), number, width, height) for number in range(count)]
        _by_pool(pool, pairs[: arguments.processes])  # starts them
        found: dict[str, list[dict[str, float]]] = {}
        forms = {
            _LOOP: lambda: found.update({_LOOP: _by_basicsr(pairs)}),
            _OURS: lambda: found.update({_OURS: _by_pool(pool, pairs)}),
        }
        device = torch.device("cpu")
        seconds = measure.interleaved(forms, arguments.repeats, device)
    rows = [Row(name, times) for name, times in seconds.items()]
    for row in rows:
        row.values["images a second"] = count / sorted(row.seconds)[len(row.seconds) // 2]
    gaps = [
        abs(ours[name] - loop[name]) for ours, loop in zip(found[_OURS], found[_LOOP], strict=True) for name in _METRICS
    ]
    rows[1].values["largest difference"] = max(gaps)
    settings = {"size": f"{width}x{height}", "images": count, "processes": arguments.processes}
    case = Case("NIQE, PSNR and SSIM of files", _LOOP, rows, settings)
    return Results("scoring results", measure.machine(device), [case], _NOTES)


def _pair(folder: Path, number: int, width: int, height: int) -> tuple[Path, Path]:
    rng = np.random.default_rng(number)
    grain = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    sharp: Any = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
    paths = folder / f"{number}_result.png", folder / f"{number}_sharp.png"
    for path, picture in zip(paths, (cv2.blur(sharp, (5, 1)), sharp), strict=True):
        write_image(path, picture)
    return paths


def _by_basicsr(pairs: list[tuple[Path, Path]]) -> list[dict[str, float]]:
    found = []
    for paths in pairs:
        images = dict(zip(("img", "img2"), (cv2.imread(str(path)) for path in paths), strict=True))
        functions = {name: registry.METRIC_REGISTRY.get(kind) for name, kind in _METRICS.items()}
        found.append({name: float(function(**images, crop_border=0)) for name, function in functions.items()})
    return found


def _by_pool(pool: Pool, pairs: list[tuple[Path, Path]]) -> list[dict[str, float]]:
    metrics = chosen_metrics([*_METRICS], [], None)
    return [future.result().values for future in [pool.submit(*pair, metrics) for pair in pairs]]
