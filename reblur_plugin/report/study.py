"""What a report is about: methods, images, and the scores of each on each, from runs of any kind."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from reblur_plugin.data.listing import in_order
from reblur_plugin.evaluation.records import Record, Run
from reblur_plugin.evaluation.scores import ADAPTED, BLURRY, DEBLURRED, REBLURRED, RESULT, UNCHANGED
from reblur_plugin.evaluation.variants import PAPER, Variant
from reblur_plugin.report.statistics import mean_of

_ORDER = ("LPIPS", "NIQE", "PSNR", "SSIM", "sharpness", "brightness", "reblurability")  # the paper's, and ours
_AGAINST_BLURRY = {REBLURRED: "reblurred (against blurry)", UNCHANGED: "deblurred (against blurry)"}
SHARP = "sharp"  # what the data set's sharp images are called
_SHOWN = 3


@dataclass(frozen=True)
class Method:
    """A column of pictures: a run at one stage.

    Attributes:
        run: the run's name, empty for the input that all runs share.
        stage: "blurry", "deblurred", "adapted_1", ..., "result".
        step: of the adaptation, None without.
    """

    run: str
    stage: str
    step: int | None = None


@dataclass
class Study:
    """Runs side by side.

    Attributes:
        runs: as read.
        methods: in the order of the runs and their stages; the input, which they share, first.
        images: names in order.
        variants: the metrics, the paper's four first.
        values: of a method and a metric, by image.
        pictures: files of a method by image.
        sharp, blurry: files by image.
        records: all of them by method and image.
        problems: a sentence for each thing that can't be compared.
    """

    runs: list[Run]
    methods: list[Method] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    variants: list[Variant] = field(default_factory=list)
    values: dict[tuple[Method, Variant], dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    pictures: dict[Method, dict[str, Path]] = field(default_factory=lambda: defaultdict(dict))
    sharp: dict[str, Path] = field(default_factory=dict)
    blurry: dict[str, Path] = field(default_factory=dict)
    records: dict[Method, dict[str, Record]] = field(default_factory=lambda: defaultdict(dict))
    problems: list[str] = field(default_factory=list)

    def label(self, method: Method) -> str:
        """Return what tables call a method: its run and stage, one of them where that says all."""
        stage = _AGAINST_BLURRY.get(method.stage, method.stage.replace("_", " "))
        if method.stage == RESULT:
            return method.run
        return stage if not method.run or len(self.run_names()) == 1 else f"{method.run} {stage}"

    def run_names(self) -> list[str]:
        """Return the runs' names in their order."""
        return list(dict.fromkeys(one.run for one in self.methods if one.run))

    def find(self, run: str, *stages: str) -> Method | None:
        """Return a run's method at one of these stages."""
        return next((one for one in self.methods if one.run == run and one.stage in stages), None)

    def mean(self, method: Method | None, variant: Variant | None) -> float:
        """Return a method's mean over its images with a finite value; nan without any."""
        found = self.values.get((method, variant), {}) if method and variant else {}
        return mean_of(list(found.values()))

    def adaptations(self) -> list[tuple[Method, Method]]:
        """Return what each run that adapts gives before and after."""
        pairs = ((self.find(run, DEBLURRED), self.find(run, ADAPTED)) for run in self.run_names())
        return [(before, after) for before, after in pairs if before and after]

    def reblurring(self) -> dict[str, tuple[float, float, float]]:
        """Return PSNR of L to S, of M_R(L) to B and of L to B, by the runs that reblur (Table 1); nan where unknown."""
        psnr = self.metric("PSNR")
        return {
            one.run: (
                self.mean(self.find(one.run, DEBLURRED), psnr),
                self.mean(one, psnr),
                self.mean(self.find(one.run, UNCHANGED), psnr),
            )
            for one in self.methods
            if one.stage == REBLURRED and psnr
        }

    def metric(self, name: str) -> Variant | None:
        """Return the paper's form of a metric, else the first one."""
        return next((one for one in self.variants if one.metric == name), None)

    def of_run(self, run: str) -> list[Method]:
        """Return the methods of a run whose pictures are results: all but M_R(L) and what it is compared with."""
        return [one for one in self.methods if one.run == run and one.stage not in (REBLURRED, UNCHANGED)]

    def results(self) -> list[Method]:
        """Return all methods but M_R(L) and what it is compared with."""
        return [one for one in self.methods if one.stage not in (REBLURRED, UNCHANGED)]

    def files(self, name: str, methods: Sequence[Method]) -> dict[str, Path]:
        """Return an image's files by what they are called: blurry first, those of methods, sharp last."""
        found = {BLURRY: self.blurry[name]} if name in self.blurry else {}
        for method in methods:
            if name in self.pictures.get(method, {}):
                found[self.label(method)] = self.pictures[method][name]
        return found | ({SHARP: self.sharp[name]} if name in self.sharp else {})

    def ends(self) -> list[Method]:
        """Return the input, and of each run its first and its last result."""
        found = [one for one in self.methods if one.stage == BLURRY]
        for run in self.run_names():
            own = self.of_run(run)
            found += own if len(own) <= 2 else [own[0], own[-1]]
        return found

    def common(self, methods: Sequence[Method], variant: Variant) -> list[str]:
        """Return the images on which all methods have a finite value."""
        found = [self.values.get((method, variant), {}) for method in methods]
        return [name for name in self.images if all(math.isfinite(values.get(name, math.nan)) for values in found)]

    def on(self, method: Method, variant: Variant, images: Iterable[str]) -> list[float]:
        """Return a method's values on images."""
        values = self.values.get((method, variant), {})
        return [values[name] for name in images]


