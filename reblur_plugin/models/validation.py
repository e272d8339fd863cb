"""Scores and pictures of a data set: blurry, deblurred and adapted, the same for training, test and BasicSR's loops."""

from __future__ import annotations

import inspect
import math
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
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.models.journal import Entry, Journal
from reblur_plugin.models.pictures import comparison
from reblur_plugin.models.report import first_set, metric_options, report
from reblur_plugin.models.scores import BLURRY, DEBLURRED, REBLURRED, Scores, TraceRow, stage_after

host.prepare()

from basicsr.metrics import calculate_metric  # noqa: E402 - after host.prepare()
from basicsr.utils.registry import METRIC_REGISTRY  # noqa: E402

if TYPE_CHECKING:
    from reblur_plugin.models.reblur_model import ReblurModel

Image = NDArray[np.uint8]


def validate(model: ReblurModel, dataset: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> Scores:
    """Score `model` on `dataset`, log the means, record the best ones, write pictures where asked.

    Images are shared out to the processes, each once; in a test those that its journal knows aren't computed again.
    Option keys under `val`: `metrics`, `best` (keep the networks with the best value of this metric on the first
    validation set), `tta`, `adapted_steps` (score and show the image after these updates too), `input_metrics` (score
    the blurry input as well), `reblurred` (score M_R(L) against the blurry input), `comparison` (a picture of all
    stages side by side), `suffix`, `pbar`.
    """
    opt, set_name = model.opt, dataset.opt["name"]
    journal = Journal(Path(opt["path"]["journal"]), opt.get("rank", 0)) if opt["path"].get("journal") else None
    entries: list[Entry] = _of_first_process(journal.entries(set_name) if journal else [])
    done = {entry.index for entry in entries}
    todo = [index for index in range(len(dataset)) if index not in done]
    mine = todo[opt.get("rank", 0) :: opt.get("world_size", 1)]
    quiet = opt.get("rank", 0) != 0 or not opt["val"].get("pbar", not opt["is_train"])
    for index in tqdm(mine, desc=set_name, unit="image", disable=quiet, leave=False):
        entries.append(_evaluate(model, dataset, index, current_iter if save_img else None))
        if journal:
            journal.add(set_name, entries[-1])
    scores = Scores(blur_kind=getattr(dataset, "blur_kind", ""))
    for entry in _of_all(entries):
        scores.images[entry.name], scores.traces[entry.name] = entry.stages, entry.trace
        if entry.fallback:
            scores.fallbacks[entry.name] = entry.fallback
    report(model, set_name, scores, current_iter, tb_logger)
    return scores


def _evaluate(model: ReblurModel, dataset: Any, index: int, shown_as: int | str | None) -> Entry:
    """Return what is known of one image; `shown_as` None writes no pictures."""
    opt, item = model.opt, dataset[index]
    images, trace, fallback = _stages(model, item["lq"][None])
    sharp = to_uint8(item["gt"]) if "gt" in item else None
    name = _name(item, dataset)
    scores = {
        # What M_R makes of L is measured by how well it brings back the blur (Table 1).
        stage: _score(image, images[BLURRY] if stage == REBLURRED else sharp, metric_options(opt), model)
        for stage, image in images.items()
        if stage != BLURRY or opt["val"].get("input_metrics")
    }
    if shown_as is not None:
        _write_pictures(opt, dataset.opt["name"], name, images, sharp, shown_as)
    return Entry(index, name, scores, trace, fallback)


def try_metrics(dataset: Any, opt: dict[str, Any]) -> None:
    """Compute every metric once, on the first image: what a metric lacks must show before a long run, not after it.

    Raises:
        ReblurError: if a metric can't be computed or the image can't be read.
    """
    item = dataset[0]
    blurry = to_uint8(item["lq"])
    sharp = to_uint8(item["gt"]) if "gt" in item else None
    _check_best(opt, dataset.opt["name"], sharp is not None)
    for name, options in metric_options(opt).items():
        if opt.get("network_r") and needs_own_net(options):
            continue
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


def _check_best(opt: dict[str, Any], set_name: str, has_sharp: bool) -> None:
    best = opt["val"].get("best") if opt["is_train"] and set_name == first_set(opt) else None
    if best and not has_sharp and needs_reference(metric_options(opt)[best]["type"]):
        raise MetricError(
            f"val: best: {best} needs sharp images, and {set_name}, the first validation set, by which the best "
            "networks are chosen, has none; put a set with sharp images first"
        )


def _stages(model: ReblurModel, blurry: Tensor) -> tuple[dict[str, Image], list[TraceRow], str | None]:
    """Return the input, M_D's result and, where asked for, the adapted ones and M_R(L), as 8-bit RGB.

    With them come the steps of the adaptation and, if it went astray, why.
    """
    trace: list[TraceRow] = []
    fallback = None
    if model.tta is None:
        results = {BLURRY: blurry, DEBLURRED: model.deblur(blurry)}
    else:
        adaptation = model.adapt(blurry)
        last = len(adaptation.steps) - 1
        results = {BLURRY: blurry, DEBLURRED: adaptation.initial}
        for number in sorted({*model.opt["val"].get("adapted_steps", ()), last} - {0}):
            results[stage_after(number, last)] = adaptation.image if number == last else adaptation.after(number)
        fallback = adaptation.fallback
        trace = [
            TraceRow(step.number, stage_after(step.number, last), step.loss, step.change, step.seconds)
            for step in adaptation.steps
        ]
    if model.opt["val"].get("reblurred"):
        results[REBLURRED] = model.reblur(results[DEBLURRED])
    return {stage: to_uint8(image) for stage, image in results.items()}, trace, fallback


def _name(item: dict[str, Any], dataset: Any) -> str:
    """Return a name that no other image of the data set has: data set classes of others only know paths."""
    if "name" in item:
        return item["name"]
    path, root = Path(item["lq_path"]), dataset.opt.get("dataroot_lq")
    if root and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.relative_to(path.anchor).with_suffix("").as_posix()


def _score(
    image: Image, sharp: Image | None, metrics: dict[str, dict[str, Any]], model: ReblurModel | None = None
) -> dict[str, float]:
    """Return all metrics of one image; without a sharp one only those that need none."""
    data: dict[str, Any] = {"img": image[..., ::-1]}  # BasicSR's metrics take BGR
    if sharp is not None:
        data["img2"] = sharp[..., ::-1]
    found = {}
    for name, options in metrics.items():
        if sharp is None and needs_reference(options["type"]):
            continue
        own = {"reblur_net": model.get_bare_model(model.net_r)} if model and needs_own_net(options) else {}
        found[name] = float(calculate_metric(data | own, options))
    return found


def needs_reference(metric: str) -> bool:
    """Return whether a registered metric takes the sharp image."""
    reference = inspect.signature(METRIC_REGISTRY.get(metric)).parameters.get("img2")
    return reference is not None and reference.default is inspect.Parameter.empty


def needs_own_net(options: dict[str, Any]) -> bool:
    """Return whether a metric takes the model's M_R, since its block names no other."""
    return "reblur_net" in inspect.signature(METRIC_REGISTRY.get(options["type"])).parameters and not options.get(
        "weights"
    )


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
    for stage in images.keys() - {BLURRY}:
        ending = "" if stage == DEBLURRED else f"_{stage}"
        write_image(stem.with_name(f"{stem.name}{ending}.png"), images[stage])
    if opt["val"].get("comparison"):
        panels = images | ({"sharp": sharp} if sharp is not None else {})
        write_image(stem.with_name(f"{stem.name}_comparison.png"), comparison(panels))


def _of_first_process(entries: list[Entry]) -> list[Entry]:
    """Return what the first process has: all must share out the same images, and none may note one before that."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shared: list[Any] = [entries]
        torch.distributed.broadcast_object_list(shared)
        return list(shared[0])
    return entries


def _of_all(entries: list[Entry]) -> list[Entry]:
    """Return the entries of all processes, each image once, in the order of the data set."""
    shares: list[list[Entry]] = [entries]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(shares, entries)
    by_index = {entry.index: entry for share in shares for entry in share}
    return [by_index[index] for index in sorted(by_index)]
