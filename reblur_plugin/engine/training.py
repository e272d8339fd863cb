"""The training loop: exactly `total_iter` iterations, in an order fixed by the seed, saved when interrupted."""

from __future__ import annotations

import importlib.util
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from reblur_plugin import checkpoints, host, registration
from reblur_plugin.data.pair_dataset import DeblurPairDataset, DrawSampler, IndexSampler
from reblur_plugin.engine import run
from reblur_plugin.engine.components import build_dataset, check_components
from reblur_plugin.errors import ReblurError
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.models.validation import try_metrics
from reblur_plugin.options import OptionError, Options, complete, in_iterations

host.prepare()

from basicsr.models import build_model  # noqa: E402 - after host.prepare()
from basicsr.utils import AvgTimer, MessageLogger, init_tb_logger, init_wandb_logger  # noqa: E402


def train(options: Options, root: Path, launcher: str = "none", auto_resume: bool = False) -> bool:
    """Train by checked options; return whether it ran to its end (False: interrupted, saved, to be resumed).

    Args:
        options: from `options.read` and `options.check`.
        root: folder that gets experiments/ and tb_logger/.
        launcher: "none", "pytorch" under torchrun, or "slurm" under srun.
        auto_resume: go on from the newest whole training state of this experiment, if there is one.

    Raises:
        ReblurError: for what is wrong with options, folders or checkpoints, before anything is created; while it runs
            for an image that can't be used, a disk that refuses, losses that aren't finite.
    """
    registration.register()
    check_components(options)
    options = complete(options)
    opt = run.start(options, root, True, launcher)
    datasets = {name: build_dataset(name, block) for name, block in opt["datasets"].items()}
    resolved = in_iterations(options, len(datasets["train"]), opt["world_size"])
    opt |= {"train": resolved["train"], "resolved": resolved}
    if isinstance(datasets["train"], DeblurPairDataset):
        opt["data_fingerprint"] = datasets["train"].fingerprint()
    state, skipped = _resume_state(opt, auto_resume)
    model = build_model(opt)
    if state:
        model.resume_training(state)
    validated = [dataset for name, dataset in datasets.items() if name != "train"]
    if opt["val"] and opt["rank"] == 0:
        for dataset in validated:
            try_metrics(dataset, opt)
    progress = Progress(opt, len(datasets["train"]), state)
    loader = iter(_loader(datasets["train"], opt, progress.draws))
    first = _next(loader)  # before anything is created: it may be what can't be read, or what M_D can't take
    if isinstance(model, ReblurModel):
        model.deblur(first["lq"][:1])
    batches = chain([first], loader)
    if _wandb_project(opt) and importlib.util.find_spec("wandb") is None:
        raise OptionError("logger: wandb: the package wandb isn't installed; pip install wandb")
    logger = run.open_folders(opt, resolved, archive=state is None)
    for note in skipped:
        logger.warning(note)
    writer = _writer(opt, root)
    try:
        with _interruptible() as stopped, logging_redirect_tqdm([logger]):
            return _loop(opt, model, batches, validated, progress, writer, logger, stopped)
    finally:
        if writer:
            writer.close()
        run.finish(logger)


def _wandb_project(opt: Options) -> str | None:
    return (opt["logger"].get("wandb") or {}).get("project") if opt["logger"]["use_tb_logger"] else None


def _writer(opt: Options, root: Path) -> Any:
    """Return TensorBoard's writer, mirrored by Weights & Biases where the options name a project."""
    if opt["rank"] != 0 or not opt["logger"]["use_tb_logger"]:
        return None
    if _wandb_project(opt):
        init_wandb_logger(opt)
    return init_tb_logger(str(root / "tb_logger" / opt["name"]))


class Progress:
    """Where a run stands: iterations done and images drawn."""

    def __init__(self, opt: Options, images: int, state: dict[str, Any] | None) -> None:
        self.total: int = opt["train"]["total_iter"]
        self.images = images
        self.batch: int = opt["datasets"]["train"]["batch_size_per_gpu"] * opt["world_size"]
        self.iteration: int = state["iter"] if state else 0
        self.draws: int = state["draws"] if state else 0  # not iteration * batch: the batch may have changed
        self.to_validate: bool = state["to_validate"] if state else False

    def advance(self) -> None:
        """Count one iteration."""
        self.iteration += 1
        self.draws += self.batch

    @property
    def epoch(self) -> int:
        """How often all images have been seen."""
        return self.draws // self.images

    def describe(self) -> str:
        """Return the plan in a sentence, in iterations and in epochs."""
        epoch = self.images // self.batch
        return (
            f"{self.images} training images, {self.batch} a batch, {epoch} iterations an epoch: {self.total} "
            f"iterations = {self.total / epoch:.1f} epochs; starting after iteration {self.iteration}"
        )


