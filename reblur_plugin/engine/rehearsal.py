"""A rehearsal of a training: everything built, a few real iterations, and what the whole run will take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from reblur_plugin import training_states
from reblur_plugin.archs.complexity import count_macs, count_parameters
from reblur_plugin.core.schedule import LearningRate
from reblur_plugin.engine.batches import Batches
from reblur_plugin.engine.preparation import Datasets, prepare, try_out
from reblur_plugin.engine.processes import memory_in_gib
from reblur_plugin.engine.progress import Progress
from reblur_plugin.host import build_model
from reblur_plugin.options.reading import Options

_WARM_UP, _TIMED = 1, 3


def rehearse(options: Options, root: Path) -> Iterator[str]:
    """Yield the lines of the report, as they become known; arguments as for `prepare`. Nothing is written to disk.

    Raises:
        ReblurError: for everything that would end the training before or in its first iterations.
    """
    opt, datasets = prepare(options, root, True)
    val = {key: value for key, value in opt["val"].items() if key != "best"}  # whose networks would be written
    state, networks, _ = training_states.find(opt, auto_resume=False)
    opt["path"] |= networks
    model = build_model({**opt, "val": val})
    if state:
        model.resume_training(state)
    progress = Progress(opt, len(datasets["train"]), state)
    yield from _sizes(opt, datasets, model, progress)
    validated = {phase: dataset for phase, dataset in datasets.items() if phase != "train" and opt["val"]}
    with closing(Batches(datasets["train"], opt, 0)) as batches:
        try_out(opt, model, batches, validated.values())
        seconds = _time_iteration(model, batches, opt)
    for name, value in model.get_current_log().items():
        yield f"{name}: {value:.4g}"
    total = seconds * progress.total
    for phase, dataset in validated.items():
        an_image = _time_image(model, dataset, opt)
        times = progress.total // opt["val"]["val_freq"] + (progress.total % opt["val"]["val_freq"] > 0)
        total += an_image * len(dataset) * times
        yield f"{phase}: {len(dataset)} images, {an_image:.3f} s each with all metrics, validated {times} times"
    memory = memory_in_gib()
    yield "memory: unknown on this system" if memory is None else f"memory: {memory:.2f} GiB at most"
    yield f"time: {seconds:.3f} s an iteration, {timedelta(seconds=round(total))} in all, validation included"


def _sizes(opt: Options, datasets: Datasets, model: Any, progress: Progress) -> Iterator[str]:
    """Yield what is known before the first iteration: the data, the networks, the learning rate."""
    for name, dataset in datasets.items():
        if hasattr(dataset, "describe"):
            yield f"{name}: {dataset.describe()}"
    yield f"data: {progress.describe()}"
    for label in "grd":
        network = getattr(model, f"net_{label}", None)
        if network is not None:
            yield f"net_{label}: {_size(network, opt['datasets']['train'].get('gt_size', 256))}"
    yield f"learning rate: {_plan(opt['train'])}"


def _time_iteration(model: Any, batches: Batches, opt: Options) -> float:
    """Return the seconds of an iteration, data included, after a warm-up."""
    start = 0.0
    for iteration in range(1, _WARM_UP + _TIMED + 1):
        if iteration == _WARM_UP + 1:
            _wait(opt)
            start = time.perf_counter()
        model.update_learning_rate(iteration, warmup_iter=opt["train"].get("warmup_iter", -1))
        model.feed_data(batches.next())
        model.optimize_parameters(iteration)
    _wait(opt)
    return (time.perf_counter() - start) / _TIMED


def _time_image(model: Any, dataset: Any, opt: Options) -> float:
    """Return the seconds that validation takes for the first image, with adaptation if chosen and all metrics."""
    first = Subset(dataset, [0])
    first.opt = dataset.opt  # type: ignore[attr-defined]
    for _ in range(2 if opt["num_gpu"] else 1):  # the first time a GPU is slower
        start = time.perf_counter()
        model.validation(DataLoader(first), 0, None, False)
        _wait(opt)
    return time.perf_counter() - start


def _wait(opt: Options) -> None:
    if opt["num_gpu"]:
        torch.cuda.synchronize()


def _size(network: torch.nn.Module, patch: int) -> str:
    name, parameters = type(network).__name__, count_parameters(network)
    try:
        macs = {
            f"{width}x{height}": count_macs(network, height, width) for height, width in ((patch, patch), (720, 1280))
        }
    except (RuntimeError, NotImplementedError, TypeError) as error:  # a user's network that the meta device can't run
        return f"{name}, {parameters:,} parameters; multiply-adds can't be counted ({str(error).splitlines()[0]})"
    return f"{name}, {parameters:,} parameters, " + ", ".join(
        f"{n / 1e9:.2f} GMAC at {size}" for size, n in macs.items()
    )


def _plan(train: Options) -> str:
    """Return M_D's learning rate and the iterations where it changes."""
    schedule = train.get("scheduler_g") or train.get("scheduler") or {}
    base = (train.get("optim_g") or train["optim_r"])["lr"]
    rate = LearningRate(base, tuple(schedule.get("milestones", ())), schedule.get("gamma", 0.5))
    return ", ".join([f"{base:g}", *(f"{value:g} from {milestone}" for milestone, value in rate.changes())])
