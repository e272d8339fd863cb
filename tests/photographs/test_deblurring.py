"""`python -m reblur_plugin.deblur` on a person's files, with tiny networks."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from reblur_plugin import checkpoints, cli, deblur
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.core import budget, device
from reblur_plugin.core.adapt import Adapter, adapt
from reblur_plugin.host import registry
from reblur_plugin.photographs import deblurring as photographs
from reblur_plugin.registration import register

_NETWORKS = {
    "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
    "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
}


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else runs on this machine, there is room for a photograph as a whole."""
    monkeypatch.setattr(photographs, "available", lambda device: 2**40)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    origin = {"options": _NETWORKS}
    checkpoints.save({"params": ResUNet(1, (4, 4, 4)).state_dict(), "origin": origin}, tmp_path / "net_g_9.pth")
    checkpoints.save({"params": ReblurNet(1, 4).state_dict(), "origin": origin}, tmp_path / "net_r_9.pth")
    return tmp_path / "net_g_9.pth"


@pytest.fixture
def shots(tmp_path: Path, rng: np.random.Generator) -> Path:
    for name in ("a.png", "trip/b.png"):
        path = tmp_path / "shots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(60, 200, (20, 30, 3), dtype=np.uint8))
    return tmp_path / "shots"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["deblur", *map(str, arguments)])
    return cli.guarded(deblur.main)


def test_folders_keep_their_shape_and_results_are_algorithm_1s(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, shots, "-o", out, "--weights", weights, "--steps", 2, "--lr", 0.01, "--device", "cpu") == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["a.png", "trip/b.png"]
    deblur_net, reblur_net = ResUNet(1, (4, 4, 4)), ReblurNet(1, 4)
    checkpoints.load_weights(deblur_net, weights)
    checkpoints.load_weights(reblur_net, weights.with_name("net_r_9.pth"))
    blurry = cv2.imread(str(shots / "a.png"))[..., ::-1].transpose(2, 0, 1)[None] / 255
    image = torch.from_numpy(blurry.copy()).float()
    expected = adapt(deblur_net, reblur_net, image, steps=2, lr=0.01, channels_last=True, fused=True).image
    result = cv2.imread(str(out / "a.png"))[..., ::-1]
    assert np.array_equal(result, (expected.clamp(0, 1) * 255).round()[0].permute(1, 2, 0).numpy())


