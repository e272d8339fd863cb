"""Training: exactly `total_iter` iterations, in an order fixed by the seed, saved when something ends it early.

Read from top to bottom: `train` prepares, resumes, tries out, opens the folders and starts the loop, `Training.run`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from reblur_plugin import training_states
from reblur_plugin.engine import experiment
from reblur_plugin.engine.batches import Batches
from reblur_plugin.engine.interruption import Interrupted, Interruption, WatchedImages
from reblur_plugin.engine.preparation import prepare, try_out, wandb_project
from reblur_plugin.engine.processes import seed_everything
from reblur_plugin.engine.progress import Progress, Reporter
from reblur_plugin.engine.resuming import differences
from reblur_plugin.errors import ReblurError
from reblur_plugin.host import build_model, init_tb_logger, init_wandb_logger
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options.reading import Options


def train(options: Options, root: Path, launcher: str = "none", auto_resume: bool = False) -> bool:
    """Train with checked options; return whether the end was reached (False: interrupted and saved, to be resumed).

    Args:
        options, root, launcher: as for `prepare`.
        auto_resume: go on from the newest whole training state of this experiment, if there is one.

    Raises:
        ReblurError: for what is wrong with options, folders or checkpoints, before anything is created; during the
            training for an image that can't be used (after saving), a disk that refuses, losses that aren't finite.
    """
    opt, datasets = prepare(options, root, True, launcher)
    state, networks, notes = training_states.find(opt, auto_resume)
    opt["path"] |= networks
    progress = Progress(opt, len(datasets["train"]), state)
    if progress.is_done:
        with experiment.opened(opt, archive=False) as logger:
            logger.info("%d iterations are trained already: nothing is left to do", progress.total)
        return True
    model = build_model(opt)
    if state:
        model.resume_training(state)
        notes += differences(state, opt)
    stop = Interruption(opt["world_size"])
    with closing(Batches(datasets.pop("train"), opt, progress.draws)) as batches:
        validated = list(datasets.values())
        try:
            stop.together(lambda: try_out(opt, model, batches, validated))
        except Interrupted as interrupted:  # nothing is trained yet that could be saved
            raise interrupted.error or interrupted from None
        with experiment.opened(opt, archive=state is None) as logger:
            for note in notes:
                logger.warning(note)
            with _curves(opt) as writer, stop, logging_redirect_tqdm([logger]):
                return Training(opt, model, batches, validated, progress, stop, logger, writer).run()


@contextmanager
def _curves(opt: Options) -> Iterator[Any]:
    """Give TensorBoard's writer, None without one; Weights & Biases mirrors it if the options name a project."""
    if opt["rank"] != 0 or not opt["logger"]["use_tb_logger"]:
        yield None
        return
    if wandb_project(opt):
        init_wandb_logger(opt)
    with closing(init_tb_logger(opt["path"]["tb_logger"])) as writer:
        yield writer


@dataclass
class Training:
    """The loop of one run."""

    opt: Options
    model: Any
    batches: Batches
    validated: list[Any]
    progress: Progress
    stop: Interruption
    logger: logging.Logger
    writer: Any

    def run(self) -> bool:
        """Train until the end, a signal or an error; return whether the end was reached.

        Raises:
            ReblurError: for the error.
        """
        progress = self.progress
        self.logger.info(progress.describe())
        schedule = self.opt["train"].get("scheduler")
        if self.opt["train"].get("amp") == "auto":
            self.logger.info("train: amp: auto takes %s here", getattr(self.model, "amp_dtype", None) or "float32")
        self.logger.info("Learning rates: %s; schedule: %s", self.model.get_current_learning_rate(), schedule)
        try:
            if progress.to_validate:  # the run was killed between saving and validation
                self._validate()
                self._save()
            self._iterate()
            self.logger.info("Trained %d iterations; networks are in %s", progress.total, self.opt["path"]["models"])
            return True
        except Interrupted as interrupted:
            ended = interrupted
        except ReblurError:
            if progress.saved is not None:
                self.logger.info("Iteration %d was saved last; --auto_resume goes on from it", progress.saved)
            raise
        if progress.saved != progress.iteration:
            self._save()
        self.logger.info("%s: saved iteration %d; go on with --auto_resume", ended, progress.iteration)
        if ended.error:
            raise ended.error
        return False

    def _iterate(self) -> None:
        progress, model, frequency = self.progress, self.model, self.opt["logger"]["print_freq"]
        warm_up = self.opt["train"].get("warmup_iter", -1)
        reporter = Reporter(progress, self.logger, self.writer)
        is_hidden = None if self.opt["rank"] == 0 else True  # None: shown in a terminal, where lines can be redrawn
        with tqdm(total=progress.total, initial=progress.iteration, unit="it", disable=is_hidden) as bar:
            while progress.iteration < progress.total:
                with reporter.waiting():
                    batch = self.stop.together(self.batches.next)
                progress.advance()
                # Dropout and the like are the same after a resume, and others in each process (docs/design.md).
                seed_everything(self.opt["manual_seed"], self.opt["rank"], progress.iteration)
                model.update_learning_rate(progress.iteration, warmup_iter=warm_up)
                model.feed_data(batch)
                model.optimize_parameters(progress.iteration)
                bar.update()
                if progress.iteration % frequency == 0:
                    bar.set_postfix_str(reporter.report(model.get_current_log(), model.get_current_learning_rate()))
                self._save_and_validate()

    def _save_and_validate(self) -> None:
        """Save and validate if this iteration is one for it."""
        progress, val = self.progress, self.opt["val"]
        is_last = progress.iteration == progress.total
        progress.to_validate = bool(val) and (progress.iteration % val["val_freq"] == 0 or is_last)
        if progress.iteration % self.opt["logger"]["save_checkpoint_freq"] == 0 or is_last:
            self._save()
        if progress.to_validate:
            self._validate()
            if progress.saved == progress.iteration:
                self.model.save_training_state(progress.epoch, progress.iteration)  # once more: it has the scores now

    def _save(self) -> None:
        progress = self.progress
        self.model.opt |= {"draws": progress.draws, "to_validate": progress.to_validate}
        if progress.iteration == progress.total:
            self.model.save(-1, -1)  # first: the state says that nothing is left to do
        self.model.save(progress.epoch, progress.iteration)
        progress.saved = progress.iteration

    def _validate(self) -> None:
        """Score M_D.

        Raises:
            Interrupted: also for any error, which a training of days must survive.
        """
        for dataset in self.validated:
            watched = WatchedImages(dataset, self.stop, self.opt["rank"], self.opt["world_size"])
            # BasicSR's own models validate in the first process alone: the others would never be asked.
            is_shared_out = isinstance(self.model, ReblurModel) or self.opt["world_size"] == 1
            loader = DataLoader(watched if is_shared_out else dataset)
            try:
                self.model.validation(loader, self.progress.iteration, self.writer, self.opt["val"]["save_img"])
            except Interrupted:
                raise
            except Exception as error:
                raise Interrupted.by(error) from error
        self.progress.to_validate = self.model.opt["to_validate"] = False
