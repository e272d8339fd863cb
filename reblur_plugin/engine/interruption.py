"""What ends a training early, in all its processes at the same point: signals, and data that can't be used."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from reblur_plugin.engine.processes import COLLECTIVE_TIMEOUT
from reblur_plugin.errors import ReblurError

Item = TypeVar("Item")


class Interrupted(Exception):
    """The training ends here, after it has been saved; the message is the signal's name or the error's first line.

    Attributes:
        error: what to raise once it has been saved; None after a signal.
    """

    def __init__(self, reason: str, error: Exception | None = None) -> None:
        super().__init__(reason)
        self.error = error

    @classmethod
    def by(cls, error: Exception) -> Interrupted:
        """Return the end that an error makes."""
        return cls(str(error).strip().partition("\n")[0] or type(error).__name__, error)


class Interruption:
    """Notes Ctrl-C and SIGTERM while its block runs, and lets the processes agree on them.

    A second Ctrl-C stops at once; a second SIGTERM doesn't: launchers send several.
    """

    def __init__(self, world_size: int) -> None:
        self.signal = ""
        self._previous: dict[int, Any] = {}
        # On the CPU also beside NCCL: asking must not wait for the device.
        self._group: Any = None
        if world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)

    def __enter__(self) -> Interruption:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def together(self, read: Callable[[], Item]) -> Item:
        """Return what `read` gives, once it has succeeded in every process and none has had a signal.

        Every process must call this equally often: it waits for the others, but not for the device.

        Raises:
            Interrupted: in all processes alike, if one has had a signal or its `read` has failed.
        """
        item: Any = None
        end = None
        try:
            item = read()
        except Exception as error:  # whatever it is, the other processes must not wait for this one
            end = Interrupted.by(error)
        if self.signal and not end:
            end = Interrupted(self.signal)
        end = self._of_all(end)
        if end:
            raise end
        return item

    def _of_all(self, end: Interrupted | None) -> Interrupted | None:
        """Return the end that one process has met, if any; errors go before signals."""
        if self._group is None:
            return end
        flag = torch.tensor(end is not None, dtype=torch.uint8)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
        if not flag:
            return None
        ends: list[Any] = [None] * self._group.size()
        torch.distributed.all_gather_object(ends, end and (end.error is None, str(end)), self._group)
        is_signal, reason = min(found for found in ends if found)
        if end and (end.error is None) == is_signal:
            return end
        return Interrupted(reason, None if is_signal else ReblurError(reason))


class WatchedImages(Dataset[Any]):
    """A validation set that ends its validation between two images, in all processes, where `stop` says so.

    Args:
        dataset: the set; of its images this process takes every `world_size`-th, from number `rank` on.
        stop: says whether to end.
    """

    def __init__(self, dataset: Any, stop: Interruption, rank: int, world_size: int) -> None:
        self.dataset, self.stop = dataset, stop
        self._next, self._stride = rank, world_size
        self._shared = len(dataset) - len(dataset) % world_size  # from here on some processes have no image

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        """Return an image.

        Raises:
            Interrupted: instead, if the validation is to end.
        """
        if index != self._next or index >= self._shared:
            return self.dataset[index]
        self._next += self._stride
        return self.stop.together(lambda: self.dataset[index])
