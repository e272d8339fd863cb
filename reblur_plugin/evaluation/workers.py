"""Processes that compute PSNR, SSIM and NIQE by their references while a GPU deblurs the next image.

`multiprocessing` isn't used: it would run a user's training script once more in each process, and its processes go on
when this one is killed. A worker ends when its connection is closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from logging.handlers import BufferingHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import torch

from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation.pictures import Picture
from reblur_plugin.host import registry
from reblur_plugin.metrics.niqe_metric import reblur_niqe
from reblur_plugin.metrics.ssim_metric import reblur_ssim

Answer = tuple[dict[str, float], list[tuple[int, str]]]  # values by name; levels and messages of the log
_OURS = {"reblur_ssim": reblur_ssim, "reblur_niqe": reblur_niqe}
REFERENCES = {"calculate_psnr", "calculate_ssim", "calculate_niqe", *_OURS}
_MOST = 4  # PSNR, SSIM and NIQE of 1280x720 pixels take .8 s of a core: together five images a second
_FEW = 8  # images that this process has scored before another one has imported what it needs
_CAN_START = hasattr(signal, "pthread_sigmask")  # not on Windows, which can't hand over a pipe by its number either
_LOGGER = logging.getLogger("basicsr")


def workers_for(device: torch.device, images: int, world_size: int) -> int:
    """Return how many workers pay for one of `world_size` processes, which share the cores.

    None pays on a CPU, whose cores M_D uses itself, and none for a few images. Windows can't start them: the scores
    are the same without.
    """
    if device.type == "cpu" or images < _FEW or not _CAN_START:
        return 0
    return max(1, min(_MOST, (os.cpu_count() or 1) // world_size))


def as_basicsr_takes(image: Picture, reference: Picture | None) -> dict[str, Any]:
    """Return RGB pictures as BasicSR's metrics take them: BGR."""
    pictures = {"img": image, "img2": reference}
    return {key: picture[..., ::-1] for key, picture in pictures.items() if picture is not None}


class Workers:
    """`count` processes, each with a thread of this process that sends it pictures and waits for the values."""

    def __init__(self, count: int) -> None:
        self._started: list[tuple[subprocess.Popen[bytes], Connection]] = []
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count)
        for _ in range(count):
            ours, theirs = Pipe()
            self._started.append((_start(theirs), ours))
            theirs.close()
            self._idle.put(ours)

    def submit(self, image: Picture, reference: Picture | None, metrics: dict[str, dict[str, Any]]) -> Future[Answer]:
        """Let a process compute metrics of `REFERENCES`, of RGB pictures `(H, W, 3)`."""
        return self._threads.submit(self._ask, image, reference, metrics)

    def _ask(self, *request: Any) -> Answer:
        connection = self._idle.get()
        try:
            connection.send(request)
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise MetricError(
                "val: metrics: expected scores from a worker process, which has died (killed, or out of memory?); "
                "free memory and start again"
            ) from error
        finally:
            self._idle.put(connection)
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
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[connection.fileno()],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(connection: Connection) -> None:
    """Answer requests until the other side is gone."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(_answer(*connection.recv()))


def _answer(image: Picture, reference: Picture | None, metrics: dict[str, dict[str, Any]]) -> Answer | ReblurError:
    heard, values = BufferingHandler(capacity=sys.maxsize), {}
    _LOGGER.addHandler(heard)
    try:
        for name, options in metrics.items():
            function = _OURS.get(options["type"]) or registry.METRIC_REGISTRY.get(options["type"])
            given = {key: value for key, value in options.items() if key != "type"}
            values[name] = float(function(**as_basicsr_takes(image, reference), **given))
        return values, [(record.levelno, record.getMessage()) for record in heard.buffer]
    except ReblurError as error:
        return error
    except Exception as error:  # others may not fit through the pipe
        return MetricError(f"{type(error).__name__}: {error}")
    finally:
        _LOGGER.removeHandler(heard)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
