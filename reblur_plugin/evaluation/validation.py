"""Scores and pictures of a data set: blurry, deblurred and adapted, the same for training, test and BasicSR's loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from reblur_plugin.data.images import to_uint8, write_image
from reblur_plugin.evaluation.journal import Entry, Journal
from reblur_plugin.evaluation.pictures import comparison
from reblur_plugin.evaluation.report import metric_options, report
from reblur_plugin.evaluation.scores import BLURRY, DEBLURRED, REBLURRED, Scores, TraceRow, stage_after
from reblur_plugin.evaluation.scoring import Pair, scored

if TYPE_CHECKING:
    from reblur_plugin.models.reblur_model import ReblurModel

Image = NDArray[np.uint8]


def validate(model: ReblurModel, dataset: Any, current_iter: int | str, tb_logger: Any, save_img: bool) -> Scores:
    """Score `model` on `dataset`, log the means, record the best ones, write pictures where asked.

    Images are shared out to the processes, each once; in a test those that its journal knows aren't computed again.
    Option keys under `val`: `metrics`, `best` (keep the networks with the best value of this metric on the first
    validation set), `tta`, `adapted_steps` (score and show the image after these updates too), `input_metrics` (score
    the blurry input as well), `reblurred` (score M_R(L) against the blurry input), `comparison` (a picture of all
    stages side by side), `batch_size` (images of one size that are deblurred at once, unless they adapt), `suffix`,
    `pbar`.
    """
    opt, set_name = model.opt, dataset.opt["name"]
    journal = Journal(Path(opt["path"]["journal"]), opt.get("rank", 0)) if opt["path"].get("journal") else None
    entries: list[Entry] = _of_first_process(journal.entries(set_name) if journal else [])
    done = {entry.index for entry in entries}
    todo = [index for index in range(len(dataset)) if index not in done]
    mine = todo[opt.get("rank", 0) :: opt.get("world_size", 1)]
    size = 1 if model.tta is not None else opt["val"].get("batch_size", 1)
    quiet = opt.get("rank", 0) != 0 or not opt["val"].get("pbar", not opt["is_train"])
    with tqdm(total=len(mine), desc=set_name, unit="image", disable=quiet or None, leave=False) as bar:
        for items in _batches(dataset, mine, size):
            for entry in _evaluate(model, dataset, items, current_iter if save_img else None):
                entries.append(entry)
                if journal:
                    journal.add(set_name, entry)
                bar.update()
    scores = Scores(blur_kind=getattr(dataset, "blur_kind", ""))
    for entry in _of_all(entries):
        scores.images[entry.name], scores.traces[entry.name] = entry.stages, entry.trace
        if entry.fallback:
            scores.fallbacks[entry.name] = entry.fallback
    report(model, set_name, scores, current_iter, tb_logger)
    return scores


def _batches(dataset: Any, indices: Sequence[int], size: int) -> Iterator[dict[int, dict[str, Any]]]:
    """Yield the items in order, up to `size` neighbours of equal image sizes together."""
    batch: dict[int, dict[str, Any]] = {}
    for index in indices:
        item = dataset[index]
        if batch and next(iter(batch.values()))["lq"].shape != item["lq"].shape:
            yield batch
            batch = {}
        batch[index] = item
        if len(batch) == size:  # before the next one is read, which may fail
            yield batch
            batch = {}
    if batch:
        yield batch


def _evaluate(
    model: ReblurModel, dataset: Any, items: dict[int, dict[str, Any]], shown_as: int | str | None
) -> list[Entry]:
    """Return what is known of images of one size; `shown_as` None writes no pictures."""
    opt = model.opt
    found = _stages(model, torch.stack([item["lq"] for item in items.values()]))
    sharps = [to_uint8(item["gt"]) if "gt" in item else None for item in items.values()]
    keys, pairs = [], []
    for index, stages, sharp in zip(items, found, sharps, strict=True):
        for stage, image in stages.images.items():
            if stage != BLURRY or opt["val"].get("input_metrics"):
                keys.append((index, stage))
                # What M_R makes of L is measured by how well it brings back the blur (Table 1).
                pairs.append(Pair(image, stages.images[BLURRY] if stage == REBLURRED else sharp))
    reblur_net = None if model.net_r is None else model.get_bare_model(model.net_r)
    scores = dict(zip(keys, scored(pairs, metric_options(opt), model.device, reblur_net), strict=True))
    entries = []
    for (index, item), stages, sharp in zip(items.items(), found, sharps, strict=True):
        name = _name(item, dataset)
        if shown_as is not None:
            _write_pictures(opt, dataset.opt["name"], name, stages.images, sharp, shown_as)
        of_stages = {stage: values for (owner, stage), values in scores.items() if owner == index}
        entries.append(Entry(index, name, of_stages, stages.trace, stages.fallback))
    return entries


@dataclass
class _Stages:
    """One image at every stage as 8-bit RGB, the steps of its adaptation and, if that went astray, why."""

    images: dict[str, Image]
    trace: list[TraceRow] = field(default_factory=list)
    fallback: str | None = None


def _stages(model: ReblurModel, blurry: Tensor) -> list[_Stages]:
    """Return the input, M_D's result and, where asked for, the adapted ones and M_R(L), for each image of a batch."""
    adaptation = None
    if model.tta is None:
        results = {BLURRY: blurry, DEBLURRED: model.deblur(blurry)}
    else:
        adaptation = model.adapt(blurry)  # of a single image
        last = len(adaptation.steps) - 1
        results = {BLURRY: blurry, DEBLURRED: adaptation.initial}
        for number in sorted({*model.opt["val"].get("adapted_steps", ()), last} - {0}):
            results[stage_after(number, last)] = adaptation.image if number == last else adaptation.after(number)
    if model.opt["val"].get("reblurred"):
        results[REBLURRED] = model.reblur(results[DEBLURRED])
    found = [_Stages({stage: to_uint8(images[i]) for stage, images in results.items()}) for i in range(len(blurry))]
    if adaptation is not None:
        found[0].fallback = adaptation.fallback
        found[0].trace = [
            TraceRow(step.number, stage_after(step.number, last), step.loss, step.change, step.seconds)
            for step in adaptation.steps
        ]
    return found


def _name(item: dict[str, Any], dataset: Any) -> str:
    """Return a name that no other image of the data set has: data set classes of others only know paths."""
    if "name" in item:
        return item["name"]
    path, root = Path(item["lq_path"]), dataset.opt.get("dataroot_lq")
    if root and path.is_relative_to(root):
        path = path.relative_to(root)
    return path.relative_to(path.anchor).with_suffix("").as_posix()


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
