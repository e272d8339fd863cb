"""Photographs of one command that several processes share out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from reblur_plugin import checkpoints
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.errors import ReblurError
from reblur_plugin.photographs import sharing
from reblur_plugin.photographs.jobs import Job
from reblur_plugin.photographs.sharing import Jobs, processes_of, shared

JOBS = [Job(Path(f"{name}.png"), Path("out") / f"{name}.png") for name in "abcde"]
HANG = 300  # seconds


class Store(dict[str, Any]):
    """What the processes share, here within one."""

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def add(self, key: str, number: int) -> int:
        self[key] = self.get(key, 0) + number
        return self[key]

    def wait(self, keys: list[str]) -> None:
        assert set(keys) <= set(self)

    def set_timeout(self, _: Any) -> None:
        pass


@pytest.fixture
def meet(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets this process be one of two."""
    store = Store()

    def be(rank: int) -> None:
        monkeypatch.setattr(sharing.distributed, "rendezvous", lambda _: iter([(store, rank, 2)]))

    return be


def test_each_is_given_once_in_order() -> None:
    jobs = Jobs(JOBS)
    assert list(jobs) == list(enumerate(JOBS))
    assert (len(jobs), list(jobs)) == (5, [])


def test_of_two_processes_whoever_is_free_takes_the_next(meet: Any) -> None:
    meet(0)
    first = shared(lambda: JOBS, "pytorch")
    mine = iter(first.__enter__())
    meet(1)
    with shared(lambda: pytest.fail("the first process looks for them"), "pytorch") as theirs:
        taken = [next(mine), *theirs, *mine]
        assert taken == list(enumerate(JOBS))
        with pytest.raises(AssertionError):  # the second has not ended yet
            first.__exit__(None, None, None)


def test_where_the_first_finds_none_nobody_waits(meet: Any) -> None:
    def missing() -> list[Job]:
        raise ReblurError("a.png: no such file")

    meet(0)
    with pytest.raises(ReblurError, match=r"^a\.png: no such file$"), shared(missing, "pytorch"):
        pass
    meet(1)
    with pytest.raises(ReblurError, match="the first process couldn't start"), shared(missing, "pytorch"):
        pass


def test_memory_is_shared_by_the_processes_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [processes_of(torch.device(name)) for name in ("cpu", "cuda:1")] == [8, 3]


def test_torchrun_does_each_photograph_once_and_names_the_bad_one(tmp_path: Path, rng: np.random.Generator) -> None:
    origin = {"options": {"network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]}}}
    checkpoints.save({"params": ResUNet(1, (4, 4, 4)).state_dict(), "origin": origin}, tmp_path / "net_g_9.pth")
    (tmp_path / "shots").mkdir()
    for number in range(6):
        cv2.imwrite(str(tmp_path / f"shots/{number}.png"), rng.integers(60, 200, (20, 30, 3), dtype=np.uint8))
    (tmp_path / "shots" / "bad.png").write_bytes(b"no picture")

    def run(*words: str) -> tuple[int, str]:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
        words = ("reblur_plugin.deblur", "shots", "-o", "out", "--weights", "net_g_9.pth", "--steps", "0", *words)
        environment = {**os.environ, "PYTHONPATH": str(Path(sharing.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*start, *words], cwd=tmp_path, capture_output=True, text=True, timeout=HANG, check=False, env=environment
        )
        return done.returncode, done.stderr

    status, said = run()
    assert status == 1, said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{number}.png" for number in range(6)}
    for number in range(6):
        assert said.count(f"{number}.png: 30x20, about") == 1, said
    assert said.count("error: shots/bad.png: expected a photograph") == 1
    (tmp_path / "shots" / "bad.png").unlink()
    (tmp_path / "out" / "3.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    status, said = run("--skip-existing")
    assert (status, said.count("30x20, about")) == (0, 1), said
    assert {path: path.stat().st_mtime_ns for path in before} == before
