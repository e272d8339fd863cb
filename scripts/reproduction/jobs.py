"""Trainings and tests as jobs: several at once, each finished once, gone on with after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from tqdm import tqdm

from reblur_plugin.engine.interruption import Interruption
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import FileError, locked, whole_file

_PRELOADED = ["reproduction.deaf", "reblur_plugin.engine.training", "reblur_plugin.engine.testing", "lpips"]
_PATIENCE = 120  # seconds


class JobError(ReblurError):
    """A job that failed, or that stands finished with other settings."""


@dataclass(frozen=True)
class Job:
    """A training or a test.

    Attributes:
        name: of its option file, log and results.
        command: `python -m reblur_plugin.COMMAND`.
        options: what its option file holds; paths are relative to the reproduction's folder.
        cost: seconds that it is expected to take on one core; only their ratios count.
        needs: names of jobs that must be finished before.
    """

    name: str
    command: Literal["train", "test"]
    options: Mapping[str, Any]
    cost: float
    needs: tuple[str, ...] = ()


def run(jobs: Sequence[Job], out: Path, places: Sequence[Place], end: float = math.inf) -> bool:
    """Run all jobs that aren't finished; return whether all are now (False: interrupted, or out of time).

    Args:
        jobs: those needed by others before these.
        out: the reproduction's folder, in which they run.
        places: where they run, one at a time in each.
        end: when running jobs are told to save and end, by `time.monotonic`.

    Raises:
        JobError: if one fails, or stands there with other settings; others save and end then.
    """
    marks = _marks(jobs)
    seconds = {job.name: found for job in jobs if (found := _seconds(job, out, marks[job.name])) is not None}
    todo = [job for job in jobs if job.name not in seconds]
    running: list[_Running] = []
    _await_others(todo, out)
    with Interruption(world_size=1) as stop, _Bar(jobs, len(places)) as bar:
        try:
            while (todo or running) and not stop.signal and time.monotonic() < end:
                free = [place for place in places if place not in [one.place for one in running]]
                ready = [job for job in todo if seconds.keys() >= set(job.needs)]
                for job, place in zip(ready, free, strict=False):
                    todo.remove(job)
                    running.append(_Running(job, place, _start(job, place, out)))
                bar.show(seconds, {one.job.name: one.seconds() for one in running})
                wait([one.process.sentinel for one in running], timeout=1)
                for one in [one for one in running if not one.process.is_alive()]:
                    if one.process.exitcode and not stop.signal:
                        raise JobError(_failure(one.job, out, one.process.exitcode))
                    running.remove(one)
                    if not one.process.exitcode:
                        seconds[one.job.name] = _note(one.job, out, marks[one.job.name], one.seconds())
        finally:
            _end([one.process for one in running])
            for one in running:
                if one.process.exitcode == 0:  # its end came before the signal
                    seconds[one.job.name] = _note(one.job, out, marks[one.job.name], one.seconds())
    return len(seconds) == len(jobs)


def warm_up() -> None:
    """Let the process that starts jobs import what they need, while this one prepares them."""
    if _context().get_start_method() == "forkserver":
        from multiprocessing import forkserver  # not on Windows

        forkserver.ensure_running()


def _context() -> Any:
    """Return how jobs are started: as forks of a process that has imported everything, where there is fork."""
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    return context


@dataclass(frozen=True)
class Place:
    """Where a job runs: a core, or a GPU by the name that CUDA_VISIBLE_DEVICES gives it."""

    number: int
    gpu: str | None = None


def places(processes: int | None) -> list[Place]:
    """Return the GPUs of this machine, or else its cores; or as many places as are asked for, on the GPUs in turn."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    gpus = [visible[at] if at < len(visible) and visible[at] else str(at) for at in range(count)]
    wanted = processes or count or os.cpu_count() or 1
    return [Place(number, gpus[number % count] if count else None) for number in range(wanted)]


@dataclass(frozen=True)
class _Running:
    """A job, where it runs, and its process."""

    job: Job
    place: Place
    process: BaseProcess
    since: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        return time.monotonic() - self.since


