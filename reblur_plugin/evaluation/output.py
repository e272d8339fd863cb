"""What people get of scores: the log's table, TensorBoard's curves, the CSV files of a test."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from reblur_plugin.evaluation.scores import DEBLURRED, Scores
from reblur_plugin.host import get_root_logger

_SHOWN = 5  # images that stay unadapted are named up to this number


def log_means(dataset: str, scores: Scores, best: dict[str, Any], metrics: Iterable[str]) -> None:
    """Log images whose adaptation went astray and, of `metrics`, the means and the best ones with their iterations."""
    logger = get_root_logger()
    for name, reason in list(scores.fallbacks.items())[:_SHOWN]:
        logger.warning(f"{dataset}: {name} stays unadapted: {reason}")
    if len(scores.fallbacks) > _SHOWN:
        logger.warning(f"{dataset}: {len(scores.fallbacks)} images stay unadapted")
    metrics = list(metrics)
    for metric in metrics:
        if names := scores.infinite(metric):
            some = f"{len(names)} of {len(scores.images)} images, such as {names[0]}: equal to the sharp one"
            logger.warning(f"{dataset}: {metric} is infinite for {some}; left out of the means")
    if not metrics:
        return
    bests = ", ".join(f"{metric} {value['val']:.4f} @ {value['iter']}" for metric, value in best.items())
    kind = f", blur kind {scores.blur_kind}" if scores.blur_kind else ""
    note = f"\nBest: {bests}" if bests else ""
    logger.info(f"{dataset}, {len(scores.images)} images{kind}\n{scores.table()}{note}")


def add_to_curves(dataset: str, scores: Scores, current_iter: int | str, tb_logger: Any) -> None:
    """Give TensorBoard's writer, if there is one, the mean of each stage and metric that has one."""
    if not tb_logger:
        return
    for stage, metric in product(scores.stages(), scores.metrics()):
        name = metric if stage == DEBLURRED else f"{metric}_{stage}"
        if not math.isnan(mean := scores.mean(stage, metric)):
            tb_logger.add_scalar(f"metrics/{dataset}/{name}", mean, current_iter)


def write_tables(dataset: str, scores: Scores, metrics: Iterable[str], folder: Path) -> None:
    """Write SET.csv, if there are metrics, and SET_trace.csv, if something was adapted."""
    metrics = list(metrics)
    if metrics:
        scores.write_csv(folder / f"{dataset}.csv", metrics)
    if any(scores.traces.values()):
        scores.write_trace(folder / f"{dataset}_trace.csv", metrics)
