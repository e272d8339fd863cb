"""Trainings in processes of their own, forked from one that has loaded everything already: each starts at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECONDS = 200  # that a training may take at most

_SERVER = """
import json, os, pathlib, signal, sys, time
import torch
torch.set_num_threads(1)
from reblur_plugin import cli
from reblur_plugin.engine import training

def run(job, rank):
    os.setsid()
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(job["processes"])}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job["port"])}
    os.dup2(os.open(f"{job['folder']}/errors{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    exec(job["prelude"], {"rank": rank, "folder": pathlib.Path(job["folder"])})
    launcher = "pytorch" if job["processes"] > 1 else "none"
    train = lambda: training.train(job["options"], pathlib.Path(job["folder"]), launcher, job["auto_resume"])
    code = cli.guarded(lambda: 0 if train() else 130)
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
            return "too slow"
        time.sleep(0.002)

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "children" in job:
        deadline = time.monotonic() + job["seconds"]
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


@dataclass
class Trainer:
    """Starts trainings and waits for them."""

    server: subprocess.Popen[str]
    children: list[int] = field(default_factory=list)

    def start(
        self,
        options: dict[str, Any],
        folder: Path,
        processes: int = 1,
        auto_resume: bool = False,
        prelude: str = "",
        at_once: bool = True,
    ) -> int:
        """Start a training in `processes` process groups; return the number of the first.

        `prelude` is code that they run before, with `rank` and `folder`. Their stderr is FOLDER/errorsRANK. With
        `at_once` they leave out the interpreter's end, which takes seconds.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        job = {"options": options, "folder": str(folder), "processes": processes, "port": port}
        self.children = self._ask(job | {"auto_resume": auto_resume, "prelude": prelude, "at_once": at_once})
        return self.children[0]

    def wait(self, seconds: float = SECONDS) -> list[Any]:
        """Return the exit codes of what was started last (negative: a signal's number)."""
        return self._ask({"children": self.children, "seconds": seconds})

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


@pytest.fixture(scope="session")
def trainer() -> Iterator[Trainer]:
    """What starts trainings in processes of their own."""
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
    yield Trainer(server)
    server.stdin.close()
    server.wait(timeout=60)
