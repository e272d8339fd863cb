"""Trainings and tests as jobs: several at once, each finished once, gone on with after a kill."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import yaml
from tqdm import tqdm

from reblur_plugin.errors import ReblurError
from reblur_plugin.files import whole_file

_PRELOADED = ["reblur_plugin.engine.training", "reblur_plugin.engine.testing", "lpips", "torchvision"]


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


def run(jobs: Sequence[Job], out: Path, salt: str, processes: int, stop_after: float | None = None) -> bool:
    """Run all jobs that aren't finished; return whether all are now (False: interrupted, or out of time).

    Args:
        jobs: those needed by others before these.
        out: the reproduction's folder, in which they run.
        salt: what else their results depend on, such as the data's fingerprint.
        processes: how many run at once.
        stop_after: seconds after which running jobs are told to save and end.

    Raises:
        JobError: if one fails; the others that run are told to save and end.
    """
    marks = _marks(jobs, salt)
    seconds = {job.name: found for job in jobs if (found := _seconds(job, out, marks[job.name])) is not None}
    todo = [job for job in jobs if job.name not in seconds]
    running: dict[Any, tuple[Job, BaseProcess, float]] = {}  # by sentinel
    end = time.monotonic() + stop_after if stop_after else math.inf
    with _Signals() as signals, _Bar(jobs, processes) as bar:
        try:
            while todo or running:
                for job in [job for job in todo if seconds.keys() >= set(job.needs)][: processes - len(running)]:
                    todo.remove(job)
                    process = _start(job, out)
                    running[process.sentinel] = job, process, time.monotonic()
                bar.show(seconds, {job.name: time.monotonic() - since for job, _, since in running.values()})
                for sentinel in wait(list(running), timeout=1):
                    job, process, since = running.pop(sentinel)
                    process.join()
                    if process.exitcode and not signals.noted:
                        raise JobError(_failure(job, out, process.exitcode))
                    if not process.exitcode:
                        seconds[job.name] = _note(job, out, marks[job.name], time.monotonic() - since)
                if signals.noted or time.monotonic() > end:
                    return False
        finally:
            _stop([process for _, process, _ in running.values()])
    return True


def _marks(jobs: Sequence[Job], salt: str) -> dict[str, str]:
    """Return what each job's result depends on, as a hash."""
    marks: dict[str, str] = {}
    for job in jobs:
        content = [job.command, job.options, salt, *(marks[name] for name in job.needs)]
        marks[job.name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return marks


def _seconds(job: Job, out: Path, mark: str) -> float | None:
    """Return how long a finished job took; None if it isn't finished."""
    path = out / "done" / f"{job.name}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["mark"] != mark:
        raise JobError(f"{path}: {job.name} was made with other data or settings; name another folder by -o")
    return float(found["seconds"])


def _note(job: Job, out: Path, mark: str, seconds: float) -> float:
    with whole_file(out / "done" / f"{job.name}.json") as file:
        file.write(json.dumps({"mark": mark, "seconds": round(seconds, 1)}).encode())
    return seconds


def _start(job: Job, out: Path) -> BaseProcess:
    """Write a job's option file and start it: a fork of a process that has imported everything."""
    options = out / "options" / f"{job.name}.yml"
    with whole_file(options) as file:
        text = yaml.safe_dump({"name": job.name, **job.options}, sort_keys=False)
        file.write(f"# python -m reblur_plugin.{job.command} -opt options/{job.name}.yml\n{text}".encode())
    log = out / "logs" / f"{job.name}.log"
    log.parent.mkdir(exist_ok=True)
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload(_PRELOADED)
    process: BaseProcess = context.Process(target=_perform, args=(job.command, options.relative_to(out), out, log))
    process.start()
    return process


def _perform(command: str, options: Path, out: Path, log: Path) -> None:
    """Do what `python -m reblur_plugin.COMMAND -opt OPTIONS` does, in the folder `out`, its output in `log`."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.chdir(out)
    from reblur_plugin import cli, test, train

    sys.argv = [command, "-opt", str(options), *(["--auto_resume"] if command == "train" else [])]
    sys.exit(cli.guarded({"train": train.main, "test": test.main}[command]))


def _failure(job: Job, out: Path, status: int) -> str:
    log = out / "logs" / f"{job.name}.log"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"{job.name}: ended with {status}; the last line of {log}: {lines[-1] if lines else 'none'}"


def _stop(processes: Sequence[BaseProcess]) -> None:
    """Let jobs save and end; they have as long as they need."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


class _Signals:
    """Notes Ctrl-C and SIGTERM while its block runs."""

    def __init__(self) -> None:
        self.noted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted = True


class _Bar:
    """Progress over all jobs by their costs; how long the finished ones took tells the time left."""

    def __init__(self, jobs: Sequence[Job], processes: int) -> None:
        self._costs = {job.name: job.cost for job in jobs}
        self._processes = processes

    def __enter__(self) -> _Bar:
        self._bar = tqdm(total=100, bar_format="{percentage:3.0f}%|{bar}| {desc}", leave=False, mininterval=0)
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
        pace = sum(seconds.values()) / finished if finished else 1.0
        begun = sum(min(time / pace, 0.95 * self._costs[name]) for name, time in running.items())
        total = sum(self._costs.values())
        left = (total - finished - begun) * pace / self._processes
        self._bar.n = round(100 * (finished + begun) / total) if total else 100
        jobs = f"{len(seconds)} of {len(self._costs)} jobs, {' and '.join(running) or 'none'} running"
        self._bar.set_description_str(f"about {left / 60:.0f} minutes left; {jobs}")
