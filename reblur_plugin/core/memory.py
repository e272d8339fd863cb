"""What the operating system says of memory: what this process holds, the most it has held, what is free.

Linux and macOS say it by files and by `resource`, Windows by its kernel. None: the system doesn't say.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from pathlib import Path

_SIZES: tuple[str, ...] = ("PeakWorkingSetSize", "WorkingSetSize", "QuotaPeakPagedPoolUsage", "QuotaPagedPoolUsage")
_SIZES += ("QuotaPeakNonPagedPoolUsage", "QuotaNonPagedPoolUsage", "PagefileUsage", "PeakPagefileUsage")
_STATES = ("TotalPhys", "AvailPhys", "TotalPageFile", "AvailPageFile", "TotalVirtual", "AvailVirtual", "AvailExtended")


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
