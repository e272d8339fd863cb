"""The page's server as people start it, with tiny networks; and that no process of it asks for another machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from reblur_plugin import checkpoints
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet

_NETWORKS = {
    "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
    "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
}
# Python runs this before anything else in the server and in its workers.
_WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        with open(os.environ["ASKED_FOR"], "a") as file:
            file.write(f"{event} {arguments[1] if event == 'socket.connect' else arguments[0]}\\n")
sys.addaudithook(watch)
"""


@dataclass
class Running:
    """A server that runs: its address, its process, the folder of its files, what it has written on stderr."""

    url: str
    process: subprocess.Popen[str]
    files: Path
    errors: Path

    @property
    def kept(self) -> list[Path]:
        """The visitors' files."""
        return [Path(folder, name) for folder, _, names in os.walk(self.files) for name in names]

    def workers(self) -> list[int]:
        """The numbers of its worker processes that live."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # others', or just ended
                is_worker = b"reblur_plugin.app.worker" in (entry / "cmdline").read_bytes()
                if is_worker and os.fsencode(self.files) in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return sorted(found)


Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """M_D and M_R of four channels, with weights by chance."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    origin = {"options": _NETWORKS}
    checkpoints.save({"params": ResUNet(1, (4, 4, 4)).state_dict(), "origin": origin}, folder / "net_g_tiny.pth")
    checkpoints.save({"params": ReblurNet(1, 4).state_dict(), "origin": origin}, folder / "net_r_tiny.pth")
    return folder / "net_g_tiny.pth"


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Return what starts a server and ends it after the block: arguments, `code` that runs first, environment."""

    @contextmanager
    def start(*arguments: str, code: str = "", **environment: str) -> Iterator[Running]:
        folder = tmp_path_factory.mktemp("server")
        files, asked, errors = folder / "tmp", folder / "asked", folder / "stderr"
        files.mkdir()
        (folder / "sitecustomize.py").write_text(_WATCH + code)
        command = [sys.executable, "-m", "reblur_plugin.app", "--port", "0", "--no-browser", *arguments]
        env = {**os.environ, "PYTHONPATH": str(folder), "TMPDIR": str(files), "ASKED_FOR": str(asked), **environment}
        with errors.open("w") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, errors.read_text()
            running = Running(url, process, files, errors)
            yield running
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 0
        assert running.kept == []
        deadline = time.monotonic() + 10
        while running.workers() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert running.workers() == []
        lines = asked.read_text().splitlines()  # at least where it listens
        assert [line for line in lines if "127.0.0.1" not in line and "0.0.0.0" not in line] == []
        assert "Traceback" not in errors.read_text()

    return start


@pytest.fixture(scope="session")
def server(started: Start, tiny_weights: Path) -> Iterator[Running]:
    """A server for all tests of a process; each opens a page of its own."""
    with started("--weights", str(tiny_weights), "--max-megapixels", "3", "--max-upload", "20M") as running:
        yield running
