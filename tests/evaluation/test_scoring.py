"""Scores of pictures are their references' values; what must show before a run does."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from typing import Any

import lpips
import numpy as np
import pytest
import torch

import reblur_plugin
from reblur_plugin.evaluation import scoring
from reblur_plugin.evaluation.scoring import Scorer
from reblur_plugin.evaluation.values import Measured
from reblur_plugin.metrics import lpips_metric

reblur_plugin.register()

METRICS: dict[str, dict[str, Any]] = {
    "psnr": {"type": "calculate_psnr", "crop_border": 2, "better": "higher"},
    "lpips": {"type": "reblur_lpips", "crop_border": 1, "net": "squeeze", "better": "lower"},
    "ssim": {"type": "reblur_ssim", "crop_border": 3, "better": "higher"},
}


@pytest.fixture
def pairs(rng: np.random.Generator) -> list[Measured]:
    sharp = rng.integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)
    return [Measured((image // (2 + i) + 9).astype(np.uint8), image) for i, image in enumerate(sharp)]


@pytest.fixture(autouse=True)
def distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS with random weights instead of a download."""
    torch.manual_seed(3)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = lpips.LPIPS(net="squeeze", pnet_rand=True).eval()
    monkeypatch.setattr(lpips_metric, "load_lpips", lambda net, weights: {"squeeze": network}[net])


def scored(pairs: list[Measured], metrics: dict[str, dict[str, Any]], device: str = "cpu") -> list[dict[str, float]]:
    with Scorer(metrics, torch.device(device), None, 0) as scorer:
        return [scorer.begin(measured).result() for measured in pairs]


def by_basicsr(pairs: list[Measured], metrics: dict[str, dict[str, Any]]) -> list[dict[str, float]]:
    """Return what BasicSR's call gives for each, BGR as it wants them."""
    from basicsr.metrics import calculate_metric

    return [
        {
            name: calculate_metric({"img": pair.image[..., ::-1], "img2": pair.reference[..., ::-1]}, options)
            for name, options in metrics.items()
        }
        for pair in pairs
    ]


class TestValues:
    def test_are_those_of_basicsrs_call_in_the_order_of_the_options(self, pairs: list[Measured]) -> None:
        found, expected = scored(pairs, METRICS), by_basicsr(pairs, METRICS)
        assert found == expected
        assert [list(values) for values in found] == [list(METRICS)] * 3
        assert len({round(values[name], 4) for values in found for name in METRICS}) == 9

    def test_pictures_too_small_have_nan_and_a_warning(
        self, pairs: list[Measured], caplog: pytest.LogCaptureFixture
    ) -> None:
        (values,) = scored([Measured(pairs[0].image[:16], pairs[0].reference[:16])], METRICS)  # type: ignore[index]
        assert math.isnan(values["ssim"])
        assert math.isnan(values["lpips"])
        assert "SSIM: expected at least 11x11 pixels" in caplog.text
        assert "LPIPS: expected at least 32x32 pixels" in caplog.text

    def test_without_reference_there_are_the_metrics_that_need_none(self, pairs: list[Measured]) -> None:
        (values,) = scored([Measured(pairs[1].image, None)], METRICS | {"niqe": {"type": "reblur_niqe"}})
        assert set(values) == {"niqe"}

    def test_lpips_is_computed_on_the_device(self, pairs: list[Measured], monkeypatch: pytest.MonkeyPatch) -> None:
        devices: list[str] = []

        class Network:
            def to(self, device: torch.device) -> Network:
                devices.append(device.type)
                return self

            def __call__(self, *images: torch.Tensor) -> torch.Tensor:
                devices.extend(image.device.type for image in images)
                return torch.tensor([[[[0.5]]]])

        monkeypatch.setattr(lpips_metric, "load_lpips", lambda net, weights: {"squeeze": Network()}[net])
        assert scored(pairs[:1], {"lpips": METRICS["lpips"]}, "meta") == [{"lpips": 0.5}]
        assert devices == ["meta"] * 3

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
    def test_lpips_of_a_gpu_is_that_of_the_cpu(self, pairs: list[Measured]) -> None:
        metrics = {"lpips": METRICS["lpips"]}
        for found, expected in zip(scored(pairs, metrics, "cuda"), by_basicsr(pairs, metrics), strict=True):
            assert found["lpips"] == pytest.approx(expected["lpips"], rel=1e-5)


class TestWhoComputes:
    """References go to the workers, everything else stays."""

    def test_lpips_and_the_metrics_of_users_stay(self, pairs: list[Measured], monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        class Workers:
            def __init__(self, count: int) -> None:
                asked.append(count)

            def submit(self, image: Any, reference: Any, metrics: Any) -> Any:
                asked.append(sorted(metrics))
                return _future({"psnr": 1.0, "ssim": 2.0})

            def close(self) -> None:
                asked.append("closed")

        monkeypatch.setattr(scoring, "Workers", Workers)
        with Scorer(METRICS, torch.device("cpu"), None, 3) as scorer:
            assert scorer.ahead == 6
            values = scorer.begin(pairs[0]).result()
        assert values == {"psnr": 1.0, "lpips": by_basicsr(pairs[:1], METRICS)[0]["lpips"], "ssim": 2.0}
        assert asked == [3, ["psnr", "ssim"], "closed"]

    def test_without_references_there_are_no_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(scoring, "Workers")
        with Scorer({"lpips": METRICS["lpips"]}, torch.device("cpu"), None, 3) as scorer:
            assert scorer.ahead == 0


def _future(values: dict[str, float]) -> Any:
    from concurrent.futures import Future

    future: Future[Any] = Future()
    future.set_result((values, []))
    return future
