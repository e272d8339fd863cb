"""What is told of a training: pace, time left, every number once."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from reblur_plugin.engine import progress
from reblur_plugin.engine.progress import Progress, Reporter


class Clock:
    """Stands in for `time`; moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


class Writer:
    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []

    def add_scalar(self, tag: str, value: float, iteration: int) -> None:
        self.scalars.append((tag, value, iteration))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "memory_in_gib", lambda: 7.94)
    return clock


def standing(iteration: int, total: int) -> Progress:
    opt: dict[str, Any] = {"train": {"total_iter": total}, "world_size": 1}
    opt["datasets"] = {"train": {"batch_size_per_gpu": 2}}
    return Progress(opt, 10, {"iter": iteration, "draws": 2 * iteration, "to_validate": False})


def line(reporter: Reporter, caplog: pytest.LogCaptureFixture, numbers: dict[str, float], rates: list[float]) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        reporter.report(numbers, rates)
    return caplog.messages[-1]


def test_a_line_tells_pace_and_time_left_and_each_rate_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    stand = standing(iteration=1000, total=500_000)
    reporter = Reporter(stand, logging.getLogger("x"), None)
    for _ in range(100):
        with reporter.waiting():
            clock.now += 0.1
        stand.advance()
        clock.now += 0.3
    numbers = {"l_g_pix": 0.03125, "rho": 0.5, "lr_g": 1e-4, "lr_r": 5e-5}
    # 0.4 s an iteration, a quarter of it waiting; 498,900 are left: 199,560 s; 1100 * 2 draws of 10 images
    assert line(reporter, caplog, numbers, [1e-4, 5e-5]) == (
        "iteration 1100 of 500000, epoch 220: l_g_pix 0.03125, rho 0.5 | lr_g 0.0001, lr_r 5e-05 | "
        "0.4 s each, 25% of it for data, 2 days, 7:26:00 left, 7.9 GiB"
    )


def test_time_left_is_by_the_mean_over_all_pace_by_the_last_lines(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    stand = standing(iteration=0, total=40)
    reporter = Reporter(stand, logging.getLogger("x"), None)
    for seconds in (1.0, 3.0):
        for _ in range(10):
            stand.advance()
            clock.now += seconds
        text = line(reporter, caplog, {"l_g_pix": 1.0}, [0.1])
    # 40 s for 20 iterations, 20 are left
    assert text.endswith("| lr 0.1 | 3 s each, 0% of it for data, 0:00:40 left, 7.9 GiB")


def test_after_the_last_iteration_nothing_is_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    stand = standing(iteration=0, total=2)
    reporter = Reporter(stand, logging.getLogger("x"), None)
    for _ in range(2):
        stand.advance()
        clock.now += 5
    assert ", 0:00:00 left, " in line(reporter, caplog, {}, [])


def test_tensorboard_gets_basicsrs_tags(clock: Clock) -> None:
    stand, writer = standing(iteration=0, total=2), Writer()
    reporter = Reporter(stand, logging.getLogger("x"), writer)
    stand.advance()
    clock.now += 1
    reporter.report({"l_g_pix": 0.5, "rho": 0.25, "lr_g": 0.125}, [0.125])
    assert writer.scalars == [("losses/l_g_pix", 0.5, 1), ("rho", 0.25, 1), ("lr_g", 0.125, 1)]


def test_beside_the_bar_stands_what_a_person_looks_at(clock: Clock) -> None:
    stand = standing(iteration=0, total=2)
    reporter = Reporter(stand, logging.getLogger("x"), None)
    stand.advance()
    clock.now += 1
    numbers = {"l_g_pix": 0.5, "l_g_reblur": 0.25, "l_r_blur": 3.0, "rho": 0.125, "lr_g": 1e-4, "lr_r": 2e-4}
    assert (
        reporter.report(numbers, [1e-4, 2e-4])
        == "L1 0.5000, reblur 0.2500, rho 0.1250, lr_g 0.0001, lr_r 0.0002, 7.9 GiB"
    )
