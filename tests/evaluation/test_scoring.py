"""Metrics of several pictures: in batches as one by one by their references. The GPU's way runs on the CPU here."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch

import reblur_plugin
from reblur_plugin.evaluation import scoring
from reblur_plugin.evaluation.scoring import Pair, scored
from reblur_plugin.metrics import lpips_metric, on_device
from reblur_plugin.metrics.niqe_metric import reblur_niqe

reblur_plugin.register()

METRICS: dict[str, dict[str, Any]] = {
    "psnr": {"type": "calculate_psnr", "crop_border": 2, "better": "higher"},
    "ssim": {"type": "reblur_ssim", "crop_border": 3, "better": "higher"},
    "lpips": {"type": "reblur_lpips", "crop_border": 1, "net": "squeeze", "better": "lower"},
}


@pytest.fixture
def pairs(rng: np.random.Generator) -> list[Pair]:
    sharp = rng.integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)
    return [Pair((image // (2 + i) + 9).astype(np.uint8), image) for i, image in enumerate(sharp)]


@pytest.fixture(autouse=True)
def distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS with random weights instead of a download."""
    torch.manual_seed(3)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="squeeze", pnet_rand=True).eval()
    monkeypatch.setattr(lpips_metric, "load_lpips", lambda net, weights: {"squeeze": network}[net])


@pytest.fixture
def references(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take the GPU's way; return the metrics that their references compute nevertheless, one entry a picture."""
    called: list[str] = []
    reference = scoring.calculate_metric

    def counted(data: dict[str, Any], options: dict[str, Any]) -> Any:
        called.append(options["type"])
        return reference(data, options)

    monkeypatch.setattr(scoring, "_is_fast", lambda device: True)
    monkeypatch.setattr(scoring, "calculate_metric", counted)
    return called


def one_by_one(pairs: list[Pair], metrics: dict[str, dict[str, Any]]) -> list[dict[str, float]]:
    """Return what BasicSR's call gives for each, BGR as it wants them."""
    from basicsr.metrics import calculate_metric

    return [
        {
            name: calculate_metric({"img": pair.image[..., ::-1], "img2": pair.reference[..., ::-1]}, options)
            for name, options in metrics.items()
        }
        for pair in pairs
    ]


class TestInBatches:
    def test_each_picture_has_its_references_values(self, pairs: list[Pair], references: list[str]) -> None:
        expected = one_by_one(pairs, METRICS)
        found = scored(pairs, METRICS)
        assert references == []
        for values, wanted in zip(found, expected, strict=True):
            assert values == pytest.approx(wanted, rel=1e-5)
            assert list(values) == list(METRICS)
        assert len({round(values[name], 4) for values in found for name in METRICS}) == 9

    @pytest.mark.parametrize(("pixels", "sizes"), [(3 * 40 * 52, [3]), (2 * 40 * 52, [2, 1]), (1, [1, 1, 1])])
    def test_large_pictures_come_in_smaller_batches(
        self, pairs: list[Pair], references: list[str], monkeypatch: pytest.MonkeyPatch, pixels: int, sizes: list[int]
    ) -> None:
        found = []
        psnr = on_device.psnr
        monkeypatch.setattr(on_device, "psnr", lambda *images: (found.append(len(images[0])), psnr(*images))[1])
        monkeypatch.setattr(on_device, "_AT_ONCE", pixels)
        (expected, *others), metrics = one_by_one(pairs, METRICS), {"psnr": METRICS["psnr"]}
        values = scored(pairs, metrics)
        assert found == sizes
        assert [value["psnr"] for value in values] == pytest.approx([value["psnr"] for value in (expected, *others)])

    def test_what_only_the_reference_knows_is_left_to_it(self, pairs: list[Pair], references: list[str]) -> None:
        metrics = {"psnr": METRICS["psnr"] | {"test_y_channel": True}}
        assert scored(pairs, metrics) == one_by_one(pairs, metrics)
        assert references == ["calculate_psnr"] * 3

    def test_pictures_of_several_sizes_are_left_to_it(self, pairs: list[Pair], references: list[str]) -> None:
        mixed = [pairs[0], Pair(pairs[1].image[:-1], pairs[1].reference[:-1])]
        assert scored(mixed, METRICS) == one_by_one(mixed, METRICS)
        assert references == ["calculate_psnr"] * 2 + ["reblur_ssim"] * 2 + ["reblur_lpips"] * 2

    def test_pictures_too_small_have_nan_and_the_references_warning(
        self, pairs: list[Pair], references: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        small = [Pair(pair.image[:16], pair.reference[:16]) for pair in pairs]
        for values in scored(small, METRICS):
            assert math.isnan(values["ssim"])
            assert math.isnan(values["lpips"])
        assert references == ["reblur_ssim"] * 3 + ["reblur_lpips"] * 3
        assert "SSIM: expected at least 11x11 pixels" in caplog.text

    def test_pictures_without_reference_have_the_metrics_that_need_none(
        self, pairs: list[Pair], references: list[str]
    ) -> None:
        alone = [pairs[0], Pair(pairs[1].image, None), pairs[2]]
        first, second, third = scored(alone, METRICS | {"niqe": {"type": "reblur_niqe"}})
        assert set(second) == {"niqe"}
        assert (first["psnr"], third["psnr"]) == pytest.approx(
            [values["psnr"] for values in one_by_one([pairs[0], pairs[2]], METRICS)]
        )
        assert references == ["reblur_niqe"] * 3  # they are smaller than two of its blocks

    def test_niqe_needs_no_sharp_images(self, references: list[str], rng: np.random.Generator) -> None:
        """Pictures with and without reference are one batch; a border is left out."""
        images = [cv2.blur(rng.integers(0, 256, (100, 200, 3), dtype=np.uint8), (3, 3)) for _ in range(3)]
        metrics = {"niqe": {"type": "reblur_niqe", "crop_border": 2}}
        found = scored([Pair(images[0], images[1]), Pair(images[1], None), Pair(images[2], None)], metrics)
        assert references == []
        expected = [reblur_niqe(image[..., ::-1], crop_border=2) for image in images]
        assert [values["niqe"] for values in found] == pytest.approx(expected, abs=1e-4)
        assert len({round(value, 3) for value in expected}) == 3

    def test_a_flat_picture_has_nan_and_niqes_warning(
        self, references: list[str], rng: np.random.Generator, caplog: pytest.LogCaptureFixture
    ) -> None:
        textured = rng.integers(0, 256, (96, 192, 3), dtype=np.uint8)
        pairs = [Pair(textured, None), Pair(np.zeros_like(textured), None)]
        first, second = scored(pairs, {"niqe": {"type": "reblur_niqe"}})
        assert first["niqe"] == pytest.approx(reblur_niqe(textured[..., ::-1]))
        assert math.isnan(second["niqe"])
        assert references == ["reblur_niqe"] * 2
        assert "no texture to measure" in caplog.text


def test_gpus_are_what_is_fast() -> None:
    assert [scoring._is_fast(torch.device(name)) for name in ("cuda", "cuda:1", "cpu")] == [True, True, False]


def test_on_a_cpu_the_references_compute(pairs: list[Pair]) -> None:
    assert scored(pairs, METRICS, torch.device("cpu")) == one_by_one(pairs, METRICS)
