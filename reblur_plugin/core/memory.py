"""What the operating system says of memory: what this process holds, the most it has held, what is free.

Linux and macOS say it by files and by `resource`, Windows by its kernel. None: the system doesn't say.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_SIZES: tuple[str, ...] = ("PeakWorkingSetSize", "WorkingSetSize", "QuotaPeakPagedPoolUsage", "QuotaPagedPoolUsage")
_SIZES += ("QuotaPeakNonPagedPoolUsage", "QuotaNonPagedPoolUsage", "PagefileUsage", "PeakPagefileUsage")
_STATES = ("TotalPhys", "AvailPhys", "TotalPageFile", "AvailPageFile", "TotalVirtual", "AvailVirtual", "AvailExtended")


# Of control groups of the second version (no controllers named) and of the first: limit, use, caches in memory.stat.
_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


class _Counters(ctypes.Structure):
    """Windows' PROCESS_MEMORY_COUNTERS."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        *((name, ctypes.c_size_t) for name in _SIZES),
    )


class _Status(ctypes.Structure):
    """Windows' MEMORYSTATUSEX."""

    _fields_ = (
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in _STATES),
    )


def held() -> int | None:
    """Return the bytes of memory that this process holds now; on macOS the most that it has held."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    counters = _counters()
    return most_held() if counters is None else int(counters.WorkingSetSize)


def most_held() -> int | None:
    """Return the most bytes of memory that this process has held."""
    try:
        import resource  # here, since Windows has none
    except ImportError:
        counters = _counters()
        return None if counters is None else int(counters.PeakWorkingSetSize)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free() -> int | None:
    """Return the bytes that this process could take: what the machine has free, or its container or batch job."""
    return min((size for size in (_free_in_machine(), *_free_in_groups()) if size is not None), default=None)


def _free_in_machine(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    try:
        return 1024 * _entries(meminfo)["MemAvailable"]
    except (OSError, KeyError):
        return free_on_windows()


def _free_in_groups(own: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield what each control group that this process is in (a container, a batch job) has left.

    Read caches count as free: the system gives them up before it stops a process.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        limit, usage, cache = _GROUP_FILES[controllers]
        root = mounted / controllers
        folder = root / path.lstrip("/")
        for group in (folder, *folder.parents):
            with suppress(OSError, ValueError, KeyError):  # no such group from here, or "max": no limit
                free = int((group / limit).read_text(encoding="utf-8")) - int(
                    (group / usage).read_text(encoding="utf-8")
                )
                yield max(0, free + _entries(group / "memory.stat")[cache])
            if group == root:
                break


def _entries(path: Path) -> dict[str, int]:
    """Return the numbers in a file of lines such as "MemFree: 12 kB"."""
    words = (line.replace(":", "").split() for line in path.read_text(encoding="utf-8").splitlines())
    return {name: int(value) for name, value, *_ in words}


def free_on_windows() -> int | None:
    """Return the bytes that Windows has free for all processes."""
    status = _Status(dwLength=ctypes.sizeof(_Status))
    with suppress(AttributeError, OSError):
        if _kernel().GlobalMemoryStatusEx(ctypes.byref(status)):
            return int(status.AvailPhys)
    return None


def _counters() -> _Counters | None:
    counters = _Counters(cb=ctypes.sizeof(_Counters))
    with suppress(AttributeError, OSError):
        kernel = _kernel()
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
        if kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
            return counters
    return None


def _kernel() -> ctypes.CDLL:
    """Return Windows' kernel, with types of its own: `ctypes.windll` shares them with all that use it.

    Raises:
        AttributeError: on other systems.
    """
    kernel: ctypes.CDLL = getattr(ctypes, "WinDLL")("kernel32")  # noqa: B009 - mypy knows it on Windows only
    return kernel
