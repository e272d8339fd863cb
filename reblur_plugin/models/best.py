"""The best means of a validation set so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from reblur_plugin.evaluation.scores import DEBLURRED, Scores
from reblur_plugin.evaluation.values import Metrics


def updated(best: dict[str, Any], scores: Scores, metrics: Metrics, current_iter: int | str) -> dict[str, Any]:
    """Return `best` with the deblurred images' means that are at least as good, and their iteration.

    One that is nan is never the best.
    """
    found = dict(best)
    for metric in scores.metrics():
        mean, better = scores.mean(DEBLURRED, metric), metrics[metric]["better"]
        older = best.get(metric, {"val": math.nan})["val"]
        improves = math.isnan(older) or (mean >= older if better == "higher" else mean <= older)
        if improves and not math.isnan(mean):
            found[metric] = {"better": better, "val": mean, "iter": current_iter}
    return found


def comparable(
    best: Mapping[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """Return the best means that those to come can be compared with, and a sentence for each that is dropped.

    Args:
        best: saved means, by data set and metric.
        before: what they were judged by when they were saved; sets that it doesn't hold are kept.
        now: `training_states.judged` of this run.
    """
    kept: dict[str, Any] = {}
    notes = []
    for name, means in best.items():
        kept[name] = dict(means)
        old, new = before.get(name), now.get(name)
        for metric, mean in means.items() if old and new else ():
            if why := _differs(old, new, metric):
                del kept[name][metric]
                so_far = f"{mean['val']:.4f} of iteration {mean['iter']}"
                notes.append(f"{name}: the best {metric} so far, {so_far}, is of {why}: forgotten")
    return kept, notes


def _differs(old: Any, new: Any, metric: str) -> str:
    if old["data"] != new["data"]:
        return "other data"
    return "" if old["metrics"].get(metric) == new["metrics"].get(metric) else "other options of the metric"
