"""Scores and pictures of a data set: blurry, deblurred and adapted, the same for training, test and BasicSR's loops."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from reblur_plugin.core.adapt import Adaptation
from reblur_plugin.data.images import to_uint8, write_image
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.journal import Entry
from reblur_plugin.evaluation.pictures import Picture, comparison
from reblur_plugin.evaluation.request import Request
from reblur_plugin.evaluation.scores import BLURRY, DEBLURRED, REBLURRED, UNCHANGED, Scores, TraceRow, stage_after
from reblur_plugin.evaluation.scoring import Awaited, Scorer
from reblur_plugin.evaluation.values import Measured
from reblur_plugin.evaluation.variants import fingerprint_of_pixels
from reblur_plugin.evaluation.workers import workers_for
from reblur_plugin.names import leads_out


class Deblurrer(Protocol):
    """What is evaluated. Images are `(B, 3, H, W)` from 0 to 1."""

    device: torch.device

    def deblur(self, blurry: Tensor) -> Tensor:
        """Return M_D(B)."""

    def adapt(self, blurry: Tensor) -> Adaptation:
        """Return Algorithm 1's result for a single image."""

    def reblur(self, deblurred: Tensor) -> Tensor:
        """Return M_R(L)."""


def evaluate(model: Deblurrer, dataset: Any, request: Request, reblur_net: nn.Module | None = None) -> Scores:
    """Return the scores of `model` on a data set; write its pictures on the way.

    Args:
        model: M_D, with all that `request` needs of it.
        dataset: items with `lq`, `lq_path` and, where there are some, `gt` and `name`.
        request: stages, metrics, pictures; whose share of the images.
        reblur_net: M_R, for metrics that take the model's own.
    """
    set_name, journal = dataset.opt["name"], request.journal
    entries: list[Entry] = _of_first_process(journal.entries(set_name) if journal else [])
    done = {entry.index for entry in entries}
    todo = [index for index in range(len(dataset)) if index not in done]
    mine = todo[request.rank :: request.world_size]
    workers = workers_for(model.device, len(mine), request.world_size)
    with (
        Scorer(request.metrics, model.device, reblur_net, workers) as scorer,
        tqdm(total=len(mine), desc=set_name, unit="image", disable=request.quiet or None, leave=False) as bar,
    ):
        batches = _batches(dataset, mine, 1 if request.adapts else request.batch_size)
        for entry in _scored((_begin(model, dataset, items, request, scorer) for items in batches), scorer.ahead):
            entries.append(entry)
            if journal:
                journal.add(set_name, entry)
            bar.update()
    scores = Scores(blur_kind=getattr(dataset, "blur_kind", ""))
    for entry in _of_all(entries):
        scores.images[entry.name], scores.traces[entry.name] = entry.stages, entry.trace
        if entry.fallback:
            scores.fallbacks[entry.name] = entry.fallback
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


@dataclass
class _Stages:
    """One image at every stage as 8-bit RGB, the steps of its adaptation and, if that went astray, why."""

    images: dict[str, Picture]
    trace: list[TraceRow] = field(default_factory=list)
    fallback: str | None = None


@dataclass
class _Begun:
    """An image whose pictures are written, and whose scores may still be computed; `entry` is without them."""

    entry: Entry
    stages: dict[str, Awaited]


def _scored(begun: Iterable[list[_Begun]], ahead: int) -> Iterator[Entry]:
    """Yield images in order, each with its scores; up to `ahead` of them wait for theirs while the next are begun.

    An error on the way is raised after the images that waited when it came.
    """
    waiting: deque[_Begun] = deque()

    def first() -> Entry:
        image = waiting.popleft()
        image.entry.stages = {stage: awaited.result() for stage, awaited in image.stages.items()}
        return image.entry

    failure = None
    try:
        for images in begun:
            waiting += images
            while waiting and (len(waiting) > ahead or all(awaited.done() for awaited in waiting[0].stages.values())):
                yield first()
    except Exception as error:
        failure = error
    while waiting:
        yield first()
    if failure:
        raise failure


