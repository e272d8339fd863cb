"""Scores and pictures of a data set: blurry, deblurred and adapted, the same for training, test and BasicSR's loops."""

from __future__ import annotations

import csv
import inspect
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from reblur_plugin import host
from reblur_plugin.data.images import to_uint8, write_image
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file
from reblur_plugin.models.pictures import comparison
from reblur_plugin.rules import KNOWN_BETTER

host.prepare()

from basicsr.metrics import calculate_metric  # noqa: E402 - after host.prepare()
from basicsr.utils import get_root_logger  # noqa: E402
from basicsr.utils.registry import METRIC_REGISTRY  # noqa: E402

if TYPE_CHECKING:
    from reblur_plugin.models.reblur_model import ReblurModel

Image = NDArray[np.uint8]
BLURRY, DEBLURRED, ADAPTED, REBLURRED = STAGES = ("blurry", "deblurred", "adapted", "reblurred")


class MetricError(ReblurError):
    """A metric that can't be computed as the options ask, or scores that can't be written."""


@dataclass
class Scores:
    """Metric values by image and stage ("blurry", "deblurred", "adapted")."""

    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def mean(self, stage: str, metric: str) -> float:
        """Return a metric's mean over the images where it exists (NIQE is nan on small ones), nan if there is none."""
        values = [image[stage][metric] for image in self.images.values() if metric in image.get(stage, {})]
        finite = [value for value in values if not math.isnan(value)]
        return math.fsum(finite) / len(finite) if finite else math.nan

    def stages(self) -> list[str]:
        """Return the stages that have scores, in their natural order."""
        return [stage for stage in STAGES if any(stage in image for image in self.images.values())]

    def table(self, metrics: Iterable[str]) -> str:
        """Return the means as text, a row a stage."""
        metrics = list(metrics)
        lines = [f"{'':10s}" + "".join(f"{metric:>10s}" for metric in metrics)]
        for stage in self.stages():
            lines.append(f"{stage:10s}" + "".join(f"{self.mean(stage, metric):10.4f}" for metric in metrics))
        return "\n".join(lines)

    def write_csv(self, path: Path, metrics: Iterable[str]) -> None:
        """Write one row for each image and stage.

        Raises:
            MetricError: if the disk refuses.
        """
        metrics = list(metrics)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "stage", *metrics])
        for name, stages in sorted(self.images.items()):
            for stage, values in stages.items():
                writer.writerow([name, stage, *(values.get(metric, "") for metric in metrics)])
        try:
            with whole_file(path) as file:
                file.write(text.getvalue().encode())
        except OSError as error:
            raise MetricError(f"{path}: can't be written ({error.strerror}); free or change the disk") from error


def validate(model: ReblurModel, dataset: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> Scores:
    """Score `model` on `dataset`, log the means, record the best ones, write pictures where asked.

    Images are shared out to the processes, each once. Option keys under `val`: `metrics`, `best` (keep the networks
    with the best value of this metric), `tta`, `input_metrics` (score the blurry input as well), `reblurred` (score
    M_R(L) against the blurry input), `comparison` (a picture of all stages side by side), `suffix`, `pbar`.
    """
    opt = model.opt
    metrics = metric_options(opt)
    scores = Scores()
    mine = range(opt.get("rank", 0), len(dataset), opt.get("world_size", 1))
    quiet = opt.get("rank", 0) != 0 or not opt["val"].get("pbar", not opt["is_train"])
    for index in tqdm(mine, desc=dataset.opt["name"], unit="image", disable=quiet, leave=False):
        item = dataset[index]
        images = _stages(model, item["lq"][None])
        sharp = to_uint8(item["gt"]) if "gt" in item else None
        name = _name(item, dataset)
        scored = [stage for stage in images if stage != BLURRY or opt["val"].get("input_metrics")]
        scores.images[name] = {
            # What M_R makes of L is measured by how well it brings back the blur (Table 1).
            stage: _score(images[stage], images[BLURRY] if stage == REBLURRED else sharp, metrics)
            for stage in scored
        }
        if save_img:
            _write_pictures(opt, dataset.opt["name"], name, images, sharp, current_iter)
    _gather(scores)
    if metrics:
        _report(model, dataset.opt["name"], scores, metrics, current_iter, tb_logger)
    return scores


def try_metrics(dataset: Any, opt: dict[str, Any]) -> None:
    """Compute every metric once, on the first image: what a metric lacks must show before a long run, not after it.

    Raises:
        ReblurError: if a metric can't be computed or the image can't be read.
    """
    item = dataset[0]
    blurry = to_uint8(item["lq"])
    sharp = to_uint8(item["gt"]) if "gt" in item else None
    for name, options in metric_options(opt).items():
        try:
            scores = _score(blurry, sharp, {name: options})
        except ReblurError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, cv2.error) as error:
            raise MetricError(
                f"val: metrics: {name}: {options['type']} failed on {item['lq_path']}: {error}"
            ) from error
        if name in scores and math.isnan(scores[name]) and needs_reference(options["type"]):
            height, width = blurry.shape[:2]
            raise MetricError(
                f"val: metrics: {name}: expected a number, got nan on {item['lq_path']} of {width}x{height} pixels; "
                "lower crop_border or use larger images"
            )


