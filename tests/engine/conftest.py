"""Trainings and tests in processes of their own, forked from one that has loaded all modules: each starts at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

HANG = 900  # seconds after which a process counts as hanging; no other result depends on time

_SERVER = """
import json, os, pathlib, signal, sys, time
import torch
torch.set_num_threads(1)
from reblur_plugin import cli
from reblur_plugin.engine import testing, training

def run(job, rank):
    os.setsid()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)} | job["variables"]
    os.dup2(os.open(f"{job['folder']}/errors{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    exec(job["prelude"], {"rank": rank, "folder": pathlib.Path(job["folder"])})
    launcher = "pytorch" if job["processes"] > 1 else "none"
    programs = {"train": lambda *given: training.train(*given, job["auto_resume"]), "test": testing.test}
    program = programs[job["program"]]
    code = cli.guarded(lambda: 0 if program(job["options"], pathlib.Path(job["folder"]), launcher) else 130)
    if job["at_once"]:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)

def wait(child, deadline):
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.002)

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "children" in job:
        deadline = time.monotonic() + job["hang"]
        print(json.dumps([wait(child, deadline) for child in job["children"]]), flush=True)
        continue
    children = []
    for rank in range(job["processes"]):
        child = os.fork()
        if child == 0:
            run(job, rank)
        children.append(child)
    print(json.dumps(children), flush=True)
"""


class Meeting:
    """Where the processes of a run meet: as with torchrun's agent, the system picks a port that is held from then on.

    Attributes:
        variables: what the processes need in their environment to find it.
    """

    def __init__(self, processes: int) -> None:
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)}
        self.variables |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(processes)}


@dataclass
class Runner:
    """Starts trainings and tests, and waits for them."""

    server: subprocess.Popen[str]
    children: list[int] = field(default_factory=list)
    meeting: Meeting | None = None

    def start(
        self,
        options: dict[str, Any],
        folder: Path,
        processes: int = 1,
        auto_resume: bool = False,
        prelude: str = "",
        at_once: bool = True,
        program: str = "train",
    ) -> int:
        """Start `program` (train or test) in `processes` process groups; return the number of the first.

        `prelude` is code that they run before, with `rank` and `folder`. Their stderr is FOLDER/errorsRANK. With
        `at_once` they leave out the interpreter's end, which takes seconds.
        """
        self.meeting = Meeting(processes)
        job = {"options": options, "folder": str(folder), "processes": processes, "variables": self.meeting.variables}
        job |= {"program": program, "auto_resume": auto_resume, "prelude": prelude, "at_once": at_once}
        self.children = self._ask(job)
        return self.children[0]

    def wait(self) -> list[Any]:
        """Return the exit codes of what was started last (negative: a signal's number)."""
        return self._ask({"children": self.children, "hang": HANG})

    def run(self, *arguments: Any, **more: Any) -> list[Any]:
        """Start, wait, return the exit codes."""
        self.start(*arguments, **more)
        return self.wait()

    def _ask(self, job: dict[str, Any]) -> list[Any]:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        answer: list[Any] = json.loads(self.server.stdout.readline())
        return answer


def errors(folder: Path, rank: int = 0) -> str:
    """Return what a process has written to stderr."""
    return (folder / f"errors{rank}").read_text()


def until(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + HANG
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    """Return whether a process still runs."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def runner() -> Iterator[Runner]:
    """What starts trainings and tests in processes of their own."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    yield Runner(server)
    server.stdin.close()
    server.wait(timeout=HANG)
