"""One metric's value for one picture, on any device: what validation, worker processes and `evaluate` share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from reblur_plugin.evaluation.pictures import Picture
from reblur_plugin.host import calculate_metric, registry
from reblur_plugin.metrics.brightness_metric import reblur_brightness
from reblur_plugin.metrics.lpips_metric import lpips_on
from reblur_plugin.metrics.niqe_metric import reblur_niqe
from reblur_plugin.metrics.reblurability_metric import load_reblur_net, reblurability
from reblur_plugin.metrics.sharpness_metric import reblur_sharpness
from reblur_plugin.metrics.ssim_metric import reblur_ssim

Metrics = dict[str, dict[str, Any]]
_OURS: dict[str, Callable[..., float]] = {
    "reblur_ssim": reblur_ssim,
    "reblur_niqe": reblur_niqe,
    "reblur_sharpness": reblur_sharpness,
    "reblur_brightness": reblur_brightness,
}
REFERENCES = {"calculate_psnr", "calculate_ssim", "calculate_niqe", *_OURS}  # computed on a CPU


class Measured(NamedTuple):
    """An 8-bit RGB picture `(H, W, 3)` and what it is measured against, if there is anything."""

    image: Picture
    reference: Picture | None


def value(
    measured: Measured, options: Mapping[str, Any], device: torch.device, reblur_net: nn.Module | None = None
) -> float:
    """Return a metric's value.

    Args:
        measured: the picture.
        options: the metric's block.
        device: where LPIPS is computed, and reblurability by a checkpoint's M_R.
        reblur_net: M_R, for metrics that take the model's own.

    Raises:
        MetricError: if it can't be computed as the block asks.
    """
    kind = options["type"]
    given = {key: option for key, option in options.items() if key not in ("type", "better")}
    pictures = as_basicsr_takes(*measured)
    if kind == "reblur_lpips":
        return lpips_on(device, **pictures, **given)
    if kind in _OURS:
        return _OURS[kind](**pictures, **given)
    if kind == "reblurability":
        weights = given.pop("weights", None)
        return reblurability(
            **pictures, **given, reblur_net=load_reblur_net(weights, str(device)) if weights else reblur_net
        )
    own = {"reblur_net": reblur_net} if needs_own_net(dict(options)) else {}
    return float(calculate_metric(pictures | own, dict(options)))


def as_basicsr_takes(image: Picture, reference: Picture | None) -> dict[str, Any]:
    """Return RGB pictures as BasicSR's metrics take them: BGR."""
    pictures = {"img": image, "img2": reference}
    return {key: picture[..., ::-1] for key, picture in pictures.items() if picture is not None}


def chosen(metrics: Metrics, has_reference: bool) -> Metrics:
    """Return the metrics that a picture can have: without a reference only those that need none."""
    return {name: options for name, options in metrics.items() if has_reference or not needs_reference(options["type"])}


def needs_reference(metric: str) -> bool:
    """Return whether a registered metric takes the sharp image."""
    reference = _parameters(metric).get("img2")
    return reference is not None and reference.default is inspect.Parameter.empty


def needs_own_net(options: dict[str, Any]) -> bool:
    """Return whether a metric takes the model's M_R, since its block names no other."""
    return "reblur_net" in _parameters(options["type"]) and not options.get("weights")


def _parameters(metric: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(registry.METRIC_REGISTRY.get(metric)).parameters
