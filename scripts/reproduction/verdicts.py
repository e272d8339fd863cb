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
        effects: of each training, the mean over the sequences.
        units: of each sequence, the mean over the trainings.
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
    effects: list[float]
    units: dict[str, float]
    verdict: Verdict


def judge(before: Values, after: Values, better: Literal["higher", "lower"], margin: float = 0.0) -> Judged | None:
    """Return a comparison and its verdict; None if both arms have no seed or no image in common.

    Trainings with the same values in both arms are one.

    Args:
        before, after: values of both arms; what isn't finite in both arms of every seed is left out.
        better: the direction that the paper claims.
        margin: how far against that direction an effect may go and still agree: a claim of a small price.
    """
    seeds = sorted(before.keys() & after.keys())
    if all((before[seed], after[seed]) == (before[seeds[0]], after[seeds[0]]) for seed in seeds):
        seeds = seeds[:1]  # the same weights: one training, however often it was tested
    differences = [
        {name: value - before[seed].get(name, math.nan) for name, value in after[seed].items()} for seed in seeds
    ]
    names = [
        name
        for name in (differences[0] if differences else ())
        if all(math.isfinite(one.get(name, math.nan)) for one in differences)
    ]
    if not names:
        return None

    def level(arm: Values, seed: int) -> float:
        return _mean_of_sequences({name: arm[seed][name] for name in names})

    effects = [_mean_of_sequences({name: one[name] for name in names}) for one in differences]
    units = _sequences({name: mean_of([one[name] for one in differences]) for name in names})
    found = estimate(list(units.values()))
    over_seeds, over_sequences = _interval(effects), (found.low, found.high)
    sign = 1 if better == "higher" else -1
    signed = [sign * effect + margin for effect in effects]
    intervals = [over_sequences] if len(seeds) == 1 else [over_sequences, over_seeds]
    return Judged(
        before=mean_of([level(before, seed) for seed in seeds]),
        after=mean_of([level(after, seed) for seed in seeds]),
        effect=mean_of(effects),
        over_seeds=over_seeds,
        over_sequences=over_sequences,
        spread=_deviation([level(before, seed) for seed in seeds]),
        agree=sum(effect > 0 for effect in signed),
        seeds=len(seeds),
        sequences=len(units),
        images=len(names),
        effects=effects,
        units=units,
        verdict=_verdict(signed, [_turned(one, sign, margin) for one in intervals]),
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
    """Return means by sequence, which counts once: neighbouring frames say the same thing twice.

    A photograph outside of all folders is one by itself.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in values.items():
        found[name.rpartition("/")[0] or name].append(value)
    return {name: mean_of(own) for name, own in found.items()}


def _mean_of_sequences(values: Mapping[str, float]) -> float:
    return mean_of(list(_sequences(values).values()))
