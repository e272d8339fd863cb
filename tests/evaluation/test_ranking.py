"""`python -m reblur_plugin.reblurability` on anybody's results, with an M_R that moves each image by a known amount."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from reblur_plugin import checkpoints, cli, reblurability
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.evaluation import ranking

BLOCK = {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4, "global_skip": True}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """M_R(L) = L + (0.5 - L) / 4 by the first and the last layer alone: the further from grey, the more it changes."""
    network = ReblurNet(1, 4, global_skip=True)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        for channel in range(3):
            network.head.weight[channel, channel, 2, 2] = 1
            network.tail.weight[channel, channel, 2, 2] = -0.25
    path = tmp_path / "weights" / "net_r_9.pth"
    checkpoints.save({"params": network.state_dict(), "origin": {"options": {"network_r": BLOCK}}}, path)
    return path


def put(path: Path, level: int, size: tuple[int, int] = (24, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), level, dtype=np.uint8))
    return path


def levels(level: int) -> float:
    """Return what M_R changes a flat image of that grey level by: a quarter of its distance to the middle."""
    return abs(127.5 - level) / 4


@pytest.fixture
def methods(tmp_path: Path) -> list[Path]:
    """Two folders of two images of the same names, and one that the second alone has."""
    for method, values in (("ours", (120, 100)), ("theirs", (90, 60))):
        for name, value in zip(("a.png", "trip/b.png"), values, strict=True):
            put(tmp_path / "results" / method / name, value)
    put(tmp_path / "results" / "theirs" / "c.png", 0)
    return [tmp_path / "results" / method for method in ("ours", "theirs")]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["reblurability", *map(str, arguments)])
    return cli.guarded(reblurability.main)


class TestTable:
    def test_the_most_reblurable_comes_first_and_folders_are_compared_by_what_all_have(
        self, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert run(monkeypatch, *methods, "--weights", weights) == 0
        lines = capfd.readouterr().out.splitlines()
        ours, theirs = methods
        expected = [(theirs / "c.png", 0), (theirs / "trip/b.png", 60), (theirs / "a.png", 90)]
        expected += [(ours / "trip/b.png", 100), (ours / "a.png", 120)]
        assert [line.split() for line in lines[1:6]] == [
            [str(rank), f"{levels(level):.3f}", str(path)] for rank, (path, level) in enumerate(expected, 1)
        ]
        # c.png is left out: (levels(120) + levels(100)) / 2 = 4.375 and (levels(90) + levels(60)) / 2 = 13.125
        assert lines[6:] == [
            "",
            "mean over the 2 images that all 2 folders have",
            f" 4.375  {ours}",
            f"13.125  {theirs}",
        ]

    def test_files_are_ranked_too_and_each_once(
        self, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(methods[0])
        assert run(monkeypatch, "a.png", methods[0], "trip/../a.png", "--weights", weights) == 0
        assert [line.split()[2:] for line in capfd.readouterr().out.splitlines()[1:]] == [
            [str(methods[0] / "trip/b.png")],
            ["a.png"],
        ]

    def test_folders_without_a_name_in_common_are_refused_with_two_that_do_not_meet(
        self, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        other = methods[0].parent / "other"
        other.mkdir()
        shutil.copy(methods[0] / "a.png", other / "a-1.png")
        assert run(monkeypatch, methods[0], other, "--weights", weights) == 1
        assert f"got a in {methods[0]} and a-1 in {other}; rename them" in capfd.readouterr().err

    def test_a_bad_file_is_told_at_the_end_and_the_others_are_ranked(
        self, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (methods[0] / "a.png").write_bytes(b"")
        assert run(monkeypatch, methods[0], "--weights", weights) == 1
        said = capfd.readouterr()
        assert str(methods[0] / "trip/b.png") in said.out
        assert f"error: {methods[0] / 'a.png'}: expected an image, got an empty file" in said.err

    def test_an_image_without_room_is_told_and_the_others_are_ranked(
        self, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        large = put(methods[0] / "large.png", 0, (64, 64))
        fits = ranking.reblurability_map

        def bounded(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
            if image.shape[-1] == 64:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return fits(network, image)

        monkeypatch.setattr(ranking, "reblurability_map", bounded)
        assert run(monkeypatch, methods[0], "--weights", weights) == 1
        said = capfd.readouterr()
        assert said.out.count(".png") == 2
        assert f"error: {large}: memory: the GPU has less than is needed here; give a smaller image" in said.err
        assert "Traceback" not in said.err


class TestFiles:
    def test_out_gets_the_ranking_and_a_picture_of_each_image(
        self, tmp_path: Path, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        assert run(monkeypatch, *methods, "--weights", weights, "-o", out) == 0
        with (out / "ranking.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["rank"], row["folder"], row["image"]) for row in rows[:2]] == [
            ("1", str(methods[1]), "c.png"),
            ("2", str(methods[1]), "trip/b.png"),
        ]
        assert float(rows[0]["reblurability"]) == pytest.approx(levels(0), rel=1e-5)
        assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == [
            f"{name}_reblurability.png" for name in ("ours/a", "ours/trip/b", "theirs/a", "theirs/c", "theirs/trip/b")
        ]

    def test_the_picture_shows_the_image_and_the_change_on_a_scale_of_16_levels(
        self, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # |127.5 - 96| / 4 = 7.875 of 16: the middle of viridis, (33, 145, 140); |127.5 - 0| / 4 is beyond its end
        for level, colour in ((96, (33, 145, 140)), (0, (253, 231, 37))):
            image, out = put(tmp_path / "one" / f"{level}.png", level), tmp_path / f"out{level}"
            assert run(monkeypatch, image, "--weights", weights, "-o", out) == 0
            picture = cv2.imread(str(out / f"{level}_reblurability.png"))[..., ::-1]
            assert picture.shape[1] == 2 * 480
            crops = picture[-20, 240].tolist(), picture[-20, 720].tolist()
            assert crops[0] == [level] * 3
            np.testing.assert_allclose(crops[1], colour, atol=5)

    def test_nothing_is_overwritten_unless_asked_for(
        self,
        tmp_path: Path,
        weights: Path,
        methods: list[Path],
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "out"
        assert run(monkeypatch, methods[0], "--weights", weights, "-o", out) == 0
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert run(monkeypatch, methods[1], "--weights", weights, "-o", out) == 1
        assert (
            f"error: {out / 'ranking.csv'}: is there already; give another -o, or --overwrite" in capfd.readouterr().err
        )
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        assert run(monkeypatch, methods[1], "--weights", weights, "-o", out, "--overwrite") == 0
        assert (out / "ranking.csv").read_bytes() != before[out / "ranking.csv"]

    def test_pictures_are_not_replaced_either(
        self, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        out, images = tmp_path / "out", tmp_path / "images"
        for name in ("a.png", "a.jpg", "b.png"):
            put(images / name, 100)
        out.mkdir()
        mine = out / "b_reblurability.png"
        mine.write_bytes(b"mine")
        assert run(monkeypatch, images, "--weights", weights, "-o", out) == 1
        errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
        assert [line.split(": is there")[0] for line in errors] == [
            f"error: {images / 'a.png'}: {out / 'a_reblurability.png'}",
            f"error: {images / 'b.png'}: {mine}",
        ]
        assert mine.read_bytes() == b"mine"
        assert (out / "a_reblurability.png").is_file()


class TestKernels:
    @pytest.fixture
    def moved(self, tmp_path: Path, rng: np.random.Generator) -> Path:
        """A result, and as its blurry input the same image four rows further down."""
        pixels = rng.integers(0, 256, (160, 200, 3), dtype=np.uint8)
        for folder, shown in (("result", pixels), ("blurry", np.roll(pixels, 4, axis=0))):
            (tmp_path / folder).mkdir()
            cv2.imwrite(str(tmp_path / folder / "a.png"), shown)
        return tmp_path / "result"

    def inset(self, out: Path) -> np.ndarray[Any, Any]:
        """Return the kernel's 25 x 25 values as they are shown: 40 pixels of 160, in a panel of 480 for 200."""
        whole = cv2.imread(str(out / "a_reblurability.png"))[28 : 28 + 384, :480, 0]
        return cv2.resize(whole[-96:, -96:], (25, 25), interpolation=cv2.INTER_AREA)[1:-1, 1:-1]

    def test_to_the_blurry_input(
        self, tmp_path: Path, weights: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        assert run(monkeypatch, moved, "--weights", weights, "-o", out, "--blurry", tmp_path / "blurry") == 0
        assert np.unravel_index(self.inset(out).argmax(), (23, 23)) == (12 + 4 - 1, 12 - 1)

    def test_to_what_m_r_makes_of_it(
        self, tmp_path: Path, weights: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        assert run(monkeypatch, moved, "--weights", weights, "-o", out, "--kernel") == 0
        assert np.unravel_index(self.inset(out).argmax(), (23, 23)) == (11, 11)  # this M_R blurs nothing

    def test_a_missing_partner_and_a_small_image_are_told(
        self,
        tmp_path: Path,
        weights: Path,
        moved: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        put(moved / "small.png", 50, (5, 3))
        put(tmp_path / "blurry" / "small.jpg", 50, (5, 3))
        put(moved / "alone.png", 50)
        assert run(monkeypatch, moved, "--weights", weights, "-o", tmp_path / "o", "--blurry", tmp_path / "blurry") == 1
        said = capfd.readouterr()
        assert re.search(
            rf"error: {moved}/small\.png: kernel: expected an odd size of at most a third of the 3", said.err
        )
        assert f"error: {moved}/alone.png: no blurry image alone in {tmp_path}/blurry; give their folder" in said.err
        assert len(said.out.splitlines()) == 4  # all three are ranked


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            (["none"], "none: no such file or folder"),
            (["empty"], "empty: expected images .* found none"),
            (["results/ours", "-o", "results/ours/out"], "lies in .*ours, where the next ranking"),
        ],
    )
    def test_what_cannot_be_ranked_is_one_sentence(
        self,
        tmp_path: Path,
        weights: Path,
        methods: list[Path],
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
        given: list[str],
        message: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty").mkdir()
        assert run(monkeypatch, *given, "--weights", weights) == 1
        errors = capfd.readouterr().err
        assert re.match(f"error: .*{message}", errors)
        assert len(errors.splitlines()) == 1

    def test_a_checkpoint_of_m_d_is_refused(
        self, tmp_path: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        checkpoints.save({"params": ReblurNet(1, 4).state_dict()}, tmp_path / "net_g.pth")
        assert run(monkeypatch, methods[0], "--weights", tmp_path / "net_g.pth") == 1
        assert "net_g.pth: doesn't tell which network it belongs to" in capfd.readouterr().err

    def test_kernels_need_a_place(
        self, weights: Path, methods: list[Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            run(monkeypatch, methods[0], "--weights", weights, "--kernel")
        assert "give -o as well" in capfd.readouterr().err
