"""What a validation tells: the log's table, TensorBoard, the best networks, the CSV files of a test."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reblur_plugin.evaluation.scores import DEBLURRED, Scores
from reblur_plugin.host import get_root_logger
from reblur_plugin.options.checks import KNOWN_BETTER

if TYPE_CHECKING:
    from reblur_plugin.models.reblur_model import ReblurModel

_SHOWN = 5  # images that stay unadapted are named up to this number


def report(model: ReblurModel, dataset: str, scores: Scores, current_iter: int | str, tb_logger: Any) -> None:
    """Log the means, keep the best ones in training, write the CSV files of a test.

    Raises:
        MetricError: if the disk refuses.
    """
    opt, metrics = model.opt, metric_options(model.opt)
    logger = get_root_logger()
    for name, reason in list(scores.fallbacks.items())[:_SHOWN]:
        logger.warning(f"{dataset}: {name} stays unadapted: {reason}")
    if len(scores.fallbacks) > _SHOWN:
        logger.warning(f"{dataset}: {len(scores.fallbacks)} images stay unadapted")
    if metrics:
        best = _keep_best(model, dataset, scores, current_iter) if opt["is_train"] else {}
        bests = ", ".join(f"{metric} {value['val']:.4f} @ {value['iter']}" for metric, value in best.items())
        kind = f", blur kind {scores.blur_kind}" if scores.blur_kind else ""
        note = f"\nBest: {bests}" if bests else ""
        logger.info(f"{dataset}, {len(scores.images)} images{kind}\n{scores.table()}{note}")
    if tb_logger:
        for stage, metric in product(scores.stages(), scores.metrics()):
            name = metric if stage == DEBLURRED else f"{metric}_{stage}"
            if not math.isnan(mean := scores.mean(stage, metric)):
                tb_logger.add_scalar(f"metrics/{dataset}/{name}", mean, current_iter)
    if not opt["is_train"] and opt.get("rank", 0) == 0:
        folder = Path(opt["path"]["log"])
        if metrics:
            scores.write_csv(folder / f"{dataset}.csv", metrics)
        if any(scores.traces.values()):
            scores.write_trace(folder / f"{dataset}_trace.csv", metrics)


def _keep_best(model: ReblurModel, dataset: str, scores: Scores, current_iter: int | str) -> dict[str, Any]:
    """Return the best means of a data set with their iterations; save the networks where they are the best.

    One that is nan is never the best.
    """
    if not hasattr(model, "best_metric_results"):
        model.best_metric_results = {}
    best: dict[str, Any] = model.best_metric_results.setdefault(dataset, {})
    for metric in scores.metrics():
        mean = scores.mean(DEBLURRED, metric)
        better = metric_options(model.opt)[metric]["better"]
        older = best.get(metric, {"val": math.nan})["val"]
        improves = math.isnan(older) or (mean >= older if better == "higher" else mean <= older)
        if improves and not math.isnan(mean):
            best[metric] = {"better": better, "val": mean, "iter": current_iter}
    chosen = model.opt["val"].get("best")
    is_best = chosen in best and best[chosen]["iter"] == current_iter and dataset == first_set(model.opt)
    if is_best and model.opt.get("rank", 0) == 0:
        model.save_networks("best")
    return best


def metric_options(opt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `val: metrics` with the direction of each metric filled in."""
    metrics = opt["val"].get("metrics") or {}
    for options in metrics.values():
        options.setdefault("better", KNOWN_BETTER.get(options["type"], "higher"))
    return metrics


def first_set(opt: dict[str, Any]) -> str:
    """Return the name of the first validation set, on which `val: best` counts."""
    return next(block["name"] for block in opt["datasets"].values() if block["phase"] != "train")