def test_the_faster_layout_is_taken(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(photographs, "deblur", lambda *arguments: given.append(arguments[3]) or [])
    assert run(monkeypatch, shots, "-o", tmp_path / "out", "--weights", weights, "--device", "cpu") == 0
    assert (given[0].channels_last, given[0].histogram) == (True, "skimage")
    monkeypatch.setattr(device, "device_named", lambda name: torch.device("cuda"))
    assert run(monkeypatch, shots, "-o", tmp_path / "out", "--weights", weights) == 0
    assert (given[1].channels_last, given[1].histogram) == (True, "torch")


def test_without_steps_no_m_r_is_needed(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights.with_name("net_r_9.pth").unlink()
    assert run(monkeypatch, shots / "a.png", "-o", tmp_path / "out", "--weights", weights, "--steps", 0) == 0
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_network_is_named_where_its_checkpoint_does_not_tell(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "theirs.pth"
    torch.save({"state_dict": checkpoints.state_dict(weights)}, bare)
    given = (shots / "a.png", "--steps", 1, "--device", "cpu")
    block = "{type: ResUNet, num_blocks: 1, num_feats: [4, 4, 4]}"
    m_r = ("--reblur_weights", weights.with_name("net_r_9.pth"), "--deblurred_output", "0")
    assert run(monkeypatch, *given, "-o", tmp_path / "a", "--weights", weights) == 0
    assert run(monkeypatch, *given, "-o", tmp_path / "b", "--weights", bare, "--network", block, *m_r) == 0
    assert (tmp_path / "a" / "a.png").read_bytes() == (tmp_path / "b" / "a.png").read_bytes()


class OfTheirs(ResUNet):
    """A user's network with an option of SpandrelNet's name."""

    def __init__(self, weights: str = "none", **choices: Any) -> None:
        super().__init__(1, (4, 4, 4))
        assert weights == "imagenet"


@pytest.mark.parametrize("is_told", [True, False])
def test_an_option_named_weights_is_the_networks_own(weights: Path, is_told: bool) -> None:
    register()
    if "OfTheirs" not in registry.ARCH_REGISTRY:
        registry.ARCH_REGISTRY.register(OfTheirs)
    block = {"type": "OfTheirs", "weights": "imagenet"}
    stored = checkpoints.state_dict(weights)
    checkpoints.save({"params": stored, "origin": {"options": {"network_g": block}}}, weights)
    found = checkpoints.network(weights, "g", None if is_told else block).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in stored.items())


def test_all_that_one_types_is_a_photograph_and_a_folder(
    tmp_path: Path, shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REBLUR_CACHE", str(tmp_path / "cache"))
    assert run(monkeypatch, shots / "a.png", "-o", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "weights: resunet-small, " in said
    assert (
        "dhn-official deblurs better: python -m reblur_plugin.weights fetch dhn-official (29 MB; licence: none" in said
    )
    shown, source = cv2.imread(str(tmp_path / "out" / "a.png")), cv2.imread(str(shots / "a.png"))
    assert shown.shape == source.shape
    assert not np.array_equal(shown, source)
    assert not (tmp_path / "cache").exists()


def test_auto_says_which_precision_it_takes(
    tmp_path: Path,
    weights: Path,
    shots: Path,
    bf16_units: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for there, taken in ((True, "bf16"), (False, "float32")):
        bf16_units(there)
        words = (shots / "a.png", "-o", tmp_path / taken, "--weights", weights, "--amp", "auto", "--device", "cpu")
        assert run(monkeypatch, *words) == 0
        assert f"--amp auto takes {taken} here\n" in capsys.readouterr().err


def test_one_bad_file_is_told_at_the_end_and_the_others_are_done(
    tmp_path: Path,
    weights: Path,
    shots: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (shots / "a1.png").write_bytes(b"no picture")
    assert run(monkeypatch, shots, "-o", tmp_path / "out", "--weights", weights, "--steps", 1) == 1
    assert {path.name for path in (tmp_path / "out").rglob("*.png")} == {"a.png", "b.png"}
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert errors == [f"error: {shots}/a1.png: expected a photograph, got a damaged or unknown file"]


def test_whatever_one_photograph_leads_to_the_others_are_done(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(
        shots / "a2.tif", np.random.default_rng(0).integers(0, 9, (50, 50, 3), np.uint8), compression="zlib"
    )
    whole = (shots / "a2.tif").read_bytes()
    (shots / "a2.tif").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((5, 5, 4), dtype=np.uint8), "CMYK").save(shots / "a3.tif")
    adapted = Adapter.__call__

    def failing(self: Adapter, blurry: torch.Tensor, *rest: Any) -> Any:
        if blurry.shape[-1] == 9:
            raise RuntimeError("not enough memory")
        return adapted(self, blurry, *rest)

    monkeypatch.setattr(Adapter, "__call__", failing)
    cv2.imwrite(str(shots / "a4.png"), np.zeros((9, 9, 3), dtype=np.uint8))
    assert run(monkeypatch, shots, "-o", tmp_path / "out", "--weights", weights, "--steps", 1) == 1
    assert {path.name for path in (tmp_path / "out").rglob("*.*")} == {"a.png", "b.png"}
    damaged, packed, full = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert damaged.startswith(f"error: {shots}/a2.tif: expected a photograph, got a damaged or unknown file (")
    assert packed == f"error: {shots}/a3.tif: expected grey or RGB, got CMYK; convert it to RGB"
    assert full == f"error: {shots}/a4.png: RuntimeError: not enough memory"


def test_an_interrupted_run_goes_on(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (out / "trip").mkdir(parents=True)
    (out / "trip" / "b.png").write_bytes(b"done")
    words = (shots, "-o", out, "--weights", weights, "--steps", 1)
    assert run(monkeypatch, *words) == 1
    assert not (out / "a.png").exists()
    assert run(monkeypatch, *words, "--skip-existing") == 0
    assert (out / "a.png").is_file()
    assert (out / "trip" / "b.png").read_bytes() == b"done"


def test_results_inside_the_input_are_no_sources(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        words = (shots, "-o", shots / "sharp", "--weights", weights, "--steps", 1, "--overwrite")
        assert run(monkeypatch, *words) == 0
    found = {path.relative_to(shots).as_posix() for path in (shots / "sharp").rglob("*.*")}
    assert found == {"sharp/a.png", "sharp/trip/b.png"}
    assert run(monkeypatch, shots / "trip", "-o", shots / "trip", "--weights", weights, "--suffix", "_1") == 0
    assert (shots / "trip" / "b_1.png").is_file()


def test_sizes_are_read_as_people_write_them() -> None:
    sizes = {"4G": 4 * 2**30, "800M": 800 * 2**20, "2.5 GiB": 5 * 2**29, "64kb": 2**16, "9": 9}
    assert {word: deblur.size(word) for word in sizes} == sizes


def test_times_are_told_in_words() -> None:
    words = {0.4: "0 s", 99: "99 s", 100: "2 min", 5940: "99 min", 7500: "2 h 5 min"}
    assert {seconds: photographs._in_words(seconds) for seconds in words} == words


def test_tiny_pictures_pass(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"1.png": (1, 1, 3), "15.png": (3, 5, 3)}
    for name, shape in shapes.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), np.full(shape, 90, dtype=np.uint8))
    assert run(monkeypatch, tmp_path / "in", "-o", tmp_path / "out", "--weights", weights) == 0
    assert {name: cv2.imread(str(tmp_path / "out" / name)).shape for name in shapes} == shapes


def test_compare_writes_a_picture_of_all_stages(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, shots / "a.png", "-o", tmp_path / "out", "--weights", weights, "--compare") == 0
    assert cv2.imread(str(tmp_path / "out" / "a_comparison.png")).shape[1] == 3 * 480


def test_what_it_will_take_is_said_before(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, shots / "a.png", "-o", tmp_path / "out", "--weights", weights) == 0
    assert re.search(r"^a\.png: 30x20, about \d+ s, \d\.\d\d GiB$", capsys.readouterr().err, re.MULTILINE)


def test_a_bound_on_memory_is_kept_by_tiles_that_change_nothing(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    cv2.imwrite(str(tmp_path / "large.png"), rng.integers(60, 200, (600, 700, 3), dtype=np.uint8))
    given = (tmp_path / "large.png", "--weights", weights, "--steps", 1, "--lr", 0.001)
    assert run(monkeypatch, *given, "-o", tmp_path / "whole") == 0
    capsys.readouterr()
    monkeypatch.setattr(budget, "in_use", lambda device: 0)
    assert run(monkeypatch, *given, "-o", tmp_path / "tiled", "--max-memory", "130M") == 0
    assert re.search(r"large\.png: 700x600, about \d+ s, 0\.1\d GiB, \d+ tiles", capsys.readouterr().err)
    whole, tiled = (cv2.imread(str(tmp_path / name / "large.png")).astype(int) for name in ("whole", "tiled"))
    assert np.abs(whole - tiled).max() <= 1  # a rounding that falls to the other side
    assert (whole != tiled).mean() < 1e-3


def test_where_adaptation_goes_astray_the_unadapted_picture_is_written_and_it_is_said(
    tmp_path: Path,
    weights: Path,
    shots: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = (shots / "a.png", "--weights", weights)
    assert run(monkeypatch, *given, "-o", tmp_path / "wild", "--lr", 10) == 0
    assert f"{shots}/a.png: not adapted, " in capsys.readouterr().err
    assert run(monkeypatch, *given, "-o", tmp_path / "plain", "--steps", 0) == 0
    assert "not adapted" not in capsys.readouterr().err
    wild, plain = (cv2.imread(str(tmp_path / name / "a.png")) for name in ("wild", "plain"))
    assert np.array_equal(wild, plain)


def test_progress_counts_the_passes_of_each_photograph(
    tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[Any] = []

    class Bar(photographs.tqdm):
        def __init__(self, *given: Any, **choices: Any) -> None:
            super().__init__(*given, **{**choices, "disable": False})
            bars.append(self)

    monkeypatch.setattr(photographs, "tqdm", Bar)
    assert run(monkeypatch, shots / "a.png", "-o", tmp_path / "out", "--weights", weights, "--steps", 3) == 0
    assert (bars[-1].n, bars[-1].total) == (4, 4)


class TestStopping:
    """Ctrl-C at any moment leaves whole files or none."""

    @pytest.mark.parametrize("place", ["reblur_plugin.files.os.fsync", "reblur_plugin.core.algorithm1.match_histogram"])
    def test_in_the_middle_leaves_nothing_behind(
        self, tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(place, stop)
        assert run(monkeypatch, shots, "-o", tmp_path / "out", "--weights", weights) == 130
        assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []

    def test_by_signal_ends_with_one_word(self, tmp_path: Path, weights: Path) -> None:
        cv2.imwrite(str(tmp_path / "large.png"), np.full((400, 400, 3), 90, dtype=np.uint8))
        words = ["large.png", "-o", "out", "--weights", str(weights), "--steps", "100000"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # as from a terminal: a job in the background may have been told to ignore Ctrl-C
        started = "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
        started += "runpy.run_module('reblur_plugin.deblur', run_name='__main__', alter_sys=True)"
        command = [sys.executable, "-c", started, *words]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            assert any(line.startswith("large.png: 400x400, about ") for line in lines)
            process.send_signal(signal.SIGINT)
            assert "Traceback" not in (rest := process.stderr.read())
            assert rest.endswith("stopped\n")
        assert process.returncode == 130
        assert not (tmp_path / "out").exists()


class TestRefusals:
    @pytest.fixture
    def message(
        self, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> Any:
        def of(*arguments: Any) -> str:
            before = sorted(tmp_path.rglob("*"))
            assert run(monkeypatch, *arguments, "-o", tmp_path / "out", "--weights", weights) == 1
            assert sorted(tmp_path.rglob("*")) == before
            errors = capsys.readouterr().err
            assert "Traceback" not in errors
            return errors

        return of

    def test_missing_and_empty_inputs(self, message: Any, tmp_path: Path) -> None:
        assert f"{tmp_path}/none: no such file or folder" in message(tmp_path / "none")
        (tmp_path / "empty").mkdir()
        assert f"{tmp_path}/empty: expected photographs (.png, " in message(tmp_path / "empty")

    def test_a_result_that_is_there_is_never_replaced_unasked(
        self, message: Any, tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a.png").write_bytes(b"mine")
        assert "out/a.png: is there already" in message(shots / "a.png")
        assert (tmp_path / "out" / "a.png").read_bytes() == b"mine"
        assert run(monkeypatch, shots / "a.png", "-o", tmp_path / "out", "--weights", weights, "--overwrite") == 0
        assert (tmp_path / "out" / "a.png").read_bytes() != b"mine"

    def test_a_source_is_never_replaced_at_all(
        self, tmp_path: Path, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = (shots / "a.png").read_bytes()
        assert run(monkeypatch, shots / "a.png", "-o", shots, "--weights", weights, "--overwrite") == 1
        assert (shots / "a.png").read_bytes() == before
        (shots / "trip" / "b_1.png").write_bytes(before)
        assert run(monkeypatch, shots, "-o", shots, "--weights", weights, "--suffix", "_1", "--overwrite") == 1
        assert (shots / "trip" / "b_1.png").read_bytes() == before
        assert run(monkeypatch, shots / "a.png", "-o", shots, "--weights", weights, "--suffix", "_sharp") == 0
        assert (shots / "a_sharp.png").is_file()

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (
                torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
                "the GPU's memory is full; give --max-memory less than it has, or --device cpu\n",
            ),
            (
                RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
                "this machine's memory is full; give --max-memory less than it has\n",
            ),
        ],
    )
    def test_no_room_is_said_of_its_photograph(
        self, message: Any, shots: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(Adapter, "__call__", full)
        assert f"a.png: {said}" in message(shots / "a.png")

    def test_a_comparison_is_not_replaced_either(self, message: Any, tmp_path: Path, shots: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "a_comparison.png").write_bytes(b"mine")
        assert "out/a_comparison.png: is there already" in message(shots / "a.png", "--compare")
        assert (tmp_path / "out" / "a_comparison.png").read_bytes() == b"mine"
        cv2.imwrite(str(shots / "c.jpg"), np.zeros((4, 4, 3), dtype=np.uint8))
        cv2.imwrite(str(shots / "c.png"), np.zeros((4, 4, 3), dtype=np.uint8))
        assert "c_comparison.png is also that of" in message(shots / "c.jpg", shots / "c.png", "--compare")

    def test_words_that_are_refused_before_anything_is_read(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        suffix = "argument --suffix: expected letters behind a name such as _sharp, got"
        size = "argument --max-memory: expected a size such as 4G or 800M, got"
        cases = {f"--suffix={word}": f"{suffix} '{word}'" for word in ("/x", "../x", "a/b")}
        cases |= {f"--max-memory={word}": f"{size} '{word}'" for word in ("lots", "4X", "-1G", "0")}
        for word, expected in cases.items():
            with pytest.raises(SystemExit):
                run(monkeypatch, "a.png", "-o", "out", "--weights", "w.pth", word)
            assert expected in capsys.readouterr().err

    def test_two_sources_of_one_result(self, message: Any, tmp_path: Path, shots: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), dtype=np.uint8))
        assert "is also that of" in message(tmp_path / "a.png", shots / "a.png")

    def test_a_checkpoint_that_tells_nothing(self, message: Any, weights: Path, shots: Path) -> None:
        checkpoints.save({"params": ResUNet(1, (4, 4, 4)).state_dict()}, weights)
        said = "net_g_9.pth: expected weights of a network that spandrel knows, got others; name it: --network"
        assert said in message(shots)

    def test_a_checkpoint_that_tells_nothing_where_spandrel_is_missing(
        self, message: Any, weights: Path, shots: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "spandrel" else find(name))
        checkpoints.save({"params": ResUNet(1, (4, 4, 4)).state_dict()}, weights)
        assert "net_g_9.pth: doesn't tell which network it belongs to; pip install spandrel" in message(shots)

    @pytest.mark.parametrize(
        ("block", "said"),
        [
            ("{type: ResUNte}", "--network: type: nothing is registered as 'ResUNte'; did you mean ResUNet"),
            ("{type: ResUNet, num_block: 2}", "--network: num_block: unknown key; did you mean num_blocks?"),
            ("ResUNet", "--network: expected a block such as '{type: DHN}', got 'ResUNet'"),
            ("{type: DHN", "--network {type: DHN, line 1: expected plain YAML"),
            ("{type: DHN}", "net_g_9.pth: doesn't fit DHN"),
        ],
    )
    def test_a_network_that_is_named_wrongly(self, message: Any, shots: Path, block: str, said: str) -> None:
        assert said in message(shots, "--network", block)

    def test_weights_of_no_name_and_no_file(
        self, tmp_path: Path, shots: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, shots, "-o", tmp_path / "out", "--weights", "resunet-smal") == 1
        assert "weights: nothing is named 'resunet-smal'; did you mean resunet-small?" in capsys.readouterr().err

    def test_a_checkpoint_without_m_r(self, message: Any, weights: Path, shots: Path) -> None:
        origin = {"options": {"network_g": _NETWORKS["network_g"]}}
        checkpoints.save({"params": ResUNet(1, (4, 4, 4)).state_dict(), "origin": origin}, weights)
        assert "has no M_R to adapt by; give --reblur-weights (docs/photographs.md) or --steps 0" in message(shots)

    def test_m_r_that_is_not_beside_m_d(self, message: Any, weights: Path, shots: Path) -> None:
        weights.with_name("net_r_9.pth").unlink()
        assert "net_r_9.pth: no such checkpoint" in message(shots)

    def test_a_network_that_nobody_registered(self, message: Any, weights: Path, shots: Path) -> None:
        origin = {"options": {"network_g": {"type": "MyNet"}}}
        checkpoints.save({"params": {"w": torch.ones(1)}, "origin": origin}, weights)
        assert "belongs to a network 'MyNet' that isn't known here; give its module by --import" in message(shots)

    def test_a_file_that_is_no_photograph(self, message: Any, tmp_path: Path) -> None:
        for name, content in (("empty.png", b""), ("notes.txt", b"a bench"), ("a.png.part", b"x")):
            (tmp_path / name).write_bytes(content)
            expected = "a photograph, got an empty" if name == "empty.png" else "one of .png, .jpg, .jpeg, .bmp, .tif"
            (error,) = [line for line in message(tmp_path / name).splitlines() if line.startswith("error: ")]
            assert error.startswith(f"error: {tmp_path / name}: expected {expected}")

    def test_a_checkpoint_of_another_network(self, message: Any, weights: Path, shots: Path) -> None:
        # M_R's file where M_D's should be: its origin tells of both networks
        weights.with_name("net_r_9.pth").replace(weights)
        assert f"{weights}: doesn't fit ResUNet with " in message(shots)

    def test_too_small_a_bound(self, message: Any, shots: Path) -> None:
        errors = message(shots / "a.png", "--max-memory", "1M")
        assert re.search(
            r"^error: .*a\.png: max_memory: expected more than \d\.\d\d GiB for 30x20 pixels with these networks, "
            r"got 0\.00 GiB; give more, or a smaller photograph$",
            errors,
            re.MULTILINE,
        )

    def test_a_device_that_is_not_there(self, message: Any, shots: Path) -> None:
        assert "--device: expected a device of this machine, got 'tpu9' (" in message(shots, "--device", "tpu9")

    def test_wrong_numbers(self, message: Any, shots: Path) -> None:
        assert "steps: expected a whole number of updates >= 0, got -1" in message(shots, "--steps", -1)
        assert "lr: expected a learning rate > 0" in message(shots, "--lr", 0)


def test_a_photograph_that_is_missing_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from reblur_plugin import cli, deblur; done = cli.guarded(deblur.main); "
        "assert not {'torch', 'basicsr'} & sys.modules.keys(); sys.exit(done)"
    )
    words = [tmp_path / "a.png", "-o", tmp_path / "out", "--weights", tmp_path / "net_g.pth", "--import", "mine"]
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert (finished.returncode, finished.stderr) == (1, f"error: {tmp_path}/a.png: no such file or folder\n")
