"""The training batches of one process: read by workers, in an order and by a chance that the seed fixes."""

from __future__ import annotations

import signal
from typing import Any

from torch.utils.data import DataLoader, Dataset

from reblur_plugin.data.pair_dataset import DeblurPairDataset, Draw, DrawSampler
from reblur_plugin.engine.processes import seed_everything
from reblur_plugin.errors import ReblurError
from reblur_plugin.options.reading import Options


class Batches:
    """Endless batches in pinned memory where there is a GPU, from the first one that `draws` drawn images don't cover.

    Args:
        dataset: the training set.
        opt: from `preparation.prepare`.
        draws: images drawn so far, by all processes together.
    """

    def __init__(self, dataset: Any, opt: Options, draws: int) -> None:
        block = opt["datasets"]["train"]
        workers = block.get("num_worker_per_gpu", 0)
        loader = DataLoader(
            dataset if isinstance(dataset, DeblurPairDataset) else _SeededItems(dataset, opt["manual_seed"]),
            block["batch_size_per_gpu"],
            sampler=DrawSampler(len(dataset), opt["manual_seed"], draws, opt["rank"], opt["world_size"]),
            num_workers=workers,
            pin_memory=opt["num_gpu"] > 0,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals_to_the_main_process,
        )
        self._batches: Any = iter(loader)
        self._first: Any = None

    def first(self) -> Any:
        """Return the first batch; `next` gives it once more."""
        self._first = self.next()
        return self._first

    def next(self) -> Any:
        """Return the next batch.

        Raises:
            ReblurError: if an image can't be used; without the traceback of the worker that has met it.
        """
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return next(self._batches)
        except ReblurError as error:
            name = type(error).__name__
            raise type(error)(str(error).strip().rsplit(f"{name}: ", 1)[-1]) from error

    def close(self) -> None:
        """End the workers, also one that hangs."""
        workers = getattr(self._batches, "_workers", [])
        if workers:
            self._batches._shutdown_workers()  # the interpreter would wait for a hanging one at its end, without limit
        for worker in workers:
            worker.kill()


class _SeededItems(Dataset[Any]):
    """Any data set, whose items take their chance from the seed and the number of the draw alone."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Any:
        seed_everything(self.seed, draw.number)
        return self.dataset[draw.image]


def _leave_signals_to_the_main_process(_: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which reach the whole process group: the main process still needs its workers to save.

    They end with it, however it ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
