"""A rehearsal of a training: everything built, a few real iterations, and what the whole run will take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from reblur_plugin import host, registration
from reblur_plugin.archs.complexity import count_macs, count_parameters
from reblur_plugin.engine import run, training
from reblur_plugin.engine.components import check_components
from reblur_plugin.models.validation import try_metrics
from reblur_plugin.options import Options, complete, in_iterations

host.prepare()

from basicsr.data import build_dataset  # noqa: E402 - after host.prepare()
from basicsr.models import build_model  # noqa: E402

_WARM_UP, _TIMED = 1, 3


def rehearse(options: Options, root: Path) -> Iterator[str]:
    """Yield the lines of the report, as they become known. Nothing is written to disk.

    Args:
        options: from `options.read` and `options.check`, of a training.
        root: folder that would get experiments/.

    Raises:
        ReblurError: for everything that would end the training before or in its first iterations.
    """
    registration.register()
    check_components(options)
    options = complete(options)
    opt = run.start(options, root, True, "none")
    datasets = {name: build_dataset(block) for name, block in opt["datasets"].items()}
    resolved = in_iterations(options, len(datasets["train"]), opt["world_size"])
    opt |= {"train": resolved["train"], "resolved": resolved}
    model = build_model(opt)
    progress = training.Progress(opt, len(datasets["train"]), None)
    yield f"data: {progress.describe()}"
    for label, network in (("g", model.net_g), ("r", model.net_r), ("d", model.net_d)):
        if network is not None:
            yield f"net_{label}: {_size(network, opt['datasets']['train'].get('gt_size', 256))}"
    yield f"learning rate: {_plan(resolved['train'])}"
    for name, dataset in datasets.items():
        if name != "train":
            try_metrics(dataset, opt)
            yield f"{name}: {len(dataset)} images; all metrics can be computed"
    seconds = _time(model, datasets["train"], opt)
    for name, value in model.get_current_log().items():
        yield f"{name}: {value:.4g}"
    yield f"memory: {run.memory_in_gib():.2f} GiB at most"
    yield f"time: {seconds:.3f} s an iteration, {timedelta(seconds=round(seconds * progress.total))} in all"


def _time(model: Any, dataset: Any, opt: Options) -> float:
    """Return the seconds of an iteration, data included, after a warm-up."""
    batches = iter(training._loader(dataset, opt, 0))
    start = 0.0
    for iteration in range(1, _WARM_UP + _TIMED + 1):
        if iteration == _WARM_UP + 1:
            _wait(opt)
            start = time.perf_counter()
        model.update_learning_rate(iteration, warmup_iter=opt["train"].get("warmup_iter", -1))
        model.feed_data(next(batches))
        model.optimize_parameters(iteration)
    _wait(opt)
    return (time.perf_counter() - start) / _TIMED


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
    rate, gamma = (train.get("optim_g") or train["optim_r"])["lr"], schedule.get("gamma", 0.5)
    steps = [f"{rate:g}"]
    for milestone in schedule.get("milestones", ()):
        rate *= gamma
        steps.append(f"{rate:g} from {milestone}")
    return ", ".join(steps)