def study_of(runs: Sequence[Run]) -> Study:
    """Return runs side by side; what can't be compared is left out and named in `problems`.

    An image is the same in two runs if its name is, and its sharp and blurry pixels as far as both runs know them.
    """
    study = Study(list(runs))
    pixels: dict[str, tuple[dict[str, str], str]] = {}
    found_variants: list[Variant] = []
    for run in runs:
        if not run.records:
            study.problems.append(f"{run.folder}: holds no scores; left out")
        if not run.finished:
            study.problems.append(f"{run.folder}: unfinished; the images that it had finished are shown")
        if run.torn:
            study.problems.append(f"{run.folder}: damaged lines of records: {run.torn}; left out")
        if run.replaced:
            count = f"lines of one image with other scores: {run.replaced}"
            study.problems.append(f"{run.folder}: {count}; the last counts")
        _add_run(study, run, pixels, found_variants)
    names = {one for values in study.values.values() for one in values}
    names |= {one for pictures in study.pictures.values() for one in pictures}
    study.images = sorted(names, key=in_order)
    study.variants = sorted(found_variants, key=lambda one: (*_rank(one), found_variants.index(one)))
    study.methods.sort(key=lambda one: one.run != "")  # the shared input first
    _note_other_images(study)
    return study


def _rank(variant: Variant) -> tuple[int, bool]:
    metric = variant.metric
    return _ORDER.index(metric) if metric in _ORDER else len(_ORDER), PAPER.get(metric) != variant.form


def _add_run(
    study: Study, run: Run, pixels: dict[str, tuple[dict[str, str], str]], found_variants: list[Variant]
) -> None:
    other: dict[str, list[str]] = defaultdict(list)
    for record in _told_apart(run.records):
        known, first = pixels.setdefault(record.image, ({}, run.name))
        if kinds := [kind for kind, value in record.pixels.items() if known.get(kind, value) != value]:
            other[f"{' and '.join(kinds)} images of {run.name} and {first}"].append(record.image)
            continue
        known.update(record.pixels)
        method = Method("" if record.stage == BLURRY else run.name, record.stage, record.step)
        method = next((one for one in study.methods if (one.run, one.stage) == (method.run, method.stage)), method)
        if method not in study.methods:
            study.methods.append(method)
        _add_record(study, run, method, record, found_variants)
    for which, names in other.items():
        shown = ", ".join(list(dict.fromkeys(names))[:_SHOWN])
        study.problems.append(f"{which} differ under one name ({shown}): other data; those of {run.name} are left out")


def _told_apart(records: Sequence[Record]) -> list[Record]:
    """Return records in which images of several data sets of one run that share a name carry their set's name."""
    sets: dict[str, set[str]] = defaultdict(set)
    for record in records:
        sets[record.image].add(record.dataset)
    return [
        replace(record, image=f"{record.dataset}/{record.image}") if len(sets[record.image]) > 1 else record
        for record in records
    ]


def _add_record(study: Study, run: Run, method: Method, record: Record, found_variants: list[Variant]) -> None:
    study.records[method][record.image] = record
    for score in record.scores.values():
        if score.variant not in found_variants:
            found_variants.append(score.variant)
        study.values[method, score.variant][record.image] = score.value
    if record.picture:
        study.pictures[method][record.image] = run.folder / record.picture
    for files, path in ((study.sharp, record.sharp), (study.blurry, record.blurry)):
        if path:
            files.setdefault(record.image, Path(path))


def _note_other_images(study: Study) -> None:
    """Say where runs have no image, or not all, in common."""
    sets: dict[str, set[str]] = {}
    for method, found in study.records.items():
        for name, record in found.items():
            sets.setdefault(method.run or record.run, set()).add(name)
    first = next(iter(sets), None)
    for name, images in sets.items():
        if first is None or name == first:
            continue
        shared = len(images & sets[first])
        if not shared:
            study.problems.append(f"{name} and {first} have no image in common: other data, not compared")
        elif shared < max(len(images), len(sets[first])):
            count = f"{shared} image{'s' * (shared > 1)}"
            study.problems.append(f"{name} and {first} have {count} in common; differences are over these")
