"""Augmentation on the device against the workers': the same chance gives the same patches, here on the CPU."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from reblur_plugin.data.batch_augment import augment_batch
from reblur_plugin.data.images import ImageError
from reblur_plugin.data.layouts import DatasetError
from reblur_plugin.data.pair_dataset import DeblurPairDataset, Draw, DrawSampler

HSV_ROUNDING = 2e-6  # OpenCV goes to HSV and back in float32, the device takes the short way


@pytest.fixture
def root(tmp_path: Path, rng: np.random.Generator) -> Path:
    for frame in range(4):
        for kind in ("blur_gamma", "sharp"):
            path = tmp_path / "A" / kind / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            pixels[:4] = pixels[:4, :, :1]  # grey: no saturation to multiply
            pixels[4:6] = 0
            Image.fromarray(pixels).save(path)
    return tmp_path


def batches(root: Path, place: str, augment: str, count: int = 6) -> list[dict[str, Any]]:
    block = {"phase": "train", "dataroot": str(root), "gt_size": 16, "seed": 3, "augment": augment}
    dataset = DeblurPairDataset(block | {"augment_on": place})
    return list(islice(DataLoader(dataset, 4, sampler=DrawSampler(len(dataset), 0)), count))


@pytest.mark.parametrize("augment", ["nah", "flip", "none"])
def test_the_device_makes_the_workers_patches(root: Path, augment: str) -> None:
    tolerance = HSV_ROUNDING if augment == "nah" else 0
    for expected, raw in zip(batches(root, "worker", augment), batches(root, "device", augment), strict=True):
        assert raw["lq"].dtype == raw["gt"].dtype == torch.uint8
        found = augment_batch(raw, augment)
        assert found.keys() == expected.keys()
        assert found["name"] == expected["name"]
        for key in ("lq", "gt"):
            torch.testing.assert_close(found[key], expected[key], rtol=0, atol=tolerance)


def test_batches_without_chances_stay_as_they_are() -> None:
    batch = {"lq": torch.zeros(1, 3, 4, 4)}
    assert augment_batch(batch, "nah") is batch


def test_the_seed_decides(root: Path) -> None:
    first, again = (augment_batch(batches(root, "device", "nah", 1)[0], "nah") for _ in range(2))
    assert torch.equal(first["lq"], again["lq"])


def test_sixteen_bits_are_refused(root: Path) -> None:
    Image.fromarray(np.zeros((20, 24), dtype=np.uint16)).save(root / "A" / "sharp" / "0.png")
    block = {"phase": "train", "dataroot": str(root), "gt_size": 16, "augment_on": "device"}
    with pytest.raises(
        ImageError, match=r"0\.png: augment_on: device takes 8 bits a channel, got 16; set it to worker"
    ):
        DeblurPairDataset(block)[Draw(0, 0)]


def test_another_place_is_refused(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"augment_on: expected worker or device, got 'gpu'"):
        DeblurPairDataset({"phase": "val", "dataroot": str(root), "augment_on": "gpu"})
