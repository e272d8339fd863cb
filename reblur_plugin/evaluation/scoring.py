"""All metrics of pictures of one size: by their references, or in batches on the GPU where one is used (D41)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from reblur_plugin.data.images import to_uint8
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation.report import first_set, metric_options
from reblur_plugin.host import calculate_metric, registry
from reblur_plugin.metrics import on_device

_CPU = torch.device("cpu")


class Pair(NamedTuple):
    """An 8-bit RGB picture `(H, W, 3)` and what it is measured against, if there is anything."""

    image: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None


def scored(
    pairs: Sequence[Pair],
    metrics: dict[str, dict[str, Any]],
    device: torch.device = _CPU,
    reblur_net: nn.Module | None = None,
) -> list[dict[str, float]]:
    """Return all metrics of each picture; of one without reference only those that need none.

    Args:
        pairs: pictures that go to a GPU together where they can.
        metrics: option blocks by name.
        device: a GPU computes those metrics for which `on_device` has a batched form.
        reblur_net: M_R, for metrics that take the model's own.
    """
    found: list[dict[str, float]] = [{} for _ in pairs]
    batches = _Batches(pairs, device)
    for name, options in metrics.items():
        chosen = [
            i for i, pair in enumerate(pairs) if pair.reference is not None or not needs_reference(options["type"])
        ]
        values = batches.scores(options, chosen)
        if values is None:
            own = {"reblur_net": reblur_net} if needs_own_net(options) else {}
            values = [float(calculate_metric(_as_basicsr_takes(pairs[i]) | own, options)) for i in chosen]
        for i, value in zip(chosen, values, strict=True):
            found[i][name] = value
    return found


class _Batches:
    """Pictures and their references on a GPU, put there when the first metric asks."""

    def __init__(self, pairs: Sequence[Pair], device: torch.device) -> None:
        self._pairs, self._device = pairs, device
        self._loaded: dict[tuple[int, ...], torch.Tensor] = {}

    def scores(self, options: dict[str, Any], chosen: list[int]) -> list[float] | None:
        """Return a metric of those `chosen`; None, if its reference must compute it."""
        columns = [[self._pairs[i].image for i in chosen]]
        if needs_reference(options["type"]):
            columns.append([picture for i in chosen if (picture := self._pairs[i].reference) is not None])
        if not _is_fast(self._device) or len({picture.shape for column in columns for picture in column}) != 1:
            return None
        keys = [(which, *chosen) for which in range(len(columns))]
        for key, column in zip(keys, columns, strict=True):
            if key not in self._loaded:
                self._loaded[key] = on_device.batch(column, self._device)
        found = on_device.scores([self._loaded[key] for key in keys], **options)
        return None if found is None else found.tolist()


def _is_fast(device: torch.device) -> bool:
    return device.type != "cpu"


def _as_basicsr_takes(pair: Pair) -> dict[str, Any]:
    """Return a pair as BasicSR's metrics take it: BGR."""
    pictures = {"img": pair.image, "img2": pair.reference}
    return {key: picture[..., ::-1] for key, picture in pictures.items() if picture is not None}


def try_metrics(dataset: Any, opt: dict[str, Any]) -> None:
    """Compute every metric once, on the first image: what a metric lacks must show before a long run, not after it.

    Raises:
        ReblurError: if a metric can't be computed or the image can't be read.
    """
    item = dataset[0]
    blurry = to_uint8(item["lq"])
    sharp = to_uint8(item["gt"]) if "gt" in item else None
    _check_best(opt, dataset.opt["name"], sharp is not None)
    for name, options in metric_options(opt).items():
        if opt.get("network_r") and needs_own_net(options):
            continue
        try:
            (scores,) = scored([Pair(blurry, sharp)], {name: options})
        except ReblurError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, cv2.error) as error:
            raise MetricError(
                f"val: metrics: {name}: {options['type']} failed on {item['lq_path']}: {error}"
            ) from error
        if name in scores and math.isnan(scores[name]) and needs_reference(options["type"]):
            height, width = blurry.shape[:2]
            raise MetricError(
                f"val: metrics: {name}: expected a number, got nan on {item['lq_path']} of {width}x{height} pixels; "
                "lower crop_border or use larger images"
            )


def _check_best(opt: dict[str, Any], set_name: str, has_sharp: bool) -> None:
    best = opt["val"].get("best") if opt["is_train"] and set_name == first_set(opt) else None
    if best and not has_sharp and needs_reference(metric_options(opt)[best]["type"]):
        raise MetricError(
            f"val: best: {best} needs sharp images, and {set_name}, the first validation set, by which the best "
            "networks are chosen, has none; put a set with sharp images first"
        )


def needs_reference(metric: str) -> bool:
    """Return whether a registered metric takes the sharp image."""
    reference = _parameters(metric).get("img2")
    return reference is not None and reference.default is inspect.Parameter.empty


def needs_own_net(options: dict[str, Any]) -> bool:
    """Return whether a metric takes the model's M_R, since its block names no other."""
    return "reblur_net" in _parameters(options["type"]) and not options.get("weights")


def _parameters(metric: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(registry.METRIC_REGISTRY.get(metric)).parameters
