"""A GPU that isn't there: tensors with shapes, types and devices but no values; stand-ins for streams and events.

What mixes devices fails as it would on a GPU, and what waits for it is noted. Values are constants, gradients zeros:
what is computed isn't tested by this. It leans on PyTorch's own fake tensors, whose insides change: see `WORKS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch._dynamo  # which fake tensors import, and which must see the system as it is
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

WORKS = ("2.14",)  # versions of PyTorch in which this was seen to catch what it should

_aten = torch.ops.aten
_FREE, _TOTAL, _USED = 70 * 2**30, 80 * 2**30, 2**27
_generator = torch.Generator


class _Generator(torch.Generator):
    """A generator of a GPU, which is one of the CPU."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        return _generator.__new__(cls, "cpu")


class Event:
    """Counts instead of measuring time."""

    count = 0

    def __init__(self, **_: Any) -> None:
        self.time = 0

    def record(self, stream: Stream | None = None) -> None:
        Event.count += 1
        self.time = Event.count

    def elapsed_time(self, other: Event) -> float:
        assert self.time, "recorded"
        assert other.time, "recorded"
        return float(other.time - self.time)

    def synchronize(self) -> None: ...


class Stream:
    """Does everything at once."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = device

    def wait_stream(self, other: Stream) -> None: ...

    def synchronize(self) -> None: ...


class _Reads(TorchDispatchMode):
    """Answers the reading of values by constants, and notes those for which a GPU would be waited."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if packet in (_aten._local_scalar_dense, _aten.is_nonzero, _aten.equal):
            source = args[0]
            if source.device.type != "cpu":
                self._waits.append(str(func))
            if packet is not _aten._local_scalar_dense or source.dtype is torch.bool:
                return True
            return 0.5 if source.dtype.is_floating_point else 1
        if packet in (_aten._unique2, _aten.unique_dim):  # how many there are is a value
            source, count = args[0], max(2, args[0].numel() // 2)
            self._waits.append(str(func))
            places = source.new_empty(source.shape, dtype=torch.int64)
            return source.new_empty(count), places, source.new_empty(count, dtype=torch.int64)
        if packet in (_aten._to_copy, _aten.copy_) and _brings_here(args, kwargs or {}):
            self._waits.append(str(func))
        if packet in (_aten._fused_adam_, _aten._fused_adamw_, _aten._fused_sgd_):  # fake tensors don't check these
            found = {str(item.device) for group in args if isinstance(group, list) for item in group}
            if len(found) > 1:
                raise RuntimeError(f"Expected all tensors to be on the same device, but found {sorted(found)}")
            return None
        return func(*args, **(kwargs or {}))


def _brings_here(args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a copy goes from the GPU to the CPU."""
    target, *source = (tensor.device for tensor in args if isinstance(tensor, Tensor))
    here, there = (target, source[0]) if source else (kwargs.get("device") or target, target)
    return there.type != "cpu" and torch.device(here).type == "cpu"


@contextmanager
def fake_cuda() -> Iterator[list[str]]:
    """Make a GPU of what is made within the block; yield the list of what had to wait for it."""
    waits: list[str] = []
    cuda = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "Event": Event,
        "Stream": Stream,
        "current_stream": Stream,
        "stream": nullcontext,
        "device": lambda _: nullcontext(),
        "synchronize": lambda _=None: waits.append("synchronize"),
        "empty_cache": lambda: None,
        "manual_seed_all": lambda _: None,
        "get_device_name": lambda _=None: "a GPU that isn't there",
        "is_bf16_supported": lambda **_: True,
        "mem_get_info": lambda _=None: (_FREE, _TOTAL),
        "memory_allocated": lambda _=None: _USED,
        "memory_reserved": lambda _=None: _USED,
        "max_memory_allocated": lambda _=None: _USED,
        "get_rng_state": lambda _="cuda": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "get_device_capability": lambda _=None: (9, 0),
    }
    optimizer = sys.modules["torch.optim.optimizer"]
    supported = [Tensor, nn.Parameter, FakeTensor]
    patches = [mock.patch.object(torch.cuda, name, value) for name, value in cuda.items()]
    patches += [
        mock.patch.object(fake_tensor, "init_gpu_context", return_value=None),
        mock.patch.object(FakeTensorMode, "avoid_device_init", property(lambda _: True)),
        mock.patch.object(FakeTensor, "__deepcopy__", _copied, create=True),
        mock.patch.object(Tensor, "record_stream", return_value=None),
        mock.patch.object(Tensor, "pin_memory", lambda tensor, *_: tensor),
        mock.patch.object(FakeTensor, "tolist", _reader(waits, np.ndarray.tolist)),
        mock.patch.object(FakeTensor, "numpy", _as_numpy, create=True),
        mock.patch.object(Tensor, "backward", lambda tensor, *_, **__: _backward(tensor)),
        mock.patch.object(torch.autograd, "backward", _backward),
        mock.patch.object(torch.autograd, "grad", _gradients),
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(nn.Module, "_apply", _apply),
        mock.patch.object(optimizer, "_foreach_supported_types", supported),
    ]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(_Reads(waits))
        yield waits


def _reader(waits: list[str], answer: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return a method that reads a tensor as a whole: one wait, if it lies on a GPU."""

    def read(tensor: Tensor, *_: Any, **__: Any) -> Any:
        if tensor.device.type != "cpu":
            waits.append("read")
        kind = str(tensor.dtype).removeprefix("torch.").replace("bfloat16", "float32")
        return answer(np.full(tuple(tensor.shape), 0.5).astype(kind))

    return read


def _as_numpy(tensor: Tensor, *_: Any, **__: Any) -> Any:
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert {tensor.device} device type tensor to numpy. Use Tensor.cpu() first")
    return _reader([], np.asarray)(tensor)


def _apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Stand for Module._apply: a fake tensor can't change its device, so weights are made anew."""
    for child in module.children():
        child._apply(change)
    for name, weight in module._parameters.items():
        if weight is not None:
            with torch.no_grad():
                module._parameters[name] = nn.Parameter(change(weight.detach()), weight.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = change(buffer)
    return module


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        with torch.no_grad():
            copy = tensor.detach().clone()
        memo[id(tensor)] = nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
    found: Tensor = memo[id(tensor)]
    return found


def _leaves(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors that a gradient of `tensors` reaches."""
    found = [tensor for tensor in tensors if tensor.is_leaf and tensor.requires_grad]
    nodes, seen = [tensor.grad_fn for tensor in tensors], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found += [node.variable] if hasattr(node, "variable") else []
            nodes += [before for before, _ in node.next_functions]
    return found


def _backward(tensors: Any, *_: Any, **__: Any) -> None:
    """Stand for the backward pass, which fake tensors on a GPU can't do: zeros reach what a gradient would."""
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    assert all(tensor.requires_grad for tensor in given)
    with torch.no_grad():
        for leaf in _leaves(given):
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad + 0


def _gradients(outputs: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Tensor, ...]:
    reached = {id(leaf) for leaf in _leaves([outputs] if isinstance(outputs, Tensor) else outputs)}
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    assert all(id(tensor) in reached for tensor in wanted)
    with torch.no_grad():
        return tuple(torch.zeros_like(tensor) for tensor in wanted)
