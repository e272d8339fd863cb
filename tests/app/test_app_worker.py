"""The process that deblurs for the page, asked by its lines, and what the server makes of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from reblur_plugin import checkpoints
from reblur_plugin.app import processes
from reblur_plugin.app.processes import Clock, Turns
from reblur_plugin.app.settings import Settings, WishError
from reblur_plugin.app.visitors import Visitors
from reblur_plugin.photographs.photograph import size_of

_ROUNDED = 1 / 257  # grey levels: each of two pictures in 16 bits is half a step off at most
CHOICES = {"device": "cpu", "network": None, "deblurred_output": None, "max_pixels": 1e6, "modules": []}


def run(what: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a thread: Playwright has an event loop in this one."""

    async def to_its_end() -> Any:
        try:
            return await what
        finally:
            await asyncio.sleep(0.05)  # in which pipes are closed

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, to_its_end()).result()


def wishes(weights: Path, **choices: Any) -> dict[str, Any]:
    given = {
        "weights": str(weights),
        "reblur_weights": None,
        "steps": 2,
        "max_memory": None,
        "amp": "none",
        "sent": [],
    }
    return {**given, **choices}


def started(**choices: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "reblur_plugin.app.worker", json.dumps(CHOICES | choices)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def ends(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    yield process
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0


@pytest.fixture(scope="module")
def process() -> Iterator[subprocess.Popen[str]]:
    """One process for all tests here, as for all visitors; it ends when nobody asks any more."""
    with ends(started()) as one:
        yield one


def events(process: subprocess.Popen[str], *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what a process tells."""
    assert process.stdin is not None
    assert process.stdout is not None
    told = []
    for request in requests:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        told.append(json.loads(process.stdout.readline()))
        while told[-1]["event"] not in ("done", "failed"):
            told.append(json.loads(process.stdout.readline()))
    return told


def request(do: str, source: Path, folder: Path, chosen: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return {"do": do, "source": str(source), "folder": str(folder), "wishes": chosen}


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), np.random.default_rng(0).integers(60, 200, (20, 30, 3), dtype=np.uint8))
    return path


class TestEvents:
    def test_of_a_photograph(self, process: Any, tmp_path: Path, photograph: Path, tiny_weights: Path) -> None:
        out = tmp_path / "out"
        asked = [request(do, photograph, out, wishes(tiny_weights)) for do in ("look", "deblur")]
        told = events(process, *asked)
        kinds = [event["event"] for event in told]
        assert kinds[:3] == ["photograph", "plan", "done"]
        assert kinds[3:] == [
            *("plan", "pass", "step", "pass", "step", "pass"),  # M_D and M_R; the last pass is the result's
            *("step", "result", "blur", "blur", "done"),
        ]
        steps = [event for event in told if event["event"] == "step"]
        assert [event["number"] for event in steps] == [0, 1, 2]
        assert all((out / event["src"]).is_file() for event in (*steps, told[0]))
        assert {(event["done"], event["of"]) for event in told if event["event"] == "pass"} == {(1, 3), (2, 3), (3, 3)}
        result = cv2.imread(str(out / "result.png")).astype(float)
        assert np.array_equal(result, cv2.imread(str(out / "step_2.png")))

    def test_changes_are_told_in_grey_levels(self, process: Any, tmp_path: Path) -> None:
        """16 bits show changes that 8 hide: the results without and with steps are files to compare."""
        path = tmp_path / "deep.png"
        pixels = np.random.default_rng(0).integers(20_000, 40_000, (20, 30, 3), dtype=np.uint16)
        assert cv2.imwrite(str(path), pixels)
        results = {}
        for steps in (0, 2):
            out = tmp_path / str(steps)
            told = events(process, request("deblur", path, out, wishes(Path("resunet-small"), steps=steps)))
            results[steps] = cv2.imread(str(out / "result.png"), cv2.IMREAD_UNCHANGED).astype(float)
        found = {event["number"]: event["change"] for event in told if event["event"] == "step"}
        for number, before in ((0, pixels.astype(float)), (2, results[0])):
            expected = np.abs(results[number] - before).mean() / 257
            assert expected > 2 * _ROUNDED
            assert found[number] == pytest.approx(expected, abs=_ROUNDED)

    def test_steps_are_what_so_many_steps_give(
        self, process: Any, tmp_path: Path, photograph: Path, tiny_weights: Path
    ) -> None:
        asked = [
            request("deblur", photograph, tmp_path / str(steps), wishes(tiny_weights, steps=steps)) for steps in (3, 1)
        ]
        events(process, *asked)
        early = cv2.imread(str(tmp_path / "3" / "step_1.png"))
        assert np.array_equal(early, cv2.imread(str(tmp_path / "1" / "result.png")))

    def test_of_one_that_fails_and_the_next(
        self, process: Any, tmp_path: Path, photograph: Path, tiny_weights: Path
    ) -> None:
        broken = tmp_path / "broken.png"
        broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        chosen = wishes(tiny_weights, steps=0)
        told = events(process, *[request("look", path, tmp_path / "out", chosen) for path in (broken, photograph)])
        assert told[0]["event"] == "failed"
        assert told[0]["why"].startswith(f"{broken}: expected a photograph, got a damaged or unknown file")
        assert [event["event"] for event in told[1:]] == ["photograph", "plan", "done"]

    def test_of_weights_that_are_missing(self, process: Any, tmp_path: Path, photograph: Path) -> None:
        told = events(process, request("look", photograph, tmp_path / "out", wishes(tmp_path / "net_g_none.pth")))
        assert told[0]["event"] == "photograph"  # which is shown anyway
        assert told[1]["why"].endswith("net_g_none.pth: no such checkpoint; check the path")

    def test_of_a_device_that_is_missing(
        self, process: Any, tmp_path: Path, photograph: Path, tiny_weights: Path
    ) -> None:
        with ends(started(device="meta")) as another:
            told = events(another, request("look", photograph, tmp_path / "out", wishes(tiny_weights)))
        assert told[0]["why"].startswith("--device: expected a device of this machine, got 'meta'")

    @pytest.mark.parametrize("kind", ["VGGFeatureExtractor", "SpyNet", "EDSR"])
    def test_of_a_visitor_s_weights_with_a_network_of_basicsr(
        self, process: Any, tmp_path: Path, photograph: Path, kind: str
    ) -> None:
        path = tmp_path / "net_g_own.pth"
        origin = {"options": {"network_g": {"type": kind}}}
        checkpoints.save({"params": {"a": torch.zeros(1)}, "origin": origin}, path)
        told = events(process, request("look", photograph, tmp_path / "out", wishes(path, sent=[str(path)], steps=0)))
        assert f"expected a network of reblur_plugin, or weights alone, got {kind}" in told[1]["why"]

    def test_numbers_that_are_none_are_told_as_none(
        self, process: Any, tmp_path: Path, photograph: Path, tiny_weights: Path
    ) -> None:
        content = checkpoints.load(tiny_weights.with_name("net_r_tiny.pth"))
        content["params"] = {name: weight * float("nan") for name, weight in content["params"].items()}
        checkpoints.save(content, tmp_path / "net_r_nan.pth")
        chosen = wishes(tiny_weights, reblur_weights=str(tmp_path / "net_r_nan.pth"), steps=0)
        told = events(process, request("deblur", photograph, tmp_path / "out", chosen))
        assert [event["mean"] for event in told if event["event"] == "blur"] == [None]

    def test_a_message_is_one_line_that_a_card_can_show(self, process: Any, tmp_path: Path, photograph: Path) -> None:
        path = tmp_path / "net_g_long.pth"
        origin = {"options": {"network_g": {"type": "Long\n" * 400_000}}}
        checkpoints.save({"params": {"a": torch.zeros(1)}, "origin": origin}, path)
        told = events(process, request("look", photograph, tmp_path / "out", wishes(path)))
        assert "\n" not in told[1]["why"]
        assert len(told[1]["why"]) < 700

    @pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")
    def test_what_unpacks_to_more_than_the_machine_has_fails_by_itself(
        self, tmp_path: Path, photograph: Path, tiny_weights: Path
    ) -> None:
        code = "from reblur_plugin.core import memory; memory.free = lambda: 2**30; "
        code += "from reblur_plugin.app import worker; worker._bound_memory(worker.torch.device('cpu')); "
        code += "bytes(2**33)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stderr.splitlines()[-1] == "MemoryError"

    def test_a_profile_s_colours_are_shown_as_they_are(self, process: Any, tmp_path: Path, tiny_weights: Path) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        path = tmp_path / "a.jpg"
        Image.new("RGB", (40, 30), (200, 50, 50)).save(path, icc_profile=profile)
        events(process, request("look", path, tmp_path / "out", wishes(tiny_weights, steps=0)))
        assert Image.open(tmp_path / "out" / "blurry.png").info["icc_profile"] == profile

    def test_sixteen_bits_and_alpha_are_shown_in_eight_without(
        self, process: Any, tmp_path: Path, tiny_weights: Path
    ) -> None:
        path = tmp_path / "a.png"
        assert cv2.imwrite(str(path), np.full((20, 30, 4), (257 * 10, 257 * 20, 257 * 30, 1000), np.uint16))
        events(process, request("look", path, tmp_path / "out", wishes(tiny_weights, steps=0)))
        shown = cv2.imread(str(tmp_path / "out" / "blurry.png"), cv2.IMREAD_UNCHANGED)
        assert shown.dtype == np.uint8
        assert shown[0, 0].tolist() == [10, 20, 30]

    def test_large_ones_are_shown_as_jpeg(self, process: Any, tmp_path: Path, tiny_weights: Path) -> None:
        path = tmp_path / "a.png"
        assert cv2.imwrite(str(path), np.zeros((2001, 2000, 3), np.uint8))
        with ends(started(max_pixels=1e7)) as another:
            told = events(another, request("look", path, tmp_path / "out", wishes(tiny_weights, steps=0)))
        assert told[0]["src"] == "blurry.jpg"


async def ended(worker: processes.Worker) -> None:
    """End a worker's process before the event loop goes."""
    worker.kill()
    await worker.ended()


class TestWorker:
    """One process for all who ask at once; none is left when it is ended."""

    def asked(self, tmp_path: Path, **settings: Any) -> tuple[processes.Worker, dict[str, Any]]:
        (tmp_path / "letter.png").write_text("no picture")
        weights = tmp_path / "net_g.pth"
        return processes.Worker(Settings(**settings)), request(
            "look", tmp_path / "letter.png", tmp_path, wishes(weights)
        )

    def test_who_ask_at_once_share_one(self, tmp_path: Path) -> None:
        async def ask() -> None:
            worker, _ = self.asked(tmp_path)
            first, second = await asyncio.gather(worker.start(), worker.start())
            assert first is second
            worker.kill()
            assert await worker.start() is not first
            worker.kill()
            assert await first.wait() < 0

        run(ask())

    def test_one_that_is_killed_while_it_starts_does_not_stay(self, tmp_path: Path) -> None:
        async def ask() -> None:
            worker, _ = self.asked(tmp_path)
            starting = asyncio.create_task(worker.start())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            worker.kill()
            assert await asyncio.wait_for((await starting).wait(), 10) < 0

        run(ask())

    def test_who_is_cancelled_ends_the_one_it_asked_and_no_other(self, tmp_path: Path) -> None:
        async def ask() -> None:
            worker, question = self.asked(tmp_path)

            async def consume() -> None:
                async for _ in worker.ask(question):
                    pass

            task = asyncio.create_task(consume())
            await asyncio.sleep(0.3)
            asked = await worker.start()
            task.cancel()
            next_one = await worker.start() if asked.returncode is not None else None
            await asyncio.wait([task])
            assert asked.returncode is not None
            other = next_one or await worker.start()
            assert other.returncode is None
            with pytest.raises(processes.WorkerError, match="expected a photograph"):
                await consume()
            await ended(worker)

        run(ask())

    def test_one_that_says_nothing_for_long_is_ended(self, tmp_path: Path) -> None:
        async def ask() -> None:
            worker = processes.Worker(Settings(), patience=0.2)  # less than it takes to import torch
            _, question = self.asked(tmp_path)
            with pytest.raises(processes.WorkerError, match=r"this takes more than 0 s; choose smaller files"):
                async for _ in worker.ask(question):
                    pass

        run(ask())

    def test_a_system_without_processes_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def refuse(*command: Any, **options: Any) -> None:
            raise OSError(24, "Too many open files")

        async def ask() -> None:
            worker, question = self.asked(tmp_path)
            with monkeypatch.context() as patched:
                patched.setattr(asyncio, "create_subprocess_exec", refuse)
                with pytest.raises(processes.WorkerError, match=r"can't be started \(Too many open files\)"):
                    async for _ in worker.ask(question):
                        pass
            with pytest.raises(processes.WorkerError, match="expected a photograph"):  # it recovers
                async for _ in worker.ask(question):
                    pass
            await ended(worker)

        run(ask())

    def test_a_line_without_an_end_is_a_sentence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "_LONGEST_LINE", 20)

        async def ask() -> None:
            worker, question = self.asked(tmp_path)
            with pytest.raises(processes.WorkerError, match="the process that deblurs said too much"):
                async for _ in worker.ask(question):
                    pass

        run(ask())


class TestSizeOfAHeader:
    @pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
    def test_of_each_format(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        assert cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
        assert size_of(path) == (30, 20)

    def test_of_a_tiff_in_16_bits_and_planes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, np.zeros((3, 20, 30), np.uint16), photometric="rgb", planarconfig="separate")
        assert size_of(path) == (30, 20)

    @pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"II*\0", b"RIFF", b"BM", b"\x89PNG", b"P6 9 9 255\n"])
    def test_of_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a").write_bytes(content)
        assert size_of(tmp_path / "a") is None

    def test_one_that_no_header_tells_is_bounded_too(self, tmp_path: Path, tiny_weights: Path) -> None:
        path = tmp_path / "a.png"  # a PNM file in fact, which OpenCV would read
        path.write_bytes(b"P6 4000 4000 255\n" + bytes(48_000_000))

        async def ask() -> None:
            worker = processes.Worker(Settings(max_pixels=1e6))
            try:
                async for event in worker.ask(request("look", path, tmp_path / "out", wishes(tiny_weights))):
                    assert event["event"] != "photograph"
            finally:
                await ended(worker)

        with pytest.raises(processes.WorkerError, match=r"a\.png: expected a photograph"):
            run(ask())


