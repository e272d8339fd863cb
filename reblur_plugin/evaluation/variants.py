"""What a score is, in words and numbers: its variant, the weights and versions that it depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reblur_plugin.files import at_home
from reblur_plugin.version import __version__

_SSIM = {
    "gaussian": "Gaussian 11x11, each channel",
    "uniform": "uniform 7x7, each channel (scikit-image's default)",
    "volume": "Gaussian 11x11x11 over the channels (MATLAB)",
}
_BACKBONES = {"alex": "AlexNet", "vgg": "VGG-16", "squeeze": "SqueezeNet"}
_OURS = {
    "reblur_sharpness": ("sharpness", "gradient energy / that of S"),
    "reblur_brightness": ("brightness", "grey levels off S"),
}
# The forms that the paper's numbers are taken to have (D14)
PAPER = {
    "LPIPS": "AlexNet, v0.1",
    "NIQE": "original parameters, luma",
    "PSNR": "RGB, 8 bits",
    "SSIM": _SSIM["gaussian"],
}
_PACKAGES = ("torch", "basicsr", "lpips", "scikit-image", "numpy", "opencv-python")


@dataclass(frozen=True)
class Variant:
    """Which metric a score is of, and in which of its forms.

    Attributes:
        metric: "PSNR", "SSIM", "LPIPS", "NIQE", "reblurability", "sharpness", "brightness", or another's name.
        form: what tells it from other forms of the metric; two scores are comparable if both are equal.
        better: "higher" or "lower".
    """

    metric: str
    form: str
    better: str

    @property
    def label(self) -> str:
        """Metric and form for people."""
        return f"{self.metric} ({self.form})" if self.form else self.metric


def variant(options: Mapping[str, Any], own_net: str | None = None) -> Variant:
    """Return what a metric's option block computes.

    Args:
        options: the block of `val: metrics`, or one of the command `evaluate`.
        own_net: fingerprint of the run's own M_R, for reblurability by it.
    """
    kind = options["type"]
    if kind in ("calculate_psnr", "calculate_ssim"):
        colours = "Y" if options.get("test_y_channel") else "RGB"
        found = ("PSNR", f"{colours}, 8 bits") if kind == "calculate_psnr" else ("SSIM", _SSIM["gaussian"])
        if found[0] == "SSIM" and colours == "Y":
            found = ("SSIM", "Gaussian 11x11, Y")
    elif kind == "reblur_ssim":
        found = ("SSIM", _SSIM[options.get("window", "gaussian")])
    elif kind == "reblur_lpips":
        found = ("LPIPS", f"{_BACKBONES[options.get('net', 'alex')]}, v0.1")
    elif kind in ("reblur_niqe", "calculate_niqe"):
        found = ("NIQE", "original parameters, luma")
    elif kind == "reblurability":
        weights = options.get("weights")
        found = ("reblurability", f"M_R {fingerprint_of(weights) if weights else own_net}, grey levels")
    elif kind in _OURS:
        found = _OURS[kind]
    else:
        found = (kind, ", ".join(f"{key} {value}" for key, value in options.items() if key not in ("type", "better")))
    border = f", without {options['crop_border']} pixels at the edges" if options.get("crop_border") else ""
    return Variant(found[0], found[1] + border, options.get("better") or _better(found[0]))


def _better(metric: str) -> str:
    return "higher" if metric in ("PSNR", "SSIM", "sharpness") else "lower"


def fingerprint_of(path: str | Path) -> str:
    """Return a hash of a file's content; "missing" if it can't be read."""
    try:
        return hashlib.sha256(at_home(path).read_bytes()).hexdigest()[:16]
    except OSError:
        return "missing"


def fingerprint_of_pixels(image: NDArray[np.uint8]) -> str:
    """Return a hash of a picture's size and pixels, the same for all formats of its file without loss."""
    head = "x".join(map(str, image.shape)).encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Return the versions of what computes scores."""
    found = {"reblur_plugin": __version__, "torch": str(torch.__version__)}
    for package in _PACKAGES[1:]:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # another distribution of OpenCV, say
            continue
    return found


def device_name(device: torch.device) -> str:
    """Return what a device is called, as in summaries."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
