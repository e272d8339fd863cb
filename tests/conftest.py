"""What several tests share: the real data, tiny option files, tiny images."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reblur_plugin.data.images import write_image

_ROOT = Path(__file__).resolve().parent.parent
_SHARED = Path(os.environ.get("REBLUR_SHARED", _ROOT.parent / "shared"))


@pytest.fixture(autouse=True)
def fixed_chance() -> None:
    """Every test sees the same random numbers, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """BasicSR's log writes to the stream of the moment, which pytest closes after the test."""
    logger = logging.getLogger("basicsr")
    before = logger.handlers[:]
    yield
    for handler in [handler for handler in logger.handlers if handler not in before]:
        logger.removeHandler(handler)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root."""
    return _ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real GOPRO and REDS samples and official weights, where they are at hand."""
    if not (_SHARED / "data").is_dir():
        pytest.skip("no real data at ../shared or REBLUR_SHARED")
    return _SHARED


@pytest.fixture
def bf16_units(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Makes this machine's processor one with instructions for bf16, or without."""

    def have(them: bool) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "x86_64")
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: them, raising=False)

    return have


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def tiny_data(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A data set in GOPRO_Large's layout: 2 sequences of 2 pairs to train with, 2 of 1 pair to test with; 40x32."""
    for split, frames in (("train", 2), ("test", 1)):
        for sequence in ("SEQ_A", "SEQ_B"):
            for frame in range(frames):
                sharp = rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)
                blurry = (sharp // 2 + np.roll(sharp, 1, axis=1) // 2).astype(np.uint8)
                for kind, pixels in (("blur_gamma", blurry), ("sharp", sharp)):
                    write_image(tmp_path / "data" / split / sequence / kind / f"{frame:06d}.png", pixels)
    return tmp_path / "data"


@pytest.fixture
def tiny_options(tiny_data: Path) -> dict[str, Any]:
    """Options that train a tiny U-Net and M_R for two iterations."""
    dataset = {"type": "DeblurPairDataset", "layout": "gopro"}
    return {
        "name": "tiny",
        "model_type": "ReblurModel",
        "manual_seed": 0,
        "num_gpu": 0,
        "scale": 1,
        "datasets": {
            "train": {
                **dataset,
                "name": "tiny_train",
                "dataroot": str(tiny_data / "train"),
                "gt_size": 16,
                "batch_size_per_gpu": 2,
                "num_worker_per_gpu": 0,
            },
            "val": {**dataset, "name": "tiny_val", "dataroot": str(tiny_data / "test")},
        },
        "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
        "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
        "path": {},
        "train": {
            "total_iter": 2,
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "optim_r": {"type": "Adam", "lr": 2e-3},
            "scheduler": {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {"loss_weight": 1.0},
        },
        "val": {
            "val_freq": 2,
            "save_img": True,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0, "better": "higher"}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }


@pytest.fixture
def minimal_options() -> dict[str, Any]:
    """Return the fewest options that are in order for training and for test."""
    return {
        "name": "a",
        "model_type": "ReblurModel",
        "datasets": {"train": {"type": "DeblurPairDataset", "batch_size_per_gpu": 2}},
        "network_g": {"type": "SRN"},
        "path": {},
        "train": {"total_iter": 10},
        "val": {"val_freq": 5, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 5},
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium: REBLUR_CHROMIUM, an installed one, or the one that scripts/chromium.sh has fetched."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("REBLUR_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("needs a Chromium: REBLUR_CHROMIUM=$(scripts/chromium.sh)")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()
