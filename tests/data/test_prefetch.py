"""Batches to a device. There is no GPU here: streams are stood in for by notes of what was asked of them, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from reblur_plugin.data.images import ImageError
from reblur_plugin.data.prefetch import on_device

CUDA = torch.device("cuda")


def test_on_a_cpu_batches_pass_through() -> None:
    batches = [{"lq": torch.zeros(1), "name": ["a"]}, {"lq": torch.ones(1)}]
    assert all(
        given is batch for given, batch in zip(on_device(iter(batches), torch.device("cpu")), batches, strict=True)
    )


class Noted(torch.Tensor):
    """A tensor that notes what is done to it."""

    notes: list[str]
    label: int

    def to(self, *args: Any, **options: Any) -> Noted:
        assert args == (CUDA,)
        assert options == {"non_blocking": True}
        self.notes.append(f"upload {self.label} on {self.notes[0]}")
        return self

    def record_stream(self, stream: Any) -> None:
        self.notes.append(f"{stream.name} holds {self.label}")


class Stream:
    def __init__(self, notes: list[str], name: str) -> None:
        self.notes, self.name = notes, name

    def wait_stream(self, other: Stream) -> None:
        self.notes.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The notes; the first of them is the stream at work."""
    notes = ["computing"]

    @contextmanager
    def use(stream: Stream) -> Iterator[None]:
        before, notes[0] = notes[0], stream.name
        yield
        notes[0] = before

    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream(notes, "side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(notes, notes[0]))
    monkeypatch.setattr(torch.cuda, "stream", use)
    return notes


def batch(notes: list[str], label: int) -> dict[str, Any]:
    tensor = torch.zeros(1).as_subclass(Noted)
    tensor.notes, tensor.label = notes, label
    return {"lq": tensor, "name": [str(label)]}


def stream_of(notes: list[str], count: int, error: Exception | None = None) -> Iterator[dict[str, Any]]:
    for label in range(count):
        yield batch(notes, label)
    if error:
        raise error


def test_the_next_batch_is_uploaded_before_the_current_one_is_computed(notes: list[str]) -> None:
    for given in on_device(stream_of(notes, 3), CUDA):
        notes.append(f"compute {given['name'][0]}")
    assert notes[1:] == [
        "upload 0 on side",
        "computing waits for side",
        "computing holds 0",
        "upload 1 on side",
        "compute 0",
        "computing waits for side",
        "computing holds 1",
        "upload 2 on side",
        "compute 1",
        "computing waits for side",
        "computing holds 2",
        "compute 2",
    ]


def test_an_error_comes_in_its_turn(notes: list[str]) -> None:
    batches = on_device(stream_of(notes, 2, ImageError("a.png: damaged")), CUDA)
    assert [next(batches)["name"], next(batches)["name"]] == [["0"], ["1"]]
    with pytest.raises(ImageError, match=r"a\.png: damaged"):
        next(batches)


def test_an_error_in_the_first_batch_comes_at_once(notes: list[str]) -> None:
    with pytest.raises(ImageError):
        next(on_device(stream_of(notes, 0, ImageError("a.png: damaged")), CUDA))


def test_no_batch_gives_none(notes: list[str]) -> None:
    assert list(on_device(stream_of(notes, 0), CUDA)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_arrive_on_a_gpu() -> None:
    sent = [torch.full((1 << 20,), float(number)).pin_memory() for number in range(8)]
    for number, given in enumerate(on_device(iter({"lq": tensor} for tensor in sent), CUDA)):
        assert given["lq"].device.type == "cuda"
        assert bool((given["lq"] * 2 == 2 * number).all())