def _loop(
    opt: Options,
    model: Any,
    batches: Iterator[Any],
    validated: list[Any],
    progress: Progress,
    writer: Any,
    logger: logging.Logger,
    stopped: list[str],
) -> bool:
    logger.info(progress.describe())
    logger.info("Learning rates: %s; schedule: %s", model.get_current_learning_rate(), opt["train"].get("scheduler"))
    messages = MessageLogger(opt, progress.iteration + 1, writer)
    data_timer, step_timer = AvgTimer(), AvgTimer()
    total, frequency = progress.total, opt["logger"]["print_freq"]

    def validate_now() -> None:
        for dataset in validated:
            model.validation(DataLoader(dataset), progress.iteration, writer, opt["val"]["save_img"])
        progress.to_validate = model.opt["to_validate"] = False

    if progress.to_validate:  # the run was killed between saving and validation
        validate_now()
    with tqdm(total=total, initial=progress.iteration, unit="it", mininterval=1, disable=opt["rank"] != 0) as bar:
        while progress.iteration < total and not _agreed(stopped, opt, progress.iteration % frequency == 0):
            data_timer.start()
            data = _next(batches)
            data_timer.record()
            progress.advance()
            iteration = progress.iteration
            model.update_learning_rate(iteration, warmup_iter=opt["train"].get("warmup_iter", -1))
            model.feed_data(data)
            model.optimize_parameters(iteration)
            step_timer.record()
            bar.update()
            if iteration % frequency == 0:
                numbers = model.get_current_log()
                rates = model.get_current_learning_rate()
                log = {"epoch": progress.epoch, "iter": iteration, "lrs": rates}
                log |= {"time": step_timer.get_avg_time(), "data_time": data_timer.get_avg_time()}
                messages(log | numbers)
                bar.set_postfix_str(_summary(numbers, rates))
            progress.to_validate = bool(opt["val"]) and (iteration % opt["val"]["val_freq"] == 0 or iteration == total)
            save = iteration % opt["logger"]["save_checkpoint_freq"] == 0 or iteration == total
            if save:
                _save(model, progress)
            if progress.to_validate:
                validate_now()
                if save:
                    model.save_training_state(progress.epoch, iteration)  # once more: it knows the scores now
    if progress.iteration < total:
        _save(model, progress)
        logger.info("%s: saved iteration %d; go on with --auto_resume", stopped[0], progress.iteration)
        return False
    model.save(-1, -1)
    logger.info("Trained %d iterations; networks are in %s", total, opt["path"]["models"])
    return True


def _next(batches: Iterator[Any]) -> Any:
    """Return the next batch; an error of ours in a worker comes without the worker's traceback."""
    try:
        return next(batches)
    except ReblurError as error:
        name = type(error).__name__
        raise type(error)(str(error).strip().rsplit(f"{name}: ", 1)[-1]) from error


def _save(model: Any, progress: Progress) -> None:
    model.opt |= {"draws": progress.draws, "to_validate": progress.to_validate}
    model.save(progress.epoch, progress.iteration)


def _summary(numbers: dict[str, float], rates: list[float]) -> str:
    """Return what a person wants to see beside the progress bar."""
    shown = {"l_g_pix": "L1", "l_g_reblur": "reblur", "rho": "rho"}
    parts = [f"{name} {numbers[key]:.4f}" for key, name in shown.items() if key in numbers]
    parts.append("lr " + "/".join(f"{rate:.1e}" for rate in rates))
    return ", ".join([*parts, f"{run.memory_in_gib():.1f} GiB"])


def _agreed(stopped: list[str], opt: Options, is_time: bool) -> bool:
    """Return whether to stop. Several processes ask each other now and then, so that none waits for another."""
    if not opt["dist"]:
        return bool(stopped)
    if not is_time:
        return False
    flag = torch.tensor(float(bool(stopped)), device="cuda" if opt["num_gpu"] else "cpu")
    torch.distributed.all_reduce(flag)
    if flag and not stopped:
        stopped.append("another process")
    return bool(flag)


def _loader(dataset: Any, opt: Options, draws: int) -> DataLoader[Any]:
    """Return the endless loader of training batches, from the first one that `draws` drawn images don't cover."""
    block = opt["datasets"]["train"]
    workers = block.get("num_worker_per_gpu", 0)
    sampler = DrawSampler if isinstance(dataset, DeblurPairDataset) else IndexSampler
    return DataLoader(
        dataset,
        block["batch_size_per_gpu"],
        sampler=sampler(len(dataset), opt["manual_seed"], draws, opt["rank"], opt["world_size"]),
        num_workers=workers,
        pin_memory=opt["num_gpu"] > 0,
        persistent_workers=workers > 0,
        worker_init_fn=_seed_worker,
    )


def _seed_worker(_: int) -> None:
    """Seed what data set classes draw from by PyTorch's seed, which differs by worker and run.

    A terminal sends Ctrl-C to workers too; the main process alone decides, and still needs them to save.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run.seed_everything(torch.initial_seed() % 2**32)


def _resume_state(opt: Options, auto_resume: bool) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the training state to go on from, if any, and a note on each newer one that had to be skipped.

    `pretrain_network_*` then point at the networks beside the state.
    """
    if opt["path"].get("resume_state"):
        return _take_up(opt, Path(opt["path"]["resume_state"]).expanduser()), []
    notes: list[str] = []
    if auto_resume:
        states = Path(opt["path"]["training_states"]).glob("*.state")
        numbered = [state for state in states if state.stem.isdigit()]
        for path in sorted(numbered, key=lambda state: int(state.stem), reverse=True):
            try:
                return _take_up(opt, path), notes
            except checkpoints.CheckpointError as error:
                notes.append(f"skipped {path.name}: {error}")
    return None, notes


def _take_up(opt: Options, path: Path) -> dict[str, Any]:
    """Return a training state whose networks are there and whole.

    Raises:
        CheckpointError: if one of its files isn't.
    """
    state = checkpoints.load(path)
    missing = {"iter", "draws", "to_validate", "updaters", "best", "rng"} - state.keys()
    if missing:
        raise checkpoints.CheckpointError(f"{path}: expected a training state of ours, but {min(missing)} is missing")
    frozen = ("g",) if opt["train"].get("freeze_deblur_net") else ()
    networks: dict[str, str] = {}
    for label in ("g", "r", "d"):
        if opt.get(f"network_{label}") and label not in frozen:
            network = path.resolve().parent.parent / "models" / f"net_{label}_{state['iter']}.pth"
            checkpoints.state_dict(network, "params")
            networks |= {f"pretrain_network_{label}": str(network), f"param_key_{label}": "params"}
    opt["path"] |= networks
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
