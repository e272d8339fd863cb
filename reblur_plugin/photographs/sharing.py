"""Gives each photograph of a command to one of its processes: whoever is free takes the next."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from reblur_plugin.engine.processes import slurm_to_torchrun
from reblur_plugin.errors import ReblurError
from reblur_plugin.photographs.jobs import Job

_LONGEST = timedelta(days=7)  # that the fastest process waits for the slowest


class Jobs:
    """The photographs of a command, each given out once: `(number, job)` from 0 on, of `len()` in all.

    Args:
        jobs: all of them, in each process.
        draw: returns 0, 1, 2 ...: each number once among all processes.
    """

    def __init__(self, jobs: list[Job], draw: Callable[[], int] | None = None) -> None:
        self._jobs = jobs
        self._draw = draw or count().__next__

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[tuple[int, Job]]:
        while (number := self._draw()) < len(self._jobs):
            yield number, self._jobs[number]


@contextmanager
def shared(find: Callable[[], list[Job]], launcher: str) -> Iterator[Jobs]:
    """Yield the jobs that the processes of a launcher share; the block ends when all of them have come to its end.

    A launcher ends all of its processes when one has failed: so none leaves before the others are done.

    Args:
        find: looks for the jobs. The first process asks it, since others would find its results among them.
        launcher: "pytorch" (torchrun) or "slurm" (srun).

    Raises:
        ReblurError: as `find` does; in the other processes, too.
    """
    if launcher == "slurm":
        slurm_to_torchrun()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    store, rank, size = next(iter(distributed.rendezvous("env://")))
    store.set_timeout(_LONGEST)
    yield Jobs(_told(store, find) if rank == 0 else _heard(store), lambda: store.add("taken", 1) - 1)
    if store.add("ended", 1) == size:
        store.set("all have ended", "")
    store.wait(["all have ended"])


def processes_of(device: torch.device) -> int:
    """Return how many processes of the launcher share a device's memory with this one, and this one."""
    names = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE", "WORLD_SIZE")
    here = int(next(os.environ[name] for name in names if name in os.environ))
    devices = torch.cuda.device_count() if device.type == "cuda" else 1
    return -(-here // devices)


def _told(store: Any, find: Callable[[], list[Job]]) -> list[Job]:
    try:
        jobs = find()
    except ReblurError:
        store.set("jobs", "null")
        raise
    store.set("jobs", json.dumps([[path and str(path) for path in astuple(job)] for job in jobs]))
    return jobs


def _heard(store: Any) -> list[Job]:
    told = json.loads(store.get("jobs"))
    if told is None:
        raise ReblurError("deblur: the first process couldn't start; its message says why")
    return [Job(Path(source), Path(target), picture and Path(picture)) for source, target, picture in told]
