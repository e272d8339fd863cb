"""The device that computes: what it is good at, and the memory that this process holds and may hold on it."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from reblur_plugin.core import memory
from reblur_plugin.errors import ReblurError


class DeviceError(ReblurError):
    """A device that this machine hasn't got."""


def device_named(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" takes a GPU if there is one.

    Raises:
        DeviceError: if this machine hasn't got it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()  # meta is a device, but computes nothing
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"--device: expected a device of this machine, got {name!r} ({reason}); try cpu") from error
    device = torch.device(name)
    return torch.device("cuda", torch.cuda.current_device()) if device == torch.device("cuda") else device


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device computes bf16 faster than float32, by its instructions: elsewhere it is emulated.

    On CPUs these are AMX and AVX512-BF16, and BF16 on ARM where PyTorch has the library for it.
    A measurement would give one answer today and another tomorrow, and a resumed training other numbers.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):  # it asks the current one
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("aarch64", "arm64"):
        return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    questions = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(has_it() for has_it in questions if has_it)  # older releases ask for AMX alone, or neither


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 as float32: no autocast, and no TF32, to which GPUs round what they multiply."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    kinds: list[Any] = [cuda, getattr(cudnn, "conv", None)]
    with ExitStack() as stack:
        for device in ("cuda", "cpu"):
            stack.enter_context(torch.autocast(device, enabled=False))
        if hasattr(kinds[1], "fp32_precision"):  # since PyTorch 2.9, where the older switches may not be read
            for kind in kinds:
                stack.callback(setattr, kind, "fp32_precision", kind.fp32_precision)
                kind.fp32_precision = "ieee"
        else:
            stack.callback(setattr, cuda, "allow_tf32", cuda.allow_tf32)
            cuda.allow_tf32 = False
            stack.enter_context(cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, allow_tf32=False))
        yield


@contextmanager
def out_of_memory_says(remedy: str) -> Iterator[None]:
    """Turn what is raised for lack of memory within the block into one sentence.

    Raises:
        DeviceError: in this case.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        where = whose_memory_ended(error)
        if where is None:
            raise
        raise DeviceError(f"memory: {where} has less than is needed here; {remedy}") from error


def whose_memory_ended(error: BaseException) -> str | None:
    """Return "the GPU" or "this machine", if the error of PyTorch, its libraries or NumPy is a lack of memory."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):  # how it goes on depends on the system
        return "this machine"
    libraries = "CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED"
    is_gpus = isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in libraries)
    return "the GPU" if is_gpus else None


@contextmanager
def as_written(is_compiled: bool) -> Iterator[None]:
    """Run compiled networks as they are written: photographs come in sizes that aren't worth a translation each."""
    if not is_compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def give_back() -> None:
    """Give the system what the C library keeps of freed memory, where it can (glibc): else it counts as in use."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def in_use(device: torch.device) -> int | None:
    """Return the bytes that this process holds now: on a GPU PyTorch's, else the resident ones.

    None, where the system doesn't say.
    """
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else memory.held()


def available(device: torch.device) -> int | None:
    """Return the bytes that this process may hold without pressing others: nine tenths of what is free, and its own.

    None, where the system doesn't say.
    """
    held = in_use(device)
    if held is None:
        return None
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
        return int(0.9 * (free - held)) + held
    left = memory.free()
    return None if left is None else int(0.9 * left) + held


def in_gib(size: float) -> str:
    """Return bytes in words."""
    return f"{size / 2**30:.2f} GiB"
