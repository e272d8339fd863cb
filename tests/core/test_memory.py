"""Memory as each system tells it. Windows is simulated, by the layouts that its documentation gives."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reblur_plugin.core import budget, device, memory
from reblur_plugin.core.adapt import AdaptConfig, Adapter
from reblur_plugin.core.choices import AdaptError

CPU = torch.device("cpu")
GIB = 2**30


class Kernel:
    """Windows' kernel32 with 3 GiB free, and a process that holds 2 GiB and has held 5."""

    def __init__(self, name: str) -> None:
        assert name == "kernel32"
        self.GetCurrentProcess = self.function(lambda: -1)
        self.K32GetProcessMemoryInfo = self.function(self.of_process)
        self.GlobalMemoryStatusEx = self.function(self.of_machine)

    @staticmethod
    def function(work: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: work(*arguments)  # whose attributes `restype` and `argtypes` can be set

    @staticmethod
    def fill(place: Any, size: int, values: dict[int, int]) -> int:
        """Write 64-bit numbers at their offsets into a structure that says its own size first."""
        address = ctypes.addressof(place._obj)
        if struct.unpack("<I", ctypes.string_at(address, 4))[0] != size:
            return 0  # as Windows does
        for offset, value in values.items():
            ctypes.memmove(address + offset, struct.pack("<Q", value), 8)
        return 1

    def of_process(self, process: int, place: Any, size: int) -> int:
        # PROCESS_MEMORY_COUNTERS: two DWORDs, PeakWorkingSetSize, WorkingSetSize, six more SIZE_Ts
        assert (process, size) == (-1, 72)
        return self.fill(place, size, {8: 5 * GIB, 16: 2 * GIB})

    def of_machine(self, place: Any) -> int:
        # MEMORYSTATUSEX: two DWORDs, ullTotalPhys, ullAvailPhys, five more DWORDLONGs
        return self.fill(place, 64, {8: 16 * GIB, 16: 3 * GIB})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No /proc and no module `resource`."""

    def missing(path: Path, encoding: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setitem(sys.modules, "resource", None)


@pytest.mark.usefixtures("elsewhere")
class TestWindows:
    @pytest.fixture(autouse=True)
    def kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ctypes, "WinDLL", Kernel, raising=False)

    def test_its_kernel_tells_what_is_held_and_the_most_that_was(self) -> None:
        assert (memory.held(), memory.most_held()) == (2 * GIB, 5 * GIB)

    def test_nine_tenths_of_what_is_free_may_be_held_beside(self) -> None:
        assert device.available(CPU) == int(0.9 * 3 * GIB) + 2 * GIB

    def test_a_kernel_that_refuses_tells_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Kernel, "fill", lambda *_: 0)
        assert (memory.held(), memory.most_held(), memory.free_on_windows()) == (None, None, None)


@pytest.mark.usefixtures("elsewhere")
class TestAnUnknownSystem:
    @pytest.fixture
    def adapter(self) -> Adapter:
        network = torch.nn.Conv2d(3, 3, 1)
        return Adapter(network, network, AdaptConfig(steps=1, histogram="none"), decay=0)

    def test_nothing_is_guessed(self) -> None:
        assert (memory.held(), memory.most_held(), device.in_use(CPU), device.available(CPU)) == (None,) * 4

    def test_a_bound_that_cannot_be_kept_is_refused(self, adapter: Adapter) -> None:
        message = f"max_memory: expected a system that tells how much memory a process holds, got {sys.platform}; leave"
        with pytest.raises(AdaptError, match=message):
            adapter.plan(torch.rand(1, 3, 64, 64), GIB)

    def test_without_a_bound_a_plan_tells_what_the_photograph_adds(self, adapter: Adapter) -> None:
        plan = adapter.plan(torch.rand(1, 3, 64, 64), None)
        assert budget._SLACK < plan.memory < 2 * budget._SLACK
        assert plan.tiling is None


def test_macos_counts_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    on_linux = memory.most_held()
    monkeypatch.setattr(sys, "platform", "darwin")
    on_macos = memory.most_held()
    assert on_linux is not None
    assert on_macos is not None
    assert on_linux == pytest.approx(1024 * on_macos, rel=0.1)