def _begin(
    model: Deblurrer, dataset: Any, items: dict[int, dict[str, Any]], request: Request, scorer: Scorer
) -> list[_Begun]:
    """Deblur images of one size, let them be scored and write their pictures."""
    found = _stages(model, torch.stack([item["lq"] for item in items.values()]), request)
    sharps = [to_uint8(item["gt"]) if "gt" in item else None for item in items.values()]
    awaited = [
        {stage: scorer.begin(one) for stage, one in _measured(stages.images, sharp, request).items()}
        for stages, sharp in zip(found, sharps, strict=True)
    ]
    begun = []
    for (index, item), stages, sharp, scores in zip(items.items(), found, sharps, awaited, strict=True):
        name = _name(item, dataset)
        written: dict[str, Path] = {}
        if request.stem is not None:
            written = _write_pictures(request.stem(name), stages.images, sharp, request.comparison)
        entry = Entry(index, name, {}, stages.trace, stages.fallback)
        if request.journal:
            _note_files(entry, item, written, request.journal.folder.parent, stages.images[BLURRY], sharp)
        begun.append(_Begun(entry, scores))
    return begun


def _measured(images: dict[str, Picture], sharp: Picture | None, request: Request) -> dict[str, Measured]:
    """Return what is scored against what, by stage: all against S, but what M_R makes of L against B (Table 1)."""
    found = {stage: Measured(image, sharp) for stage, image in images.items()}
    if not request.input_metrics:
        del found[BLURRY]
    if request.reblurred:
        found[REBLURRED] = Measured(images[REBLURRED], images[BLURRY])
        found[UNCHANGED] = Measured(images[DEBLURRED], images[BLURRY])
    return found


def _note_files(
    entry: Entry, item: dict[str, Any], pictures: dict[str, Path], folder: Path, blurry: Picture, sharp: Picture | None
) -> None:
    """Note where an image's files are, and what the data set's files hold."""
    entry.pictures = {stage: Path(os.path.relpath(path, folder)).as_posix() for stage, path in pictures.items()}
    entry.blurry, entry.pixels = os.path.abspath(item["lq_path"]), {"blurry": fingerprint_of_pixels(blurry)}
    if sharp is not None:
        entry.sharp = os.path.abspath(item["gt_path"]) if "gt_path" in item else None
        entry.pixels["sharp"] = fingerprint_of_pixels(sharp)


def _stages(model: Deblurrer, blurry: Tensor, request: Request) -> list[_Stages]:
    """Return the input, M_D's result and, where asked for, the adapted ones and M_R(L), for each image of a batch."""
    adaptation = None
    if not request.adapts:
        results = {BLURRY: blurry, DEBLURRED: model.deblur(blurry)}
    else:
        adaptation = model.adapt(blurry)  # of a single image
        last = len(adaptation.steps) - 1
        results = {BLURRY: blurry, DEBLURRED: adaptation.initial}
        for number in sorted({*request.adapted_steps, last} - {0}):
            results[stage_after(number, last)] = adaptation.image if number == last else adaptation.after(number)
    if request.reblurred:
        results[REBLURRED] = model.reblur(results[DEBLURRED].float())  # adaptation may give bf16
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
        if leads_out(str(item["name"])):
            raise ReblurError(f"{dataset.opt['name']}: expected a name within its folder, got {item['name']!r}")
        return str(item["name"])
    path, root = Path(item["lq_path"]), dataset.opt.get("dataroot_lq")
    if root and path.is_relative_to(root):
        path = path.relative_to(root)
    inside = Path(*(part for part in path.relative_to(path.anchor).parts if part != ".."))
    return inside.with_suffix("").as_posix()


def _write_pictures(
    stem: Path, images: dict[str, Picture], sharp: Picture | None, side_by_side: bool
) -> dict[str, Path]:
    """Write a picture for each stage but the input; return their files."""
    written = {}
    for stage in images.keys() - {BLURRY}:
        ending = "" if stage == DEBLURRED else f"_{stage}"
        written[stage] = stem.with_name(f"{stem.name}{ending}.png")
        write_image(written[stage], images[stage])
    if side_by_side:
        panels = images | ({"sharp": sharp} if sharp is not None else {})
        write_image(stem.with_name(f"{stem.name}_comparison.png"), comparison(panels))
    return written


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
