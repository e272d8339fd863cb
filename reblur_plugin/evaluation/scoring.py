"""The metrics of an option file: what each needs, and their values for one picture after the other."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from reblur_plugin.evaluation.values import REFERENCES, Measured, Metrics, chosen, value
from reblur_plugin.evaluation.workers import Answer, Workers

_LOGGER = logging.getLogger("basicsr")


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
        metrics = chosen(self._metrics, measured.reference is not None)
        there = {name: options for name, options in metrics.items() if self._workers and options["type"] in REFERENCES}
        future = self._workers.submit(*measured, there) if self._workers and there else None
        here = {
            name: value(measured, options, self._device, self._reblur_net)
            for name, options in metrics.items()
            if name not in there
        }
        return Awaited(list(metrics), here, future)


def first_set(opt: dict[str, Any]) -> str:
    """Return the name of the first validation set, on which `val: best` counts."""
    return next(block["name"] for block in opt["datasets"].values() if block["phase"] != "train")
