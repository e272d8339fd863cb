"""What a device is good at, and what is free on it: of this machine, and of control groups written out by hand."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from reblur_plugin.core import device, memory
from reblur_plugin.core.device import DeviceError, device_named

CPU = torch.device("cpu")
MIB = 2**20


def test_what_is_free_holds_what_is_in_use() -> None:
    free = device.available(CPU)
    assert free is None or free > device.in_use(CPU) > 50 * MIB


def test_memory_in_use_follows_what_is_taken() -> None:
    piece = b"1" * MIB  # small: the C library may keep what a large one took
    before = device.in_use(CPU)
    with mmap.mmap(-1, 50 * MIB) as taken:  # fresh pages: a tensor may get what the process holds already
        for _ in range(50):
            taken.write(piece)
        found = device.in_use(CPU) - before
    assert 40 * MIB < found < 60 * MIB


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Return a folder of groups of both versions: this process is in job/step, whose parent alone has a limit."""
    files = {
        "job/memory.max": "1000",
        "job/memory.current": "700",
        "job/memory.stat": "anon 500\ninactive_file 150\n",
        "job/step/memory.max": "max",
        "job/step/memory.current": "600",
        "job/step/memory.stat": "anon 500\ninactive_file 100\n",
        "memory/box/memory.limit_in_bytes": "800",
        "memory/box/memory.usage_in_bytes": "790",
        "memory/box/memory.stat": "inactive_file 5\ntotal_inactive_file 25\n",
    }
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "groups"


class TestGroups:
    def found(self, groups: Path, own: str) -> list[int]:
        (groups / "own").write_text(own)
        return list(memory._free_in_groups(groups / "own", groups))

    def test_a_limit_further_up_counts(self, groups: Path) -> None:
        assert self.found(groups, "0::/job/step\n") == [1000 - 700 + 150]

    def test_the_older_version_has_other_files(self, groups: Path) -> None:
        assert self.found(groups, "5:cpu,memory_migrate:/box\n4:memory:/box\n0::/\n") == [800 - 790 + 25]

    def test_a_container_sees_its_own_group_as_the_root(self, groups: Path) -> None:
        for name in ("memory.max", "memory.current", "memory.stat"):
            (groups / name).write_text((groups / "job" / name).read_text())
        assert self.found(groups, "0::/\n") == [450]
        assert self.found(groups, "0::/../..\n") == [450]

    def test_a_group_that_cannot_be_seen_from_here_says_nothing(self, groups: Path, tmp_path: Path) -> None:
        assert self.found(groups, "0::/elsewhere\n") == []
        assert list(memory._free_in_groups(tmp_path / "missing", groups)) == []

    def test_a_group_over_its_limit_has_nothing_left(self, groups: Path) -> None:
        (groups / "job" / "memory.current").write_text("2000")
        assert self.found(groups, "0::/job\n") == [0]

    def test_the_least_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "in_use", lambda device: 7)
        monkeypatch.setattr(memory, "_free_in_groups", lambda: iter([1000, 300]))
        for machine, expected in ((2000, 277), (100, 97), (None, 277)):
            monkeypatch.setattr(memory, "_free_in_machine", lambda machine=machine: machine)
            assert device.available(CPU) == expected


def test_a_machine_that_says_nothing_has_no_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  9 kB\nMemAvailable:       3 kB\n")
    assert memory._free_in_machine(tmp_path / "meminfo") == 3 * 1024
    assert memory._free_in_machine(tmp_path / "missing") is None
    monkeypatch.setattr(memory, "_free_in_groups", lambda: iter([]))
    monkeypatch.setattr(memory, "_free_in_machine", lambda: None)
    assert device.available(CPU) is None


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library isn't glibc"
)
def test_memory_that_the_c_library_keeps_is_given_back() -> None:
    """Blocks below what it maps one by one stay with it once they're free, for another stands above them."""
    pieces = [np.ones(60_000, dtype=np.uint8) for _ in range(2000)]
    high = device.in_use(CPU)
    del pieces[:-1]
    kept = device.in_use(CPU)
    device.give_back()
    assert kept > high - 30e6  # or there is nothing to see
    assert device.in_use(CPU) < high - 90e6


def test_a_device_of_this_machine_is_taken() -> None:
    assert device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:77", "banana"])
def test_a_device_that_is_not_there_is_a_sentence(name: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"--device: expected a device of this machine, got '{name}' \(.+\); try cpu"
    ):
        device_named(name)


def test_a_device_that_computes_nothing_is_refused() -> None:
    with pytest.raises(DeviceError, match="--device: expected a device of this machine, got 'meta'"):
        device_named("meta")
