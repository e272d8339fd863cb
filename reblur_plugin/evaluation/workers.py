"""Processes that score pictures: PSNR, SSIM and NIQE while a GPU deblurs the next image, or whole files of others.

`multiprocessing` isn't used: it would run a user's training script once more in each process, and its processes go on
when this one is killed. A worker ends when its connection is closed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import cv2
import torch

from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation.file_scores import FileScores, log_kept, score_files
from reblur_plugin.evaluation.pictures import Picture
from reblur_plugin.evaluation.values import Measured, Metrics, value

Answer = tuple[dict[str, float], list[tuple[int, str]]]  # values by name; levels and messages of the log
_MOST = 4  # PSNR, SSIM and NIQE of 1280x720 pixels take .3 s of a core: together a dozen images a second
_FEW = 8  # images that this process has scored before another one has imported what it needs
CAN_START = hasattr(signal, "pthread_sigmask")  # not on Windows, which can't hand over a pipe by its number either


def workers_for(device: torch.device, images: int, world_size: int) -> int:
    """Return how many workers pay for one of `world_size` processes, which share the cores.

    None pays on a CPU, whose cores M_D uses itself, and none for a few images. Windows can't start them: the scores
    are the same without.
    """
    if device.type == "cpu" or images < _FEW or not CAN_START:
        return 0
    return max(1, min(_MOST, (os.cpu_count() or 1) // world_size))


class Workers:
    """Processes, each with a thread of this process that sends it pictures and waits for the values.

    Args:
        count: their number.
        devices: where they score files, one after the other; the CPU for all of them if left out.
    """

    def __init__(self, count: int, devices: Sequence[str] = ("cpu",)) -> None:
        self._started: list[tuple[subprocess.Popen[bytes], Connection]] = []
        self._idle: SimpleQueue[tuple[Connection, str]] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count)
        for number in range(count):
            ours, theirs = Pipe()
            self._started.append((_start(theirs), ours))
            theirs.close()
            self._idle.put((ours, devices[number % len(devices)]))

    def submit(self, image: Picture, reference: Picture | None, metrics: Metrics) -> Future[Answer]:
        """Let a process compute metrics of `REFERENCES`, of RGB pictures `(H, W, 3)`."""
        return self._threads.submit(self._ask, lambda device: ("pictures", image, reference, metrics))

    def submit_files(self, image: Path, reference: Path | None, metrics: Metrics) -> Future[FileScores]:
        """Let a process read files and compute any of the plugin's metrics of them; errors are the future's."""
        return self._threads.submit(self._ask, lambda device: ("files", image, reference, metrics, device))

    def _ask(self, request: Callable[[str], tuple[Any, ...]]) -> Any:
        connection, device = self._idle.get()
        try:
            connection.send(request(device))
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise MetricError(
                "metrics: expected scores from a worker process, which has died (killed, or out of memory?); "
                "free memory and start again"
            ) from error
        finally:
            self._idle.put((connection, device))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the processes at once, whatever they are doing."""
        for process, _ in self._started:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process, connection in self._started:
            process.wait()
            connection.close()


def _start(connection: Connection) -> subprocess.Popen[bytes]:
    """Start `serve` with this process's search path.

    Signals stay blocked in it: they reach all processes of a job, and the first one alone decides what they mean.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "reblur_plugin.evaluation.workers", str(connection.fileno())],
            stdin=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[connection.fileno()],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(connection: Connection) -> None:
    """Answer requests until the other side is gone; other processes have the other cores."""
    cv2.setNumThreads(1)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(_answer(*connection.recv()))


def _answer(task: str, *arguments: Any) -> Any:
    """Return what a task returns, or the error that it has raised, as far as that fits through a pipe."""
    try:
        return _TASKS[task](*arguments)
    except ReblurError as error:
        return error
    except Exception as error:
        return MetricError(f"{type(error).__name__}: {error}")


def _of_pictures(image: Picture, reference: Picture | None, metrics: Metrics) -> Answer:
    with log_kept() as messages:
        cpu, measured = torch.device("cpu"), Measured(image, reference)
        return {name: value(measured, options, cpu) for name, options in metrics.items()}, messages


_TASKS: dict[str, Callable[..., Any]] = {"pictures": _of_pictures, "files": score_files}


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
