"""The command `metrics` scores one picture by every metric and by both ways to SSIM and PSNR."""

from __future__ import annotations

import pytest

from benchmarks import metrics
from benchmarks.__main__ import parse


def test_every_metric_is_timed_beside_deblurring(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {}

    def once(forms: dict, repeats: int, device: object) -> dict[str, list[float]]:
        values.update({name: form() for name, form in forms.items()})
        return {name: [1.0] * repeats for name in forms}

    monkeypatch.setattr(metrics.measure, "interleaved", once)
    monkeypatch.setattr(metrics.measure, "matmul_rate", lambda *_: 1e12)
    (case,) = metrics.run(parse(["metrics", "--quick", "--device", "cpu", "--repeats", "2"])).cases
    assert case.reference == "deblurring by the U-Net" == case.rows[0].name
    assert case.rows[0].flops == pytest.approx(2 * 463.25e9 * (192 * 320) / (720 * 1280), rel=1e-4)  # D1's count
    assert values["PSNR on the device"] == pytest.approx(values["PSNR by BasicSR"], rel=1e-10)
    assert values["SSIM on the device"] == pytest.approx(values["SSIM by scikit-image"], rel=1e-10)
    assert values["NIQE on the device"] == pytest.approx(values["NIQE by BasicSR"], rel=1e-5)
    assert "LPIPS (AlexNet)" in values
    assert values[case.reference].shape == (1, 3, 192, 320)