def metric_options(opt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `val: metrics` with the direction of each metric filled in."""
    metrics = opt["val"].get("metrics") or {}
    for options in metrics.values():
        options.setdefault("better", KNOWN_BETTER.get(options["type"], "higher"))
    return metrics


def _stages(model: ReblurModel, blurry: Tensor) -> dict[str, Image]:
    """Return the input, M_D's result and, where asked for, the adapted one and M_R(L), as 8-bit RGB."""
    if model.tta is None:
        results = {BLURRY: blurry, DEBLURRED: model.deblur(blurry)}
    else:
        adaptation = model.adapt(blurry)
        results = {BLURRY: blurry, DEBLURRED: adaptation.initial, ADAPTED: adaptation.image}
    if model.opt["val"].get("reblurred"):
        results[REBLURRED] = model.reblur(results[DEBLURRED])
    return {stage: to_uint8(image) for stage, image in results.items()}


def _name(item: dict[str, Any], dataset: Any) -> str:
    """Return a name that no other image of the data set has: data set classes of others only know paths."""
    if "name" in item:
        return item["name"]
    path, root = Path(item["lq_path"]), dataset.opt.get("dataroot_lq")
    if root and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.relative_to(path.anchor).with_suffix("").as_posix()


def _score(image: Image, sharp: Image | None, metrics: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return all metrics of one image; without a sharp one only those that need none."""
    data = {"img": image[..., ::-1]}  # BasicSR's metrics take BGR
    if sharp is not None:
        data["img2"] = sharp[..., ::-1]
    return {
        name: float(calculate_metric(data, options))
        for name, options in metrics.items()
        if sharp is not None or not needs_reference(options["type"])
    }


def needs_reference(metric: str) -> bool:
    """Return whether a registered metric takes the sharp image."""
    reference = inspect.signature(METRIC_REGISTRY.get(metric)).parameters.get("img2")
    return reference is not None and reference.default is inspect.Parameter.empty


def _write_pictures(
    opt: dict[str, Any], dataset: str, name: str, images: dict[str, Image], sharp: Image | None, current_iter: int | str
) -> None:
    """Write results in BasicSR's folders; names keep their sequence, so that none overwrites another."""
    folder = Path(opt["path"]["visualization"])
    if opt["is_train"]:
        stem = folder / name / f"{Path(name).name}_{current_iter}"
    else:
        suffix = opt["val"].get("suffix")
        stem = folder / dataset / (f"{name}_{suffix}" if suffix else name)
    write_image(stem.with_name(f"{stem.name}.png"), images[DEBLURRED])
    if ADAPTED in images:
        write_image(stem.with_name(f"{stem.name}_adapted.png"), images[ADAPTED])
    if opt["val"].get("comparison"):
        panels = images | ({"sharp": sharp} if sharp is not None else {})
        write_image(stem.with_name(f"{stem.name}_comparison.png"), comparison(panels))


def _gather(scores: Scores) -> None:
    """Give every process the scores of all."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, scores.images)
        scores.images = {name: values for share in shares for name, values in share.items()}


def _report(
    model: ReblurModel,
    dataset: str,
    scores: Scores,
    metrics: dict[str, dict[str, Any]],
    current_iter: int | str,
    tb_logger: Any,
) -> None:
    model._initialize_best_metric_results(dataset)
    for metric in metrics:
        model._update_best_metric_result(dataset, metric, scores.mean(DEBLURRED, metric), current_iter)
        if tb_logger:
            for stage in scores.stages():
                name = metric if stage == DEBLURRED else f"{metric}_{stage}"
                tb_logger.add_scalar(f"metrics/{dataset}/{name}", scores.mean(stage, metric), current_iter)
    best = model.best_metric_results[dataset]
    chosen = model.opt["val"].get("best")
    if model.opt["is_train"] and chosen and best[chosen]["iter"] == current_iter and model.opt.get("rank", 0) == 0:
        model.save_networks("best")
    bests = ", ".join(f"{metric} {best[metric]['val']:.4f} @ {best[metric]['iter']}" for metric in metrics)
    note = f"\nBest: {bests}" if model.opt["is_train"] else ""
    get_root_logger().info(f"{dataset}, {len(scores.images)} images\n{scores.table(metrics)}{note}")
    if not model.opt["is_train"] and model.opt.get("rank", 0) == 0:
        scores.write_csv(Path(model.opt["path"]["log"]) / f"{dataset}.csv", metrics)
