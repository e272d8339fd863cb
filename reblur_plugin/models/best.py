"""The best means of a validation set so far."""

from __future__ import annotations

import math
from typing import Any

from reblur_plugin.evaluation.scores import DEBLURRED, Scores
from reblur_plugin.evaluation.scoring import Metrics


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
