"""The command `metrics` scores one picture by every metric of validation."""

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
    assert list(values)[1:] == ["PSNR by BasicSR", "SSIM", "LPIPS (AlexNet)", "NIQE"]
    assert all(isinstance(values[name], float) for name in list(values)[1:])
    assert values[case.reference].shape == (1, 3, 192, 320)