class TestClock:
    def test_it_goes_by_the_estimate_and_then_by_what_is_done(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 100.0
        monkeypatch.setattr(processes.time, "monotonic", lambda: now)
        clock = Clock(60)
        now = 110.0
        assert (clock.part, clock.left) == (0, 50)
        now = 120.0
        clock.passed(1, 4)  # 20 s a quarter
        assert (clock.part, clock.left) == (0.25, 60)
        now = 300.0
        assert clock.left == 0


class TestTurns:
    def test_who_asks_first_is_first_and_who_leaves_is_no_longer_before(self) -> None:
        order: list[str] = []

        async def work(turns: Turns, name: str, gate: asyncio.Event) -> None:
            async with turns.turn(name):
                order.append(name)
                await gate.wait()

        async def all_of_it() -> list[int]:
            turns, gate = Turns(lambda: None), asyncio.Event()
            tasks = {name: asyncio.create_task(work(turns, name, gate)) for name in "abc"}
            await asyncio.sleep(0.01)
            found = [turns.before(name) for name in "abcd"]
            tasks["b"].cancel()
            await asyncio.sleep(0.01)
            found.append(turns.before("c"))
            gate.set()
            await asyncio.wait(tasks.values())
            return found

        assert run(all_of_it()) == [0, 1, 2, 0, 1]
        assert order == ["a", "c"]


class TestWishes:
    GIVEN = {"weights": "resunet-small", "steps": 3, "amp": "none", "max_memory": " 2G "}  # noqa: RUF012 - not changed

    def test_are_what_a_worker_takes(self) -> None:
        assert Settings().wishes(self.GIVEN, {}) == {
            "weights": "resunet-small",
            "reblur_weights": None,
            "steps": 3,
            "max_memory": 2 * 2**30,
            "amp": "none",
            "sent": [],
        }

    def test_own_files_by_their_names(self) -> None:
        own = {"net_g.pth": Path("/x/net_g.pth"), "r.pth": Path("/x/r.pth")}
        found = Settings().wishes({**self.GIVEN, "weights": "net_g.pth", "reblur_weights": "r.pth"}, own)
        assert (found["weights"], found["reblur_weights"]) == ("/x/net_g.pth", "/x/r.pth")
        assert found["sent"] == ["/x/net_g.pth", "/x/r.pth"]

    def test_a_sent_m_r_for_named_weights_is_the_only_file_that_was_sent(self) -> None:
        found = Settings().wishes({**self.GIVEN, "reblur_weights": "r.pth"}, {"r.pth": Path("/x/r.pth")})
        assert (found["weights"], found["sent"]) == ("resunet-small", ["/x/r.pth"])

    def test_the_server_s_own_weights_come_with_their_m_r(self) -> None:
        settings = Settings(weights="/home/a/theirs.pth", reblur_weights="r.pth")
        assert next(iter(settings.offered())) == "theirs.pth"  # without its folder
        found = settings.wishes({**self.GIVEN, "weights": "theirs.pth"}, {})
        assert (found["weights"], found["reblur_weights"]) == ("/home/a/theirs.pth", "r.pth")
        assert settings.wishes(self.GIVEN, {})["reblur_weights"] is None

    def test_memory_stays_within_the_server_s_bound(self) -> None:
        settings = Settings(max_memory=2**30)
        for given, size in (("4G", 2**30), ("", 2**30), (None, 2**30), ("512M", 2**29)):
            assert settings.wishes({**self.GIVEN, "max_memory": given}, {})["max_memory"] == size

    @pytest.mark.parametrize(
        "changed",
        [
            {"steps": True},
            {"steps": 1.0},
            {"steps": -1},
            {"amp": "fp16"},
            {"amp": []},
            {"weights": {}},
            {"max_memory": []},
        ],
    )
    def test_others_are_refused(self, changed: dict[str, Any]) -> None:
        with pytest.raises(WishError, match="expected"):
            Settings().wishes({**self.GIVEN, **changed}, {})


class TestVisitor:
    @pytest.mark.parametrize("leaves", [True, False])
    def test_what_is_written_while_its_process_ends_goes_too(self, tmp_path: Path, leaves: bool) -> None:
        async def all_of_it() -> None:
            visitor = Visitors(tmp_path).welcome()
            shot = visitor.new_shot("a.png")
            visitor.add(shot)

            async def work() -> None:
                try:
                    await asyncio.sleep(60)
                finally:  # a process that is killed, but not yet
                    await asyncio.sleep(0.05)
                    shot.folder.mkdir(parents=True)
                    shot.source.touch()

            shot.start(work())
            await asyncio.sleep(0)
            if leaves:
                visitor.leave()
            else:
                visitor.remove(shot)
            assert not shot.folder.exists()
            await asyncio.sleep(0.3)
            assert not shot.folder.exists()
            assert visitor.folder.exists() is not leaves

        run(all_of_it())
