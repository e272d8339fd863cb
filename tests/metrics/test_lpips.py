"""LPIPS against numbers that the authors' package gave elsewhere (lpips 0.1.4, net squeeze, v0.1), and its refusals."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import lpips
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.metrics import lpips_metric
from reblur_plugin.metrics.lpips_metric import MetricError, reblur_lpips

LAST_DIGIT = 1e-6  # the reference numbers have six digits; the network runs in float32
PRINTED = 5.1e-5  # four decimals
GREY = np.full((64, 64, 3), 128, dtype=np.uint8)


def read(path: Path) -> NDArray[np.uint8]:
    """Return an image as BasicSR hands it to metrics: BGR."""
    image = cv2.imread(str(path))
    assert image is not None
    return image


@pytest.fixture
def folder(shared: Path) -> Path:
    return shared / "weights" / "lpips_squeeze"


@pytest.fixture
def squeeze(folder: Path) -> dict[str, str]:
    return {"net": "squeeze", "weights": str(folder / "squeeze.backbone.pth")}


@pytest.fixture
def no_models_kept() -> Iterator[None]:
    lpips_metric.load_lpips.cache_clear()
    yield
    lpips_metric.load_lpips.cache_clear()


class TestLpips:
    @pytest.mark.parametrize(("name", "value"), [("ex_p0", 0.711048), ("ex_p1", 0.147902)])
    def test_the_packages_example_has_its_value(
        self, folder: Path, squeeze: dict[str, str], name: str, value: float
    ) -> None:
        images = read(folder / f"{name}.png"), read(folder / "ex_ref.png")
        assert reblur_lpips(*images, **squeeze) == pytest.approx(value, rel=0, abs=LAST_DIGIT)

    @pytest.mark.parametrize(("name", "value"), [("ex_p0", 0.7219), ("ex_p1", 0.1376)])
    def test_the_packages_example_has_the_value_that_its_page_prints_for_alexnet(
        self, shared: Path, folder: Path, name: str, value: float
    ) -> None:
        weights = shared / "weights" / "lpips_alex" / "alex.backbone.pth"
        images = read(folder / f"{name}.png"), read(folder / "ex_ref.png")
        assert reblur_lpips(*images, weights=str(weights)) == pytest.approx(value, rel=0, abs=PRINTED)

    def test_images_are_bgr(self, folder: Path, squeeze: dict[str, str]) -> None:
        images = [read(folder / f"{name}.png")[..., ::-1] for name in ("ex_p0", "ex_ref")]
        assert abs(reblur_lpips(*images, **squeeze) - 0.711048) > 0.01

    def test_a_gopro_frame_deblurred_by_the_official_dmphn_has_its_value(
        self, shared: Path, squeeze: dict[str, str]
    ) -> None:
        deblurred = read(shared / "data" / "dmphn_oracle" / "official_output" / "000001.png")
        sharp = read(shared / "data" / "GOPRO_Large" / "test" / "GOPR0384_11_00" / "sharp" / "000001.png")
        assert reblur_lpips(deblurred, sharp, **squeeze) == pytest.approx(0.115704, rel=0, abs=LAST_DIGIT)

    def test_an_image_is_like_itself(self, folder: Path, squeeze: dict[str, str]) -> None:
        image = read(folder / "ex_ref.png")
        assert reblur_lpips(image, image, **squeeze) == 0

    def test_the_border_is_left_out_at_each_edge(self, squeeze: dict[str, str]) -> None:
        framed = np.zeros_like(GREY)
        framed[5:-5, 5:-5] = 128
        assert reblur_lpips(framed, GREY, crop_border=5, **squeeze) == 0
        assert reblur_lpips(framed, GREY, crop_border=4, **squeeze) > 0.01

    def test_nothing_is_printed(
        self, no_models_kept: None, squeeze: dict[str, str], capfd: pytest.CaptureFixture[str]
    ) -> None:
        reblur_lpips(GREY, GREY, **squeeze)
        assert capfd.readouterr() == ("", "")

    def test_weights_may_have_torchvisions_names(
        self, no_models_kept: None, folder: Path, squeeze: dict[str, str], tmp_path: Path
    ) -> None:
        # torchvision's squeezenet1_1 calls "features.0.weight" what the file here calls "0.weight"
        bare = torch.load(squeeze["weights"], weights_only=True)
        torch.save({f"features.{name}": value for name, value in bare.items()}, tmp_path / "squeeze.pth")
        images = read(folder / "ex_p1.png"), read(folder / "ex_ref.png")
        value = reblur_lpips(*images, net="squeeze", weights=str(tmp_path / "squeeze.pth"))
        assert value == pytest.approx(0.147902, rel=0, abs=LAST_DIGIT)

    def test_alex_is_the_usual_net(self) -> None:
        assert inspect.signature(reblur_lpips).parameters["net"].default == "alex"


class TestLpipsRefuses:
    @pytest.fixture
    def failing(self, no_models_kept: None, monkeypatch: pytest.MonkeyPatch) -> Any:
        def fail(error: Exception) -> None:
            def download(**arguments: object) -> None:
                raise error

            monkeypatch.setattr(lpips, "LPIPS", download)

        return fail

    # Without a network torch.hub raises the first, after a broken download the second
    @pytest.mark.parametrize(
        "error",
        [URLError("Name or service not known"), RuntimeError('invalid hash value (expected "7be5be79", got "0")')],
        ids=["offline", "broken"],
    )
    def test_a_download_that_fails_names_the_way_out(self, failing: Any, error: Exception) -> None:
        failing(error)
        with pytest.raises(
            MetricError,
            match=r"reblur_lpips: the weights of 'alex' can't be downloaded \(.*(not known|invalid hash value).*\); "
            r"give torchvision's file as the metric's key weights, or leave the metric out",
        ):
            reblur_lpips(GREY, GREY)

    def test_a_failed_download_is_tried_again(self, failing: Any) -> None:
        for reason in ("first", "second"):
            failing(URLError(reason))
            with pytest.raises(MetricError, match=reason):
                reblur_lpips(GREY, GREY)

    def test_an_unknown_net_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(MetricError, match=r"reblur_lpips: net: expected one of alex, vgg, squeeze, got 'alexnet'"):
            reblur_lpips(GREY, GREY, net="alexnet")  # type: ignore[arg-type]

    def test_a_missing_weight_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=rf"{tmp_path}/none\.pth: no such checkpoint"):
            reblur_lpips(GREY, GREY, net="squeeze", weights=f"{tmp_path}/none.pth")

    def test_weights_of_another_net_are_named(self, tmp_path: Path) -> None:
        torch.save({"0.weight": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(
            MetricError,
            match=rf"{tmp_path}/other\.pth: expected torchvision's weights of the network that the key net names, but ",
        ):
            reblur_lpips(GREY, GREY, net="squeeze", weights=str(tmp_path / "other.pth"))


def test_an_image_that_the_network_cannot_see_has_none_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    small = np.zeros((31, 40, 3), dtype=np.uint8)
    with caplog.at_level("WARNING", logger="basicsr"):
        assert math.isnan(reblur_lpips(small, small))
    assert "LPIPS: expected at least 32x32 pixels, got 40x31; left out" in caplog.text
