"""The training loop: exactly `total_iter` iterations, in an order fixed by the seed, saved when interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from reblur_plugin import checkpoints, host, registration
from reblur_plugin.data.pair_dataset import DrawSampler
from reblur_plugin.engine import run
from reblur_plugin.engine.components import check_components
from reblur_plugin.options import OptionError, Options

host.prepare()

from basicsr.data import build_dataset  # noqa: E402 - after host.prepare()
from basicsr.models import build_model  # noqa: E402
from basicsr.utils import AvgTimer, MessageLogger, init_tb_logger  # noqa: E402


def train(options: Options, root: Path, launcher: str = "none", auto_resume: bool = False) -> bool:
    """Train by checked options; return whether it ran to its end (False: interrupted, saved, to be resumed).

    Args:
        options: from `options.read` and `options.check`.
        root: folder that gets experiments/ and tb_logger/.
        launcher: "none", or "pytorch" under torchrun.
        auto_resume: go on from the newest training state of this experiment, if there is one.

    Raises:
        ReblurError: for everything that is wrong with options, data or checkpoints, before anything is created.
    """
    registration.register()
    check_components(options)
    opt = run.start(options, root, True, launcher)
    state = _resume_state(opt, auto_resume)
    datasets = {name: build_dataset(block) for name, block in opt["datasets"].items()}
    model = build_model(opt)
    iteration = 0
    if state:
        model.resume_training(state)
        iteration = state["iter"]
    batches = iter(_loader(datasets["train"], opt, iteration))
    validated = [dataset for name, dataset in datasets.items() if name != "train"]
    logger = run.open_folders(opt, options, archive=state is None)
    writer = None
    if opt["logger"].get("use_tb_logger") and opt["rank"] == 0:
        writer = init_tb_logger(str(root / "tb_logger" / opt["name"]))
    try:
        with _interruptible() as stopped, logging_redirect_tqdm([logger]):
            return _loop(opt, model, batches, validated, iteration, writer, logger, stopped)
    finally:
        if writer:
            writer.close()
        run.finish(logger)


def _loop(
    opt: Options,
    model: Any,
    batches: Iterator[Any],
    validated: list[Any],
    iteration: int,
    writer: Any,
    logger: Any,
    stopped: list[str],
) -> bool:
    total = opt["train"]["total_iter"]
    images = len(batches._dataset)  # type: ignore[attr-defined]
    batch = opt["datasets"]["train"]["batch_size_per_gpu"] * opt["world_size"]
    logger.info("%d training images, %d a batch, %d iterations, starting at %d", images, batch, total, iteration)
    messages = MessageLogger({**opt, "logger": {"use_tb_logger": False, **opt["logger"]}}, iteration + 1, writer)
    messages.reset_start_time()
    data_timer, step_timer = AvgTimer(), AvgTimer()
    with tqdm(total=total, initial=iteration, unit="it", mininterval=1, disable=opt["rank"] != 0) as bar:
        while iteration < total and not stopped:
            data_timer.start()
            data = next(batches)
            data_timer.record()
            iteration += 1
            model.update_learning_rate(iteration, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(data)
            model.optimize_parameters(iteration)
            step_timer.record()
            bar.update()
            if iteration % opt["logger"]["print_freq"] == 0:
                log = {"epoch": iteration * batch // images, "iter": iteration}
                log |= {"lrs": model.get_current_learning_rate(), "time": step_timer.get_avg_time()}
                messages(log | {"data_time": data_timer.get_avg_time()} | model.get_current_log())
            if iteration % opt["logger"]["save_checkpoint_freq"] == 0 or iteration == total:
                model.save(iteration * batch // images, iteration)
            if opt["val"] and (iteration % opt["val"]["val_freq"] == 0 or iteration == total):
                for dataset in validated:
                    model.validation(DataLoader(dataset), iteration, writer, opt["val"].get("save_img", False))
    if iteration < total:
        model.save(iteration * batch // images, iteration)
        logger.info("%s: saved iteration %d; go on with --auto_resume", stopped[0], iteration)
        return False
    model.save(-1, -1)
    logger.info("Trained %d iterations; networks are in %s", total, opt["path"]["models"])
    return True


def _loader(dataset: Any, opt: Options, iteration: int) -> DataLoader[Any]:
    """Return the endless loader of training batches, from the first one that `iteration` iterations haven't seen."""
    block = opt["datasets"]["train"]
    size, workers = block["batch_size_per_gpu"], block.get("num_worker_per_gpu", 0)
    if len(dataset) < size:
        raise OptionError(
            f"datasets: train: batch_size_per_gpu: expected at most the {len(dataset)} images there are, got {size}"
        )
    sampler = DrawSampler(
        len(dataset), opt["manual_seed"], iteration * size * opt["world_size"], opt["rank"], opt["world_size"]
    )
    return DataLoader(
        dataset,
        size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=opt["num_gpu"] > 0,
        persistent_workers=workers > 0,
    )


def _resume_state(opt: Options, auto_resume: bool) -> dict[str, Any] | None:
    """Return the training state to go on from, if any, with `pretrain_network_*` pointing at the networks beside it."""
    path = opt["path"].get("resume_state")
    if auto_resume and not path:
        states = Path(opt["path"]["training_states"]).glob("*.state")
        path = max((state for state in states if state.stem.isdigit()), key=lambda state: int(state.stem), default=None)
    if not path:
        return None
    state = checkpoints.load(path)
    models = Path(path).resolve().parent.parent / "models"
    for label in ("g", "r", "d"):
        if opt.get(f"network_{label}"):
            opt["path"][f"pretrain_network_{label}"] = str(models / f"net_{label}_{state['iter']}.pth")
            opt["path"][f"param_key_{label}"] = "params"
    return state


@contextmanager
def _interruptible() -> Iterator[list[str]]:
    """Let Ctrl-C and SIGTERM end the loop after the iteration at hand; a second Ctrl-C stops at once."""
    stopped: list[str] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopped.append(signal.Signals(number).name)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
