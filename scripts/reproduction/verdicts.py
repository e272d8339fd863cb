"""Whether a comparison shows what the paper claims: the rule of docs/reproduction.md."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scipy.stats import t

from reblur_plugin.report.statistics import estimate, mean_of

Verdict = Literal["shown", "not shown", "contradicted"]
Values = Mapping[int, Mapping[str, float]]  # by seed and image; names of images begin with their sequence's
_LEVEL = 0.95


@dataclass(frozen=True)
class Judged:
    """A paired comparison of two arms.

    Attributes:
        before, after: means of both arms over seeds and sequences.
        effect: mean difference, after minus before.
        over_seeds: ends of its 95 % interval by the spread between trainings (t distribution); nan for one training.
        over_sequences: ends of its 95 % bootstrap interval over the sequences of the test images.
        spread: standard deviation between trainings of the first arm's own mean; nan for one.
        agree: trainings whose own effect has the direction of the paper.
        seeds, sequences, images: how many of each.
        verdict: by the rule.
    """

    before: float
    after: float
    effect: float
    over_seeds: tuple[float, float]
    over_sequences: tuple[float, float]
    spread: float
    agree: int
    seeds: int
    sequences: int
    images: int
    verdict: Verdict


def judge(before: Values, after: Values, better: Literal["higher", "lower"], margin: float = 0.0) -> Judged:
    """Return a comparison and its verdict.

    Args:
        before, after: values of both arms; of seeds and images that one of them lacks nothing is taken.
        better: the direction that the paper claims.
        margin: how far against that direction an effect may go and still agree: a claim of a small price.
    """
    seeds = sorted(before.keys() & after.keys())
    differences = {
        seed: {
            name: value - before[seed][name]
            for name, value in after[seed].items()
            if math.isfinite(value - before[seed].get(name, math.nan))
        }
        for seed in seeds
    }
    own = [_mean_of_sequences(differences[seed]) for seed in seeds]
    sign = 1 if better == "higher" else -1
    of_images = {
        name: mean_of([differences[seed][name] for seed in seeds])
        for name in differences[seeds[0]]
        if all(name in differences[seed] for seed in seeds)
    }
    units = list(_sequences(of_images).values())
    over_sequences = estimate(units)
    over_seeds = _interval(own)
    agree = sum(sign * effect + margin > 0 for effect in own)
    intervals = [(over_sequences.low, over_sequences.high), *([over_seeds] if len(own) > 1 else [])]
    return Judged(
        before=mean_of([_mean_of_sequences(before[seed]) for seed in seeds]),
        after=mean_of([_mean_of_sequences(after[seed]) for seed in seeds]),
        effect=mean_of(own),
        over_seeds=over_seeds,
        over_sequences=(over_sequences.low, over_sequences.high),
        spread=_deviation([_mean_of_sequences(before[seed]) for seed in seeds]),
        agree=agree,
        seeds=len(seeds),
        sequences=len(units),
        images=len(of_images),
        verdict=_verdict([sign * effect + margin for effect in own], [_turned(one, sign, margin) for one in intervals]),
    )


def _verdict(effects: list[float], intervals: list[tuple[float, float]]) -> Verdict:
    """Return the rule's word on effects of each training, positive as the paper claims, and their intervals."""
    if all(effect > 0 for effect in effects) and all(low > 0 for low, _ in intervals):
        return "shown"
    if all(effect < 0 for effect in effects) and all(high < 0 for _, high in intervals):
        return "contradicted"
    return "not shown"


def together(verdicts: list[Verdict]) -> Verdict:
    """Return a claim's verdict: shown if all its parts are, contradicted if one of them is."""
    if "contradicted" in verdicts:
        return "contradicted"
    return "shown" if verdicts and all(one == "shown" for one in verdicts) else "not shown"


def _turned(interval: tuple[float, float], sign: int, margin: float) -> tuple[float, float]:
    low, high = sorted(sign * end + margin for end in interval)
    return low, high


def _interval(values: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t; nan for a single value."""
    if len(values) < 2:
        return math.nan, math.nan
    half = float(t.ppf((1 + _LEVEL) / 2, len(values) - 1)) * _deviation(values) / math.sqrt(len(values))
    return mean_of(values) - half, mean_of(values) + half


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def _sequences(values: Mapping[str, float]) -> dict[str, float]:
    """Return means by sequence: neighbouring frames say the same thing twice, so a sequence counts once."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in values.items():
        found[name.rpartition("/")[0]].append(value)
    return {name: mean_of(own) for name, own in found.items()}


def _mean_of_sequences(values: Mapping[str, float]) -> float:
    return mean_of(list(_sequences(values).values()))
