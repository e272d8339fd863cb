"""How far a training is, and its report: in the log, beside the progress bar and in TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from reblur_plugin.engine.processes import memory_in_gib
from reblur_plugin.options.reading import Options


class Progress:
    """How far a run is: iterations done, images drawn, and what was saved of it."""

    def __init__(self, opt: Options, images: int, state: dict[str, Any] | None) -> None:
        self.total: int = opt["train"]["total_iter"]
        self.images = images
        self.batch: int = opt["datasets"]["train"]["batch_size_per_gpu"] * opt["world_size"]
        self.iteration: int = state["iter"] if state else 0
        self.draws: int = state["draws"] if state else 0  # not iteration * batch: the batch may have changed
        self.to_validate: bool = state["to_validate"] if state else False
        self.saved: int | None = self.iteration if state else None

    def advance(self) -> None:
        """Count one iteration."""
        self.iteration += 1
        self.draws += self.batch

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.iteration == self.total and not self.to_validate

    @property
    def epoch(self) -> int:
        """How often all images have been seen."""
        return self.draws // self.images

    def describe(self) -> str:
        """Return the plan in a sentence, in iterations and in epochs."""
        epoch = self.images // self.batch
        return (
            f"{self.images} training images, {self.batch} a batch, {epoch} iterations an epoch: {self.total} "
            f"iterations = {self.total / epoch:.1f} epochs; starting after iteration {self.iteration}"
        )


class Reporter:
    """Writes the line of the log and TensorBoard's curves, every `print_freq` iterations."""

    def __init__(self, progress: Progress, logger: logging.Logger, writer: Any) -> None:
        self.progress, self.logger, self.writer = progress, logger, writer
        self._begin = self._since = time.perf_counter()
        self._first = self._last = progress.iteration
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time that an iteration waits for its batch."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    def report(self, numbers: dict[str, float], rates: list[float]) -> str:
        """Report the numbers of this iteration and the pace since the last report; return the text beside the bar.

        Args:
            numbers: losses, rho and, as `lr_g`, ..., learning rates.
            rates: learning rates, for a model whose numbers hold none.
        """
        progress, now = self.progress, time.perf_counter()
        seconds = (now - self._since) / (progress.iteration - self._last)
        share = self._waited / (now - self._since)
        left = (now - self._begin) / (progress.iteration - self._first) * (progress.total - progress.iteration)
        self._since, self._last, self._waited = now, progress.iteration, 0.0
        named = {name: value for name, value in numbers.items() if name.startswith("lr_")}
        losses = [f"{name} {value:.4g}" for name, value in numbers.items() if name not in named]
        shown = [f"{name} {value:.3g}" for name, value in named.items()]
        shown = shown or ["lr " + ", ".join(f"{rate:.3g}" for rate in rates)]
        most = memory_in_gib()
        memory = "memory unknown" if most is None else f"{most:.1f} GiB"
        self.logger.info(
            f"iteration {progress.iteration} of {progress.total}, epoch {progress.epoch}: {', '.join(losses)} | "
            f"{', '.join(shown)} | {seconds:.3g} s each, {100 * share:.0f}% of it for data, "
            f"{timedelta(seconds=round(left))} left, {memory}"
        )
        if self.writer:
            for name, value in numbers.items():
                tag = f"losses/{name}" if name.startswith("l_") else name
                self.writer.add_scalar(tag, value, progress.iteration)
        brief = [f"{name} {numbers[key]:.4f}" for key, name in _BRIEF.items() if key in numbers]
        return ", ".join([*brief, *shown, memory])


_BRIEF = {"l_g_pix": "L1", "l_g_reblur": "reblur", "rho": "rho"}
