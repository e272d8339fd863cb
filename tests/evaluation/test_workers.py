"""Worker processes: the references' values bit for bit, their warnings, and an end in every way out."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import reblur_plugin
from reblur_plugin.errors import MetricError
from reblur_plugin.evaluation import workers
from reblur_plugin.evaluation.scoring import Awaited, Scorer
from reblur_plugin.evaluation.values import REFERENCES, Measured
from reblur_plugin.evaluation.workers import workers_for

reblur_plugin.register()

METRICS: dict[str, dict[str, Any]] = {
    name: {"type": name} | ({"crop_border": 2} if name.startswith("calculate") else {}) for name in sorted(REFERENCES)
}
CPU = torch.device("cpu")


def scored(scorer: Scorer, pairs: list[Measured]) -> list[dict[str, float]]:
    return [awaited.result() for awaited in [scorer.begin(measured) for measured in pairs]]


class TestProcesses:
    @pytest.fixture(scope="class")
    def scorer(self) -> Iterator[Scorer]:
        with Scorer(METRICS, CPU, None, 1) as scorer:
            yield scorer

    @pytest.fixture
    def pairs(self, rng: np.random.Generator) -> list[Measured]:
        noise = rng.integers(0, 256, (5, 100, 200, 3), dtype=np.uint8)
        return [Measured(cv2.blur(image, (3, 3)), image if i else None) for i, image in enumerate(noise)]

    def test_values_are_those_of_this_process(self, scorer: Scorer, pairs: list[Measured]) -> None:
        found = scored(scorer, pairs)
        assert found == scored(Scorer(METRICS, CPU, None, 0), pairs)
        assert [len(values) for values in found] == [2, 7, 7, 7, 7]
        assert len({values["reblur_niqe"] for values in found}) == 5

    def test_signals_to_the_whole_job_leave_them_alone(self, scorer: Scorer, pairs: list[Measured]) -> None:
        expected = scored(scorer, pairs)
        assert scorer._workers is not None
        for process, _ in scorer._workers._started:
            for number in (signal.SIGINT, signal.SIGTERM):
                process.send_signal(number)
        assert scored(scorer, pairs) == expected

    def test_warnings_are_logged_here(
        self, scorer: Scorer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        flat = np.zeros((96, 192, 3), dtype=np.uint8)
        assert scorer._workers is not None
        niqe = {"n": METRICS["reblur_niqe"]}
        assert math.isnan(Awaited(["n"], {}, scorer._workers.submit(flat, None, niqe)).result()["n"])
        assert caplog.record_tuples == [
            ("basicsr", 30, "NIQE: the image of 192x96 pixels has no texture to measure; left out")
        ]
        assert capfd.readouterr().err.count("NIQE") <= 1  # this process's

    def test_an_error_is_one_sentence_of_the_metrics(self, scorer: Scorer, pairs: list[Measured]) -> None:
        mixed = Measured(pairs[1].image, pairs[1].image[:-1])
        with pytest.raises(MetricError, match=r"^AssertionError: Image shapes are different"):
            scored(scorer, [mixed])
        assert scored(scorer, pairs[:1])  # and the process goes on


class TestTheEnd:
    @pytest.fixture
    def picture(self) -> np.ndarray:
        return np.zeros((1000, 1000, 3), dtype=np.uint8)  # more than a pipe holds

    def test_one_that_dies_is_one_sentence(self, picture: np.ndarray) -> None:
        with Scorer({"psnr": METRICS["calculate_psnr"]}, CPU, None, 2) as scorer:
            assert scorer._workers is not None
            for process, _ in scorer._workers._started:
                process.kill()
            awaited = [scorer.begin(Measured(picture, picture)) for _ in range(4)]
            for each in awaited:
                with pytest.raises(
                    MetricError,
                    match=r"metrics: expected scores from a worker process, which has died \(killed, or out of "
                    r"memory\?\); free memory and start again",
                ):
                    each.result()

    def test_an_interruption_ends_them_whatever_they_do(self, picture: np.ndarray) -> None:
        scorer = Scorer(METRICS, CPU, None, 2)
        workers = scorer._workers
        assert workers is not None

        def interrupted() -> None:
            with scorer:
                for _ in range(5):
                    scorer.begin(Measured(picture, picture))
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert [process.returncode for process, _ in workers._started] == [-signal.SIGKILL] * 2
        assert all(connection.closed for _, connection in workers._started)

    def test_they_end_with_a_process_that_is_killed_and_dont_run_its_script(self, tmp_path: Path) -> None:
        """As those of `multiprocessing` would, where a user's script has no `if __name__ == "__main__"`."""
        script = tmp_path / "script.py"
        script.write_text(
            "print('started', flush=True)\n"
            "import os, signal\n"
            "import numpy as np\n"
            "from reblur_plugin.evaluation.workers import Workers\n"
            "picture = np.full((8, 8, 3), 3, dtype=np.uint8)\n"
            "options = {'type': 'calculate_psnr', 'crop_border': 0}\n"
            "print(Workers(1).submit(picture, picture + 4, {'psnr': options}).result()[0], flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        # It returns once nobody holds the pipes open any more, which the worker does as long as it runs.
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        # a difference of 4 everywhere: 20 log10(255 / 4)
        value = re.fullmatch(r"started\n\{'psnr': ([\d.]+)\}\n", done.stdout)
        assert value is not None, done.stdout
        assert float(value[1]) == pytest.approx(20 * math.log10(255 / 4))


def test_a_gpu_has_them_for_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert [workers_for(torch.device(name), 1000, 1) for name in ("cpu", "cuda", "cuda:1")] == [0, 4, 4]
    assert [workers_for(torch.device("cuda"), images, 1) for images in (7, 8)] == [0, 4]
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert [workers_for(torch.device("cuda"), 1000, processes) for processes in (1, 2, 3, 8)] == [4, 3, 2, 1]


def test_where_a_pipe_cannot_be_handed_over_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "CAN_START", False)
    assert workers_for(torch.device("cuda"), 1000, 1) == 0
