"""What runs on a GPU, as far as a machine without one can tell: tensors without data stand for those elsewhere."""

from __future__ import annotations

import platform
import re
from typing import Any

import pytest
import torch
from torch import nn

from reblur_plugin.core import algorithm1
from reblur_plugin.core import device as devices
from reblur_plugin.core.adapt import Adapter, adapt
from reblur_plugin.core.choices import AdaptConfig, AdaptError
from reblur_plugin.core.device import DeviceError, device_named, has_fast_bf16, out_of_memory_says


@pytest.mark.parametrize("elsewhere", ["deblur_net", "reblur_net"])
def test_networks_and_image_on_two_devices_are_one_sentence(elsewhere: str) -> None:
    networks = {name: nn.Conv2d(3, 3, 1) for name in ("deblur_net", "reblur_net")}
    networks[elsewhere].to("meta")
    message = rf"^{elsewhere}: expected its weights on the image's device cpu, got meta; move the image or the network"
    with pytest.raises(AdaptError, match=message):
        adapt(*networks.values(), torch.rand(1, 3, 8, 8), steps=1)


def test_a_plan_says_so_too() -> None:
    adapter = Adapter(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1, device="meta"))
    with pytest.raises(AdaptError, match=r"^reblur_net: expected its weights on the image's device cpu, got meta"):
        adapter.plan(torch.rand(1, 3, 8, 8), 2**30)


@pytest.mark.parametrize(
    ("other", "kind"),
    [("deblur_net", torch.float64), ("reblur_net", torch.float64), ("reblur_net", torch.bfloat16)],
)
def test_networks_and_image_of_two_types_are_one_sentence(other: str, kind: torch.dtype) -> None:
    networks = {name: nn.Conv2d(3, 3, 1) for name in ("deblur_net", "reblur_net")}
    networks[other].to(kind)
    message = rf"^{other}: expected weights of the image's type torch\.float32, got {kind}; convert the image or "
    with pytest.raises(AdaptError, match=message):
        adapt(*networks.values(), torch.rand(1, 3, 8, 8), steps=1)


def test_low_weights_may_be_adapted_where_autocast_converts_the_image() -> None:
    reblur_net = nn.Conv2d(3, 3, 1, dtype=torch.bfloat16)
    found = adapt(nn.Conv2d(3, 3, 1), reblur_net, torch.rand(1, 3, 8, 8), steps=1, amp="bf16")
    assert found.image.shape == (1, 3, 8, 8)


def test_the_gpu_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch.cuda.set_device takes no device without
    monkeypatch.setattr(devices.torch, "zeros", lambda *_, **__: torch.ones(1))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert [str(device_named(name)) for name in ("cuda", "cuda:1", "cpu")] == ["cuda:2", "cuda:1", "cpu"]


def test_bf16_is_asked_of_the_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    class At:
        def __init__(self, device: torch.device) -> None:
            asked.append(str(device))

        def __enter__(self) -> None:
            asked.append("in")

        def __exit__(self, *_: object) -> None:
            asked.append("out")

    monkeypatch.setattr(torch.cuda, "device", At)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bool(asked.append("asked")) or True)
    assert has_fast_bf16(torch.device("cuda:1"))
    assert asked == ["cuda:1", "in", "asked", "out"]


@pytest.mark.parametrize(
    ("machine", "amx", "avx512", "arm", "expected"),
    [
        ("x86_64", True, False, False, True),  # Intel from Sapphire Rapids on
        ("AMD64", False, True, False, True),  # Zen 4, as Windows names it
        ("x86_64", False, None, False, False),  # a PyTorch that doesn't tell of AVX512-BF16
        ("x86_64", False, False, True, False),  # the library can, by emulation
        ("aarch64", False, False, True, True),  # Graviton 3
        ("arm64", True, True, False, False),
    ],
)
def test_processors_with_instructions_for_bf16(
    machine: str, amx: bool, avx512: bool | None, arm: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", avx512 and (lambda: avx512), raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm)
    assert has_fast_bf16(torch.device("cpu")) is expected
    assert not has_fast_bf16(torch.device("meta"))


def test_times_are_taken_on_the_stream_of_the_images_device(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        def __init__(self, **_: object) -> None:
            self.stream = ""

        def record(self, stream: str = "of the current device") -> None:
            self.stream = stream

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    trace = algorithm1._Trace(torch.device("cuda:1"), AdaptConfig())
    assert [mark.stream for mark in trace._marks] == ["of cuda:1"]


class TestOutOfMemory:
    @pytest.mark.parametrize(
        ("error", "where"),
        [
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "the GPU"),
            (RuntimeError("CUDA error: out of memory"), "the GPU"),
            (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the GPU"),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "the GPU"),
            (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), "this "),
            (RuntimeError("[enforce fail at alloc_cpu.cpp:82] data. DefaultCPUAllocator: not enough memory"), "this "),
            (MemoryError("Unable to allocate 8.00 PiB for an array"), "this machine"),
        ],
    )
    def test_is_one_sentence_with_what_to_do(self, error: Exception, where: str) -> None:
        message = rf"^memory: {where}.*has less than is needed here; lower gt_size$"
        with pytest.raises(DeviceError, match=message), out_of_memory_says("lower gt_size"):
            raise error

    def test_a_real_refusal_is_recognised(self) -> None:
        with pytest.raises(DeviceError, match="this machine has less"), out_of_memory_says("lower gt_size"):
            torch.empty(2**50)

    def test_other_errors_stay(self) -> None:
        error = RuntimeError("no kernel")
        with pytest.raises(RuntimeError, match=re.escape("no kernel")), out_of_memory_says("lower gt_size"):
            raise error
