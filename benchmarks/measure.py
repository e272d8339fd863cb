"""Clocks and gauges of the benchmarks: forms timed in turns, peak memory, the device's own matrix rate."""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from benchmarks.report import BenchError

Run = Callable[[], object]
Named = TypeVar("Named")
_MATRIX = {"cpu": 1024, "cuda": 8192}  # rows of the square matrices that tell a device's rate
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")


def clock_of(processor_time: bool, device: torch.device) -> Callable[[], float]:
    """Return the clock of the wall, or that of this process, which stands while other jobs have the processor.

    Raises:
        BenchError: for the latter with several threads, whose times it adds up, or with a GPU, which it doesn't see.
    """
    if processor_time and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise BenchError("--processor-time: expected a CPU and one thread; give --device cpu --threads 1")
    return time.process_time if processor_time else time.perf_counter


def clock_name(processor_time: bool) -> str:
    """Return what the seconds of that clock are."""
    return "of the processor" if processor_time else "of the clock"


def chosen(forms: Mapping[str, Named], names: Sequence[str] | None) -> dict[str, Named]:
    """Return the first form, with which all are compared, and those named; all, if no names are given.

    Raises:
        BenchError: if there is none of that name.
    """
    for name in names or ():
        if name not in forms:
            raise BenchError(
                f"--forms: expected some of {', '.join(map(repr, forms))}, got {name!r}; leave it out for all"
            )
    first = next(iter(forms))
    return {name: form for name, form in forms.items() if names is None or name == first or name in names}


def interleaved(
    forms: Mapping[str, Run],
    repeats: int,
    device: torch.device,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    in_a_row: int = 1,
) -> dict[str, list[float]]:
    """Return the seconds of each form in each of `repeats` rounds, after `warm_up` rounds that don't count.

    A round gives every form a turn, each round starting with another one, so that what disturbs the machine for a while
    meets all of them: compare forms by the ratios within a round. On a GPU the clock waits for the device.

    Args:
        in_a_row: runs in a turn, of which the last one counts. Where a form usually follows itself, two: the first
            finds the processor's caches as another form left them.
    """
    names = list(forms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in tqdm(range(warm_up + repeats), desc="rounds", unit="round", leave=False, disable=None):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            for _ in range(in_a_row - 1):
                forms[name]()
            wait(device)
            start = clock()
            forms[name]()
            wait(device)
            if number >= warm_up:
                seconds[name].append(clock() - start)
    return seconds


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(prepare: Callable[..., Run], device: torch.device, runs: int = 1, **arguments: Any) -> int | None:
    """Return the bytes at most that `runs` calls of the form need beyond what `prepare(**arguments)` has set up.

    On a GPU: PyTorch's allocator, in this process. On a CPU: resident memory of a fresh process, so that no other
    form's caches count; `prepare` must be a module's function and the arguments fit for pickle. The system keeps
    the highest resident size since a process's start, set-up included; where it lets us (Linux), that is set back
    before the first call, else None is returned.

    Raises:
        BenchError: if the other process died, e.g. for lack of memory.
    """
    if device.type == "cuda":
        return _peak_on_gpu(prepare(**arguments), device, runs)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(_peak_on_cpu, prepare, arguments, runs, torch.get_num_threads()).result()
        except BrokenProcessPool as error:
            raise BenchError("peak memory: the measuring process died; use smaller sizes or free memory") from error


def _peak_on_gpu(form: Run, device: torch.device, runs: int) -> int:
    wait(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for _ in range(runs):
        form()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def _peak_on_cpu(prepare: Callable[..., Run], arguments: Mapping[str, Any], runs: int, threads: int) -> int | None:
    torch.set_num_threads(threads)
    form = prepare(**arguments)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak so far becomes the size of now
    except OSError:
        return None
    before = _resident("VmHWM")
    for _ in range(runs):
        form()
    return _resident("VmHWM") - before


def _resident(entry: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == entry:
            return int(value.split()[0]) * 1024
    raise BenchError(f"/proc/self/status: expected an entry {entry}, found none; peak memory can't be measured here")


def matmul_rate(
    device: torch.device, dtype: torch.dtype, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the FLOP/s of a large square matrix product: what this device gives at best, by the median."""
    size = _MATRIX.get(device.type, 1024)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    with _as_convolutions():
        seconds = interleaved({"product": lambda: left @ right}, repeats, device, 3, clock)["product"]
    return 2 * size**3 / statistics.median(seconds)


@contextmanager
def _as_convolutions() -> Iterator[None]:
    """Let matrix products round to TF32 where convolutions do, so that their rates can be compared."""
    product, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    product.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        product.allow_tf32 = before


def machine(device: torch.device) -> dict[str, Any]:
    """Return what must be known to read the numbers: device, processor, its units, threads, versions."""
    name, flags = _processor()
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"}
    found |= {"processor": name, "flags": " ".join(flag for flag in _CPU_FLAGS if flag in flags)}
    found |= {"cores": multiprocessing.cpu_count(), "threads": torch.get_num_threads()}
    found |= {"torch": torch.__version__, "python": platform.python_version(), "system": platform.system()}
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found["tf32"] = torch.backends.cudnn.allow_tf32
    return found


def _processor() -> tuple[str, set[str]]:
    """Return the processor's name and flags, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    entries = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = entries.get("flags") or entries.get("Features") or ""
    return entries.get("model name", platform.machine()), set(flags.split())
