"""The command `metrics`: what the metrics of validation cost beside deblurring the image that they score."""

from __future__ import annotations

import argparse
import contextlib
import io
import warnings

import lpips
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.report import Case, Results, Row
from reblur_plugin.archs.complexity import count_macs
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.core.device import device_named
from reblur_plugin.host import registry
from reblur_plugin.metrics.niqe_metric import reblur_niqe
from reblur_plugin.metrics.ssim_metric import reblur_ssim

_NOTES = [
    "time ratio: to the U-Net's pass on this device without gradient; PSNR, SSIM and NIQE are computed on the CPU",
    "LPIPS has random weights here, which change no time",
]


def run(arguments: argparse.Namespace) -> Results:
    """Measure one image of the paper's size."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = device_named(arguments.device)
    height, width = (192, 320) if arguments.quick else (720, 1280)
    sharp, blurry = _images(height, width)
    network = ResUNet().eval().to(device)
    image = _tensor(blurry).to(device) / 255
    distance = _lpips().to(device)

    @torch.no_grad()
    def deblur() -> NDArray[np.uint8]:
        return (network(image).clamp(0, 1) * 255).round().byte().cpu().numpy()

    @torch.no_grad()
    def score_lpips() -> float:
        return float(distance(*(_tensor(picture).to(device) / 127.5 - 1 for picture in (blurry, sharp))))

    forms = {
        "deblurring by the U-Net": deblur,
        "PSNR by BasicSR": lambda: registry.METRIC_REGISTRY.get("calculate_psnr")(blurry, sharp, crop_border=0),
        "SSIM": lambda: reblur_ssim(blurry, sharp),
        "LPIPS (AlexNet)": score_lpips,
        "NIQE": lambda: reblur_niqe(blurry),
    }
    seconds = measure.interleaved(forms, arguments.repeats, device)
    rows = [Row(name, times) for name, times in seconds.items()]
    rows[0].flops = 2.0 * count_macs(network, height, width)
    rate = measure.matmul_rate(device, torch.float32)
    case = Case("one image", rows[0].name, rows, {"width": width, "height": height}, rate)
    return Results("metrics of validation", measure.machine(device), [case], _NOTES)


def _images(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return noise and a shifted mean of it: what is in them changes no time."""
    sharp = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return sharp, (sharp // 2 + np.roll(sharp, 1, axis=1) // 2).astype(np.uint8)


def _tensor(picture: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(picture.transpose(2, 0, 1)[None]).float()


def _lpips() -> torch.nn.Module:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the package prints and is old
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net="alex", pnet_rand=True).eval()