def _marks(jobs: Sequence[Job]) -> dict[str, str]:
    """Return each job's settings and those of the jobs that it needs, as a hash."""
    marks: dict[str, str] = {}
    for job in jobs:
        content = [job.command, job.options, *(marks[name] for name in job.needs)]
        marks[job.name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return marks


def _seconds(job: Job, out: Path, mark: str) -> float | None:
    """Return how long a finished job took; None if it isn't finished."""
    path = out / "done" / f"{job.name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["mark"] != mark:
        raise JobError(f"{path}: {job.name} was made with other settings; name another folder by -o")
    return float(found["seconds"])


def _note(job: Job, out: Path, mark: str, seconds: float) -> float:
    with whole_file(out / "done" / f"{job.name}.json") as file:
        file.write(json.dumps({"mark": mark, "seconds": round(seconds, 1)}).encode())
    return seconds


def _await_others(jobs: Sequence[Job], out: Path) -> None:
    """Wait for jobs of a killed reproduction, which save and end by themselves."""
    for job in jobs:
        folder = out / ("experiments" if job.command == "train" else "results") / job.name
        for is_last in [False] * _PATIENCE + [True]:
            try:
                with locked(folder):
                    break
            except FileError:
                if is_last:
                    raise
                time.sleep(1)


def _start(job: Job, place: Place, out: Path) -> BaseProcess:
    """Write a job's option file and start it: a fork of a process that has imported everything."""
    options = out / "options" / f"{job.name}.yml"
    with whole_file(options) as file:
        text = yaml.safe_dump({"name": job.name, **job.options}, sort_keys=False)
        file.write(f"# python -m reblur_plugin.{job.command} -opt options/{job.name}.yml\n{text}".encode())
    log = out / "logs" / f"{job.name}.log"
    log.parent.mkdir(exist_ok=True)
    process: BaseProcess = _context().Process(
        target=_perform, args=(job.command, place.gpu, options.relative_to(out), out, log)
    )
    process.start()
    return process


def _perform(command: str, gpu: str | None, options: Path, out: Path, log: Path) -> None:
    """Do what `python -m reblur_plugin.COMMAND -opt OPTIONS` does, in the folder `out`, its output in `log`."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA is asked for anything
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(out)
    from reblur_plugin import cli, test, train

    sys.argv = [command, "-opt", str(options), *(["--auto_resume"] if command == "train" else [])]
    sys.exit(cli.guarded({"train": train.main, "test": test.main}[command]))


def _end_with_parent() -> None:
    """Save and end once the process that has started this one is gone: after a kill nobody else would tell it."""
    parent = multiprocessing.parent_process()
    assert parent
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _failure(job: Job, out: Path, status: int) -> str:
    log = out / "logs" / f"{job.name}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{job.name}: ended with {status}; the last line of {log}: {lines[-1] if lines else 'none'}"


def _end(processes: Sequence[BaseProcess]) -> None:
    """Let jobs save and end; they have as long as they need."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


class _Bar:
    """Progress over all jobs by their costs; how long the finished ones took tells the time left."""

    def __init__(self, jobs: Sequence[Job], places: int) -> None:
        self._costs = {job.name: job.cost for job in jobs}
        self._places, self._told = places, -1

    def __enter__(self) -> _Bar:
        form = "{percentage:3.0f}%|{bar}| {desc}"
        self._bar = tqdm(total=100, bar_format=form, leave=False, mininterval=0, disable=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, seconds: Mapping[str, float], running: Mapping[str, float]) -> None:
        """Show how far it is.

        Args:
            seconds: what each finished job took.
            running: for how long each running job has run.
        """
        finished = sum(self._costs[name] for name in seconds)
        pace = sum(seconds.values()) / finished if finished else math.inf
        begun = sum(min(time / pace, 0.95 * self._costs[name]) for name, time in running.items())
        total = sum(self._costs.values())
        minutes = (total - finished - begun) * pace / self._places / 60
        left = f"about {minutes:.0f} minutes left, " if finished else ""
        told = f"{left}{len(seconds)} of {len(self._costs)} jobs"
        self._bar.n = round(100 * (finished + begun) / total) if total else 100
        self._bar.set_description_str(f"{told}, {' and '.join(running) or 'none'} running")
        if self._bar.disable and len(seconds) != self._told:  # a line for each job in a log
            self._told = len(seconds)
            sys.stderr.write(f"{told}\n")
