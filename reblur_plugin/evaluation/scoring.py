"""The metrics of an option file: what each needs, and their values for one picture after the other."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import nn

from reblur_plugin.evaluation.pictures import Picture
from reblur_plugin.evaluation.workers import REFERENCES, Answer, Workers, as_basicsr_takes
from reblur_plugin.host import calculate_metric, registry
from reblur_plugin.metrics.lpips_metric import lpips_on
from reblur_plugin.metrics.reblurability_metric import load_reblur_net

Metrics = dict[str, dict[str, Any]]
_LOGGER = logging.getLogger("basicsr")


class Measured(NamedTuple):
    """An 8-bit RGB picture `(H, W, 3)` and what it is measured against, if there is anything."""

    image: Picture
    reference: Picture | None


@dataclass
class Awaited:
    """The scores of a picture, some of which a worker process may still be computing.

    Attributes:
        order: names of all its metrics.
        here: values computed by this process.
        there: what a worker answers.
    """

    order: list[str]
    here: dict[str, float]
    there: Future[Answer] | None = None

    def done(self) -> bool:
        """Return whether `result` returns at once."""
        return self.there is None or self.there.done()

    def result(self) -> dict[str, float]:
        """Return all values by the metrics' names; wait for the worker, whose warnings are logged here.

        Raises:
            MetricError: if the worker has died.
        """
        values, warnings = self.there.result() if self.there else ({}, [])
        for level, message in warnings:
            _LOGGER.log(level, message)
        return {name: values[name] if name in values else self.here[name] for name in self.order}


class Scorer:
    """Scores pictures; with workers, the CPU's references are computed by them while the device goes on.

    Args:
        metrics: option blocks by name.
        device: where LPIPS is computed, and reblurability by a checkpoint's M_R.
        reblur_net: M_R, for metrics that take the model's own.
        workers: number of processes.
    """

    def __init__(self, metrics: Metrics, device: torch.device, reblur_net: nn.Module | None, workers: int) -> None:
        self._metrics, self._device, self._reblur_net = metrics, device, reblur_net
        needed = any(options["type"] in REFERENCES for options in metrics.values())
        self._workers = Workers(workers) if workers and needed else None
        self.ahead = 2 * workers if self._workers else 0  # images that may wait for their scores

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._workers:
            self._workers.close()

    def begin(self, measured: Measured) -> Awaited:
        """Return the metrics of a picture; of one without reference only those that need none."""
        chosen = {
            name: options
            for name, options in self._metrics.items()
            if measured.reference is not None or not needs_reference(options["type"])
        }
        there = {name: options for name, options in chosen.items() if self._workers and options["type"] in REFERENCES}
        future = self._workers.submit(*measured, there) if self._workers and there else None
        here = {name: self._value(measured, options) for name, options in chosen.items() if name not in there}
        return Awaited(list(chosen), here, future)

    def _value(self, measured: Measured, options: dict[str, Any]) -> float:
        pictures = as_basicsr_takes(*measured)
        if options["type"] == "reblur_lpips":
            given = {key: value for key, value in options.items() if key not in ("type", "better")}
            return lpips_on(self._device, **pictures, **given)
        own = {"reblur_net": self._reblur_net} if needs_own_net(options) else {}
        if options["type"] == "reblurability" and options.get("weights"):
            own = {"reblur_net": load_reblur_net(options["weights"], str(self._device))}
            options = {key: value for key, value in options.items() if key != "weights"}
        return float(calculate_metric(pictures | own, options))


def first_set(opt: dict[str, Any]) -> str:
    """Return the name of the first validation set, on which `val: best` counts."""
    return next(block["name"] for block in opt["datasets"].values() if block["phase"] != "train")


def needs_reference(metric: str) -> bool:
    """Return whether a registered metric takes the sharp image."""
    reference = _parameters(metric).get("img2")
    return reference is not None and reference.default is inspect.Parameter.empty


def needs_own_net(options: dict[str, Any]) -> bool:
    """Return whether a metric takes the model's M_R, since its block names no other."""
    return "reblur_net" in _parameters(options["type"]) and not options.get("weights")


def _parameters(metric: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(registry.METRIC_REGISTRY.get(metric)).parameters
