"""Clocks and gauges: turns by a fake clock, peak memory of a known array. No time is asserted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks import measure
from benchmarks.report import BenchError

CPU = torch.device("cpu")
MIB = 2**20


def test_every_round_runs_each_form_once_and_starts_with_another() -> None:
    order: list[str] = []
    forms = {name: lambda name=name: order.append(name) for name in "abc"}
    measure.interleaved(forms, repeats=3, device=CPU, warm_up=1)
    assert order == [*"abc", *"bca", *"cab", *"abc"]


def test_seconds_belong_to_their_form_and_warm_up_does_not_count() -> None:
    now = 0.0

    def working(seconds: Iterator[float]) -> Callable[[], None]:
        def work() -> None:
            nonlocal now
            now += next(seconds)

        return work

    forms = {"plain": working(iter([99.0, 4.0, 8.0])), "ours": working(iter([77.0, 1.0, 2.0]))}
    found = measure.interleaved(forms, repeats=2, device=CPU, warm_up=1, clock=lambda: now)
    assert found == {"plain": [4.0, 8.0], "ours": [1.0, 2.0]}


def test_in_a_row_the_last_run_of_each_turn_counts() -> None:
    now, order = 0.0, ""

    def working(name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def work() -> None:
            nonlocal now, order
            now, order = now + next(seconds), order + name

        return work

    forms = {"a": working("a", iter([50.0, 1.0, 60.0, 2.0])), "b": working("b", iter([70.0, 3.0, 80.0, 4.0]))}
    found = measure.interleaved(forms, 2, CPU, warm_up=0, clock=lambda: now, in_a_row=2)
    assert (order, found) == ("aabbbbaa", {"a": [1.0, 2.0], "b": [3.0, 4.0]})


def test_processor_time_stands_still_while_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    processor, wall = measure.clock_of(True, CPU), measure.clock_of(False, CPU)
    start = processor(), wall()
    time.sleep(0.2)
    assert processor() - start[0] < 0.1 < wall() - start[1]


def test_processor_time_is_refused_where_it_would_mislead(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "--processor-time: expected a CPU and one thread; give --device cpu --threads 1"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(BenchError, match=message):
        measure.clock_of(True, CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with pytest.raises(BenchError, match=message):
        measure.clock_of(True, torch.device("cuda"))


def _keeps_and_drops(mib: int) -> Callable[[], object]:
    kept = torch.ones(64 * MIB // 4)  # set-up: doesn't count

    def form() -> float:
        return float(torch.ones(mib * MIB // 4).sum() + kept[0])  # gone when this returns, but was there

    torch.ones(300 * MIB // 4)  # set-up's own peak doesn't count either
    return form


def test_peak_memory_is_that_of_the_form_beyond_its_set_up() -> None:
    peak = measure.peak_memory(_keeps_and_drops, CPU, mib=128)
    if peak is None:
        pytest.skip("this system doesn't set the peak back")
    assert 0.95 * 128 * MIB < peak < 1.25 * 128 * MIB


def _dies() -> Callable[[], object]:
    import os

    os._exit(9)


def test_a_measuring_process_that_dies_is_a_sentence() -> None:
    with pytest.raises(BenchError, match="peak memory: the measuring process died; use smaller sizes or free memory"):
        measure.peak_memory(_dies, CPU)


def test_the_matrix_rate_counts_two_operations_for_a_multiply_add(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(measure._MATRIX, "cpu", 10)
    monkeypatch.setattr(measure, "interleaved", lambda *_, **__: {"product": [2.0, 1.0, 4.0]})
    assert measure.matmul_rate(CPU, torch.float32) == 2 * 1000 / 2.0


def test_the_machine_is_described() -> None:
    found = measure.machine(CPU)
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["device"] == "CPU"


class TestChosen:
    @pytest.fixture
    def forms(self) -> dict[str, int]:
        return {"plain": 1, "ours": 2, "ours bf16": 3}

    def test_the_first_is_always_there(self, forms: dict[str, int]) -> None:
        assert measure.chosen(forms, ["ours bf16"]) == {"plain": 1, "ours bf16": 3}
        assert measure.chosen(forms, None) == forms

    def test_an_unknown_name_is_refused(self, forms: dict[str, int]) -> None:
        message = "--forms: expected some of 'plain', 'ours', 'ours bf16', got 'our'"
        with pytest.raises(BenchError, match=message):
            measure.chosen(forms, ["ours", "our"])


@pytest.mark.parametrize("tf32", [True, False])
def test_the_rate_of_products_is_taken_with_the_convolutions_rounding(
    monkeypatch: pytest.MonkeyPatch, tf32: bool
) -> None:
    seen: list[bool] = []

    def interleaved(*_: object, **__: object) -> dict[str, list[float]]:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return {"product": [1.0]}

    monkeypatch.setattr(measure, "interleaved", interleaved)
    before = torch.backends.cuda.matmul.allow_tf32
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=tf32):
        measure.matmul_rate(CPU, torch.float32)
    assert (seen, torch.backends.cuda.matmul.allow_tf32) == ([tf32], before)
