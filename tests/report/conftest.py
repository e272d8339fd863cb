"""Small runs to report on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import reblur_plugin
from reblur_plugin.evaluation import records
from reblur_plugin.evaluation.journal import Entry
from reblur_plugin.evaluation.scores import TraceRow

STAGES = ("deblurred", "adapted_1", "adapted")
METRICS = {
    "lpips": {"metric": "LPIPS", "form": "AlexNet, v0.1", "better": "lower"},
    "psnr": {"metric": "PSNR", "form": "RGB, 8 bits", "better": "higher"},
}
MakeRun = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    reblur_plugin.register()


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Return what writes a run of synthetic pictures: each stage is a less blurred one."""

    def make(
        folder: Path,
        name: str,
        images: int = 3,
        height: int = 72,
        width: int = 128,
        shift: float = 0.0,
        sequence: str = "SEQ",
    ) -> Path:
        entries = []
        data = folder.parent / "data"
        for number in range(images):
            image = f"{sequence}_{number % 2}/{number:06d}"
            sharp = _picture(number, height, width)
            files = {"sharp": data / f"{number}_sharp.png", "blurry": data / f"{number}_blurry.png"}
            for kind, blur in (("sharp", 1), ("blurry", 9)):
                _write(files[kind], cv2.blur(sharp, (blur, blur)))
            pictures, scores = {}, {"blurry": {"lpips": 0.5 + number / 100, "psnr": 20.0 + number}}
            for step, stage in enumerate(STAGES):
                path = folder / "visualization" / f"{number}_{stage}.png"
                _write(path, cv2.blur(sharp, (7 - 2 * step, 1)))
                pictures[stage] = path.relative_to(folder).as_posix()
                change = 0.01 * step * (1 if number == 1 else -1)  # adaptation harms the second image
                scores[stage] = {"lpips": 0.3 + number / 100 + change, "psnr": 25.0 + number - 0.1 * step + shift}
            trace = [TraceRow(step, stage, 0.1, 0.2, 0.3) for step, stage in enumerate(STAGES)]
            pixels = {"sharp": f"s{number}", "blurry": f"b{number}"}
            entries.append(
                Entry(number, image, scores, trace, None, pictures, str(files["blurry"]), str(files["sharp"]), pixels)
            )
        head: dict[str, Any] = {"run": name, "program": "test", "datasets": ["set"], "metrics": METRICS}
        head |= {"blur_kinds": {"set": "blur_gamma"}, "checkpoints": {"pretrain_network_g": "ab" * 8}}
        records.write(folder, name, records.records_of(name, "set", entries, head), head)
        return folder

    return make


def _picture(number: int, height: int, width: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(number)
    grain = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, picture: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
