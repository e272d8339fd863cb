"""Batches on their way to a GPU: the next one is uploaded while the current one is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches with their tensors on `device`, always one ahead on a GPU; on a CPU as they are.

    Uploads run on a stream of their own, beside the computation, if the batches lie in pinned memory. What `batches`
    raises is raised in its turn, after the batches before it.
    """
    if device.type != "cuda":
        yield from batches
        return
    side = torch.cuda.Stream(device)
    ahead: Batch | None = next(batches, None)
    ahead = ahead and _upload(ahead, device, side)
    while ahead is not None:
        current, failure = _received(ahead, device, side), None
        try:
            ahead = next(batches, None)
            ahead = ahead and _upload(ahead, device, side)
        except Exception as error:
            failure = error
        yield current
        if failure:
            raise failure


def _upload(batch: Batch, device: torch.device, side: torch.cuda.Stream) -> Batch:
    with torch.cuda.stream(side):
        return {key: _moved(value, device) for key, value in batch.items()}


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def _received(batch: Batch, device: torch.device, side: torch.cuda.Stream) -> Batch:
    """Return a batch for the stream that computes: it waits for the upload, and its memory isn't given away before."""
    computing = torch.cuda.current_stream(device)
    computing.wait_stream(side)
    for value in batch.values():
        if isinstance(value, Tensor):
            value.record_stream(computing)
    return batch
