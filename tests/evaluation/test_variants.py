"""A score's variant tells it from other forms of its metric; fingerprints tell weights and pixels apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reblur_plugin.evaluate import METRICS
from reblur_plugin.evaluation.file_scores import picture_in
from reblur_plugin.evaluation.variants import PAPER, fingerprint_of, fingerprint_of_pixels, variant, versions


class TestVariant:
    @pytest.mark.parametrize(
        ("options", "label", "better"),
        [
            ({"type": "calculate_psnr", "crop_border": 0}, "PSNR (RGB, 8 bits)", "higher"),
            ({"type": "calculate_psnr", "test_y_channel": True}, "PSNR (Y, 8 bits)", "higher"),
            (
                {"type": "calculate_psnr", "crop_border": 4},
                "PSNR (RGB, 8 bits, without 4 pixels at the edges)",
                "higher",
            ),
            ({"type": "calculate_ssim"}, "SSIM (Gaussian 11x11, each channel)", "higher"),
            ({"type": "calculate_ssim", "test_y_channel": True}, "SSIM (Gaussian 11x11, Y)", "higher"),
            ({"type": "reblur_ssim"}, "SSIM (Gaussian 11x11, each channel)", "higher"),
            (
                {"type": "reblur_ssim", "window": "volume"},
                "SSIM (Gaussian 11x11x11 over the channels (MATLAB))",
                "higher",
            ),
            ({"type": "reblur_lpips"}, "LPIPS (AlexNet, v0.1)", "lower"),
            ({"type": "reblur_lpips", "net": "squeeze"}, "LPIPS (SqueezeNet, v0.1)", "lower"),
            ({"type": "reblur_niqe"}, "NIQE (original parameters, luma)", "lower"),
            ({"type": "theirs", "sigma": 3, "better": "lower"}, "theirs (sigma 3)", "lower"),
        ],
    )
    def test_says_metric_and_form(self, options: dict[str, Any], label: str, better: str) -> None:
        found = variant(options)
        assert (found.label, found.better) == (label, better)

    def test_reblurability_names_its_m_r(self, tmp_path: Path) -> None:
        (tmp_path / "net_r.pth").write_bytes(b"weights")
        by_file = variant({"type": "reblurability", "weights": str(tmp_path / "net_r.pth")})
        assert by_file.form == "M_R 9a129038d9a00aed, grey levels"  # printf weights | sha256sum
        assert by_file != variant({"type": "reblurability"}, own_net="0123")
        assert variant({"type": "reblurability"}, own_net="0123").form == "M_R 0123, grey levels"

    def test_all_that_evaluate_offers_differ(self) -> None:
        assert len({variant(options) for options in METRICS.values()}) == len(METRICS)

    def test_the_papers_forms_are_those_of_the_plain_names(self) -> None:
        plain = {name: variant(METRICS[name]) for name in ("lpips-alex", "niqe", "psnr", "ssim")}
        assert {one.metric: one.form for one in plain.values()} == PAPER


class TestFingerprints:
    def test_a_missing_file_has_none(self, tmp_path: Path) -> None:
        assert fingerprint_of(tmp_path / "none.pth") == "missing"

    def test_another_content_at_the_same_place_has_another(self, tmp_path: Path) -> None:
        path = tmp_path / "net.pth"
        found = []
        for content in (b"one", b"two"):
            path.write_bytes(content)
            found.append(fingerprint_of(path))
        assert found[0] != found[1]

    def test_pixels_have_one_in_any_format_without_loss(self, tmp_path: Path, rng: np.random.Generator) -> None:
        picture = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        for suffix in ("png", "bmp", "tif"):
            cv2.imwrite(str(tmp_path / f"a.{suffix}"), picture[..., ::-1])
            assert fingerprint_of_pixels(picture_in(tmp_path / f"a.{suffix}")) == fingerprint_of_pixels(picture)

    def test_another_pixel_or_shape_has_another(self) -> None:
        picture = np.zeros((2, 3, 3), dtype=np.uint8)
        other = picture.copy()
        other[1, 2, 0] = 1
        assert len({fingerprint_of_pixels(one) for one in (picture, other, picture.reshape(3, 2, 3))}) == 3


def test_versions_name_what_computes_scores() -> None:
    assert {"reblur_plugin", "torch", "basicsr", "lpips", "scikit-image", "numpy"} <= set(versions())


def test_ours_are_comparable_and_have_their_direction() -> None:
    sharpness, brightness = (variant({"type": f"reblur_{name}"}) for name in ("sharpness", "brightness"))
    assert (sharpness.metric, sharpness.better) == ("sharpness", "higher")
    assert (brightness.metric, brightness.better) == ("brightness", "lower")
