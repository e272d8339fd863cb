"""Scores of a data set: by image and stage, in the mean, as a table for people and as CSV files for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reblur_plugin.files import for_people, whole_file

BLURRY, DEBLURRED, ADAPTED, REBLURRED = "blurry", "deblurred", "adapted", "reblurred"
RESULT = "result"  # of a folder of pictures, whoever made them
UNCHANGED = "unchanged"  # L itself against B: what an M_R scores that changes nothing (Table 1)


def stage_after(number: int, steps: int) -> str:
    """Return what the image after `number` of `steps` updates is called: deblurred, adapted_1, ..., adapted."""
    if number == 0:
        return DEBLURRED
    return ADAPTED if number == steps else f"{ADAPTED}_{number}"


@dataclass
class TraceRow:
    """One step of an image's adaptation: see `core.algorithm1.AdaptStep`."""

    step: int
    stage: str
    loss: float | None
    change: float
    seconds: float


@dataclass
class Scores:
    """What is known of the images of a data set, by their names.

    Attributes:
        images: metric values by stage.
        traces: the steps of the adaptation.
        fallbacks: why an image stays unadapted.
        blur_kind: of the data set, empty if it has none.
    """

    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    traces: dict[str, list[TraceRow]] = field(default_factory=dict)
    fallbacks: dict[str, str] = field(default_factory=dict)
    blur_kind: str = ""

    def mean(self, stage: str, metric: str) -> float:
        """Return a metric's mean over the images where it is a finite number, nan if there is none.

        NIQE is nan on small images, PSNR infinite where an image equals its sharp partner (`infinite`).
        """
        values = [image[stage][metric] for image in self.images.values() if metric in image.get(stage, {})]
        finite = [value for value in values if math.isfinite(value)]
        return math.fsum(finite) / len(finite) if finite else math.nan

    def infinite(self, metric: str) -> list[str]:
        """Return the images for which a metric is infinite at some stage."""
        return [
            name
            for name, stages in self.images.items()
            if any(math.isinf(values.get(metric, 0.0)) for values in stages.values())
        ]

    def stages(self) -> list[str]:
        """Return the stages that there are, in their natural order."""
        return list(dict.fromkeys(stage for image in self.images.values() for stage in image))

    def metrics(self) -> list[str]:
        """Return the metrics that some image has: photographs without sharp partners lack most."""
        stages = [values for image in self.images.values() for values in image.values()]
        return list(dict.fromkeys(metric for values in stages for metric in values))

    def table(self) -> str:
        """Return the means as text, a row a stage; "-" where there is none."""
        metrics = self.metrics()
        rows = [["", *metrics]]
        for stage in self.stages():
            means = (self.mean(stage, metric) for metric in metrics)
            rows.append([stage, *("-" if math.isnan(mean) else f"{mean:.4f}" for mean in means)])
        return text_table(rows)

    def write_csv(self, path: Path, metrics: Sequence[str]) -> None:
        """Write one row for each image and stage, with the kind of blur."""
        rows = [
            [name, stage, *(values.get(metric, "") for metric in metrics), self.blur_kind]
            for name, stages in self.images.items()
            for stage, values in stages.items()
        ]
        write_rows(path, ["image", "stage", *metrics, "blur_kind"], rows)

    def write_trace(self, path: Path, metrics: Sequence[str]) -> None:
        """Write one row for each image and step of its adaptation, with the scores where the step was scored."""
        rows = [
            [name, row.step, "" if row.loss is None else row.loss, row.change, f"{row.seconds:.3f}"]
            + [self.images[name].get(row.stage, {}).get(metric, "") for metric in metrics]
            for name, trace in self.traces.items()
            for row in trace
        ]
        write_rows(path, ["image", "step", "loss", "change", "seconds", *metrics], rows)


def text_table(rows: list[list[str]]) -> str:
    """Return rows of cells as text in columns, the first flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        for first, *others in rows
    )
    return "\n".join("  ".join(cells) for cells in lines)


def write_rows(path: Path, header: list[str], rows: list[list[Any]], remedy: str = "free or change the disk") -> None:
    """Write a CSV file; `remedy` is what the user can do if the disk refuses."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with whole_file(path, remedy) as file:
        file.write(for_people(text.getvalue()))
