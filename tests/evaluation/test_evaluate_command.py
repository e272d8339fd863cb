"""`evaluate`: each form of a metric is its reference's on real pairs; what is wrong is named and the rest goes on."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import lpips
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import reblur_plugin
from reblur_plugin import host
from reblur_plugin.core.device import DeviceError
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluate import chosen_metrics
from reblur_plugin.evaluation import commands, records
from reblur_plugin.evaluation.commands import Asked, Found
from reblur_plugin.evaluation.journal import Journal
from reblur_plugin.files import FileError, locked
from reblur_plugin.metrics import lpips_metric

reblur_plugin.register()

EXACT = 1e-9  # the order of sums
SINGLE = 1e-4  # LPIPS is computed in float32
FLOAT32_LUMA = 1e-5  # BasicSR computes the luma in float32
PRINTED = 5.1e-5  # four decimals
OF_49_TERMS = 1e-7  # OpenCV may add them in another order than SciPy
Evaluating = Callable[..., Found]
SIZE = (96, 192, 3)


def write(path: Path, picture: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def pairs(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Sharp images 1 to 3, and results that are so many grey levels brighter."""
    for number in (1, 2, 3):
        sharp = rng.integers(0, 200, SIZE, dtype=np.uint8)
        write(tmp_path / "gt" / f"{number}.png", sharp)
        write(tmp_path / "mine" / f"{number}.png", sharp + np.uint8(number))
    return tmp_path


def evaluating(root: Path, *results: str, metrics: tuple[str, ...] = ("psnr",), **changes: Any) -> Found:
    asked = {
        "results": [str(root / one) for one in results],
        "sharp": root / "gt",
        "blurry": None,
        "metrics": chosen_metrics([*metrics], [], None),
        "optional": set(),
        "out": root / "out",
        "device": "cpu",
    }
    return commands.evaluate(Asked(**{**asked, **changes}))


def values(found: Found, metric: str) -> dict[tuple[str, str, str], float]:
    return {(run.name, one.stage, one.image): one.scores[metric].value for run in found.runs for one in run.records}


def luma(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return Y of ITU-R BT.601 in [16, 235] of a BGR picture."""
    blue, green, red = (picture[..., channel].astype(np.float64) for channel in range(3))
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


def matlabs_ssim(x: NDArray[np.uint8], y: NDArray[np.uint8]) -> float:
    """Return MATLAB's `ssim` of two colour images by SciPy: one Gaussian over rows, columns and channels."""

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(values, 1.5, mode="nearest", radius=5)

    a, b = x.astype(np.float64), y.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = mean(a), mean(b)
    top = (2 * mean_a * mean_b + c1) * (2 * (mean(a * b) - mean_a * mean_b) + c2)
    below = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2 + c2
    return float((top / ((mean_a**2 + mean_b**2 + c1) * below)).mean())


class TestOnRealPairs:
    @pytest.fixture(scope="class")
    def found(self, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
        root = shared / "data" / "GOPRO_Large" / "test"
        weights = {net: shared / "weights" / f"lpips_{net}" / f"{net}.backbone.pth" for net in ("alex", "squeeze")}
        names = ["psnr", "psnr-y", "ssim", "ssim-uniform", "ssim-volume", "lpips-alex", "lpips-squeeze", "niqe"]
        metrics = chosen_metrics(names, [f"{net}={path}" for net, path in weights.items()], None)
        out = tmp_path_factory.mktemp("scores")
        return commands.evaluate(Asked([], root, root, metrics, set(), out, "cpu", processes=2))

    @pytest.fixture(scope="class")
    def frames(self, shared: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        root = shared / "data" / "GOPRO_Large" / "test"
        return {
            f"{path.parent.parent.name}/{path.stem}": tuple(  # type: ignore[misc]
                cv2.imread(str(one)) for one in (path, path.parent.parent / "sharp" / path.name)
            )
            for path in sorted(root.rglob("blur/*.png"))
        }

    @pytest.mark.parametrize(
        ("metric", "reference", "tolerance"),
        [
            ("psnr", lambda x, y: peak_signal_noise_ratio(y, x, data_range=255), EXACT),
            (
                "ssim",
                lambda x, y: structural_similarity(
                    x, y, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
                ),
                EXACT,
            ),
            ("ssim", lambda x, y: host.registry.METRIC_REGISTRY.get("calculate_ssim")(x, y, crop_border=0), EXACT),
            ("ssim-uniform", lambda x, y: structural_similarity(x, y, channel_axis=-1), EXACT),
            ("ssim-volume", lambda x, y: matlabs_ssim(x, y), EXACT),
            (
                "psnr-y",
                lambda x, y: peak_signal_noise_ratio(luma(y), luma(x), data_range=255),
                FLOAT32_LUMA,
            ),
            ("niqe", lambda x, y: host.registry.METRIC_REGISTRY.get("calculate_niqe")(x, crop_border=0), OF_49_TERMS),
        ],
        ids=[
            "psnr-skimage",
            "ssim-skimage",
            "ssim-basicsr",
            "ssim-uniform-skimage",
            "ssim-volume-scipy",
            "psnr-y-skimage",
            "niqe-basicsr",
        ],
    )
    def test_each_form_is_its_references(
        self,
        found: Found,
        frames: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]],
        metric: str,
        reference: Callable[[Any, Any], float],
        tolerance: float,
    ) -> None:
        scores = values(found, metric)
        assert len(frames) == 4
        for name, (blurry, sharp) in frames.items():
            expected = float(reference(blurry, sharp))
            assert scores["blurry", "blurry", name] == pytest.approx(expected, rel=tolerance, abs=0), name

    @pytest.mark.parametrize("net", ["alex", "squeeze"])
    def test_lpips_is_the_packages(
        self, found: Found, frames: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]], shared: Path, net: str
    ) -> None:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            model = lpips.LPIPS(net=net, pnet_rand=True).eval()
        stored = torch.load(shared / "weights" / f"lpips_{net}" / f"{net}.backbone.pth", weights_only=True)
        model.net.load_state_dict({key: stored[key.split(".", 1)[1]] for key in model.net.state_dict()})
        name = "GOPR0384_11_00/000001"
        pair = [lpips.im2tensor(picture[..., ::-1].copy()) for picture in frames[name]]
        with torch.no_grad():
            expected = float(model(*pair))
        score = values(found, f"lpips-{net}")["blurry", "blurry", name]
        assert score == pytest.approx(expected, rel=SINGLE, abs=0)
        # published with the weights: alex .3829, squeeze .291604
        assert score == pytest.approx({"alex": 0.3829, "squeeze": 0.291604}[net], abs=PRINTED)

    def test_the_kind_of_blur_is_noted(self, found: Found) -> None:
        assert {one.blur_kind for run in found.runs for one in run.records} == {"blur"}


class TestScores:
    def test_are_those_of_each_pair(self, pairs: Path) -> None:
        found = evaluating(pairs, "mine")
        # a difference of d everywhere: 20 log10(255 / d)
        assert values(found, "psnr") == pytest.approx(
            {("mine", "result", str(d)): 20 * math.log10(255 / d) for d in (1, 2, 3)}
        )
        assert found.failures == []

    def test_processes_give_the_same(self, pairs: Path) -> None:
        one = evaluating(pairs, "mine", metrics=("psnr", "ssim", "niqe"))
        two = evaluating(pairs, "mine", metrics=("psnr", "ssim", "niqe"), out=pairs / "two", processes=2)
        for metric in ("psnr", "ssim", "niqe"):
            assert values(one, metric) == pytest.approx(values(two, metric), rel=EXACT, abs=0, nan_ok=True)
        assert (one.processes, two.processes) == (1, 2)

    def test_without_sharp_images_there_are_those_that_need_none(self, pairs: Path) -> None:
        found = evaluating(pairs, "mine", metrics=("psnr", "niqe"), sharp=None)
        assert {name for run in found.runs for one in run.records for name in one.scores} == {"niqe"}
        with pytest.raises(ReblurError, match="--metrics: expected one that needs no sharp images"):
            evaluating(pairs, "mine", sharp=None)

    def test_reblurability_takes_weights_by_their_name(self, pairs: Path) -> None:
        metrics = chosen_metrics(["psnr"], [], "resunet-small")
        found = commands.evaluate(
            Asked([str(pairs / "mine")], pairs / "gt", None, metrics, set(), pairs / "out", "cpu")
        )
        scores = found.runs[0].records[0].scores
        assert {*scores} == {"psnr", "reblurability"}
        assert re.fullmatch(r"M_R [0-9a-f]{16}, grey levels", scores["reblurability"].variant.form)

    def test_identical_pictures_are_infinite_and_left_out_of_the_mean(self, pairs: Path) -> None:
        write(pairs / "mine" / "1.png", cv2.imread(str(pairs / "gt" / "1.png")))
        found = evaluating(pairs, "mine")
        assert values(found, "psnr")["mine", "result", "1"] == math.inf
        mean = (20 * math.log10(255 / 2) + 20 * math.log10(255 / 3)) / 2
        assert f"mine       3  {mean:.4f}" in commands.text_of(found, 1.0)

    def test_blurry_images_are_scored_too(self, pairs: Path) -> None:
        write(pairs / "lq" / "2.png", cv2.imread(str(pairs / "gt" / "2.png")) + np.uint8(8))
        found = evaluating(pairs, "mine", blurry=pairs / "lq")
        assert values(found, "psnr")["blurry", "blurry", "2"] == pytest.approx(20 * math.log10(255 / 8))
        assert {one.blurry for one in found.runs[0].records} == {None, str(pairs / "lq" / "2.png")}


class TestBrokenInputs:
    def test_each_is_a_sentence_and_the_rest_goes_on(self, pairs: Path) -> None:
        whole = (pairs / "mine" / "1.png").read_bytes()
        (pairs / "mine" / "1.png").write_bytes(whole[: len(whole) // 2])
        write(pairs / "mine" / "2.png", np.zeros((90, 192, 3), np.uint8))
        (pairs / "empty").mkdir()
        found = evaluating(pairs, "mine", "empty", "missing")
        assert [*values(found, "psnr")] == [("mine", "result", "3")]
        assert sorted(found.failures) == sorted(
            [
                f"{pairs / 'empty'}: expected images (.png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp), found none",
                f"{pairs / 'missing'}: no such folder; expected images",
                f"{pairs / 'mine' / '1.png'}: expected an image, got a damaged or unknown file; unzip or download it "
                "again",
                f"{pairs / 'mine' / '2.png'}: expected the size of {pairs / 'gt' / '2.png'}, 192x96, got 192x90; "
                "left out",
            ]
        )

    def test_nothing_to_score_is_one_sentence(self, pairs: Path) -> None:
        with pytest.raises(ReblurError, match="missing: no such folder; expected images"):
            evaluating(pairs, "missing")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"processes": 0}, "--processes: expected 1 or more, got 0"),
            ({"device": "cuda:7"}, "cuda"),
            ({"sharp": Path("nowhere")}, "nowhere: no such folder; expected images"),
        ],
    )
    def test_wrong_settings(self, pairs: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises((ReblurError, DeviceError), match=message):
            evaluating(pairs, "mine", **changes)

    @pytest.mark.parametrize(
        ("names", "weights", "message"),
        [
            (["pnsr"], [], "--metrics: expected known names, got 'pnsr'; did you mean psnr"),
            (["psnr"], ["alex=x"], r"--lpips-weights: expected NET=FILE with a backbone of --metrics \(psnr\)"),
        ],
    )
    def test_wrong_metrics(self, names: list[str], weights: list[str], message: str) -> None:
        with pytest.raises(ReblurError, match=message):
            chosen_metrics(names, weights, None)

    def test_weights_that_cannot_be_used_end_it(self, pairs: Path) -> None:
        (pairs / "bad.pth").write_bytes(b"no weights")
        metrics = chosen_metrics(["psnr", "lpips-alex"], [str(pairs / "bad.pth")], None)
        with pytest.raises(ReblurError, match=r"bad\.pth"):
            commands.evaluate(
                Asked([str(pairs / "mine")], pairs / "gt", None, metrics, {"lpips-alex"}, pairs / "out", "cpu")
            )

    def test_weights_that_cannot_be_downloaded_leave_the_default_metric_out(
        self, pairs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: Any, **options: Any) -> None:
            raise OSError("no network")

        monkeypatch.setattr(lpips, "LPIPS", refuse)
        lpips_metric.load_lpips.cache_clear()
        metrics = chosen_metrics(["psnr", "lpips-alex"], [], None)
        asked = Asked([str(pairs / "mine")], pairs / "gt", None, metrics, {"lpips-alex"}, pairs / "out", "cpu")
        found = commands.evaluate(asked)
        assert {name for one in found.runs[0].records for name in one.scores} == {"psnr"}
        (note,) = found.notes
        assert note.startswith("lpips-alex is left out: reblur_lpips: the weights of 'alex' can't be downloaded")
        with pytest.raises(ReblurError, match="can't be downloaded"):
            commands.evaluate(Asked(**{**vars(asked), "optional": set()}))


class TestAgain:
    def test_a_finished_evaluation_is_not_repeated(self, pairs: Path) -> None:
        first = evaluating(pairs, "mine")
        second = evaluating(pairs, "mine")
        assert (first.scored, second.scored) == (3, 0)
        assert values(first, "psnr") == values(second, "psnr")

    def test_one_of_other_files_is_replaced_only_if_asked(self, pairs: Path) -> None:
        evaluating(pairs, "mine")
        write(pairs / "mine" / "2.png", np.zeros(SIZE, np.uint8))
        assert evaluating(pairs, "mine").failures == [
            f"{pairs / 'out' / 'mine'}: holds scores of other files or metrics; give another -o, or --overwrite"
        ]
        assert evaluating(pairs, "mine", overwrite=True).scored == 3

    @pytest.mark.skipif(os.name == "nt", reason="signals")
    def test_one_that_was_killed_goes_on(self, pairs: Path, rng: np.random.Generator) -> None:
        for number in range(4, 40):
            sharp = rng.integers(0, 200, SIZE, dtype=np.uint8)
            write(pairs / "gt" / f"{number}.png", sharp)
            write(pairs / "mine" / f"{number}.png", sharp + np.uint8(4))
        command = [sys.executable, "-m", "reblur_plugin.evaluate", str(pairs / "mine"), "--gt", str(pairs / "gt")]
        command += ["-o", str(pairs / "out"), "--metrics", "psnr", "niqe", "--processes", "1"]
        journal = pairs / "out" / "mine" / "journal" / "0.jsonl"
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes().count(b"\n{") > 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        had = len({one.image for one in records.read_runs(pairs / "out" / "mine")[0].records})
        assert 3 <= had < 39
        found = evaluating(pairs, "mine", metrics=("psnr", "niqe"))
        assert found.scored == 39 - had
        assert len(values(found, "psnr")) == 39
        assert not journal.parent.exists()


class TestWhatIsThere:
    def test_the_journal_of_a_killed_test_is_left_alone(self, pairs: Path) -> None:
        journal = Journal(pairs / "out" / "mine" / "journal")
        journal.start({"program": "test", "options": "theirs"})
        assert evaluating(pairs, "mine").failures == [
            f"{pairs / 'out' / 'mine'}: holds scores of other files or metrics; give another -o, or --overwrite"
        ]
        assert journal.head() == {"program": "test", "options": "theirs"}

    def test_a_journal_without_its_beginning_is_nothing(self, pairs: Path) -> None:
        (pairs / "out" / "mine" / "journal").mkdir(parents=True)
        assert evaluating(pairs, "mine").scored == 3
        assert not (pairs / "out" / "mine" / "journal").exists()

    def test_other_partners_of_the_same_files_are_others(self, pairs: Path) -> None:
        for number, name in enumerate(("c_1", "b_2", "a_3"), 1):
            write(pairs / "odd" / f"{name}.png", cv2.imread(str(pairs / "mine" / f"{number}.png")))
        by_name = evaluating(pairs, "odd")
        assert values(by_name, "psnr")["odd", "result", "1"] == pytest.approx(20 * math.log10(255))
        by_order = evaluating(pairs, "odd", by_order=True, overwrite=True)
        assert values(by_order, "psnr")["odd", "result", "1"] < 20

    def test_lines_of_others_in_a_journal_are_passed_over(self, pairs: Path) -> None:
        found = evaluating(pairs, "mine")
        journal = Journal(pairs / "out" / "mine" / "journal")
        journal.start(found.runs[0].head)
        whole = {"dataset": "gt", "index": 0, "name": "1", "stages": {}, "trace": []}
        odd = [{"index": "x"}, {"name": 5}, {"pictures": {"result": 5}}, {"sharp": 5}, {"pixels": "x"}, {"trace": 3}]
        odd += [{"stages": {"result": {"psnr": 10**400}}}, {"stages": {"result": {"psnr": []}}}]
        lines = [b'{"a": 1}', b'{"dataset": "gt", "index": 3}', b"[]", b"7"]
        lines += [json.dumps({**whole, **change}).encode() for change in odd]
        (journal.folder / "0.jsonl").write_bytes(b"\n".join(lines))
        assert evaluating(pairs, "mine").scored == 3

    def test_what_failed_is_told_and_tried_again(self, pairs: Path) -> None:
        whole = (pairs / "mine" / "1.png").read_bytes()
        times = (pairs / "mine" / "1.png").stat()
        (pairs / "mine" / "1.png").write_bytes(bytes(len(whole)))
        os.utime(pairs / "mine" / "1.png", ns=(times.st_atime_ns, times.st_mtime_ns))
        for _ in range(2):
            assert len(evaluating(pairs, "mine").failures) == 1
        (pairs / "mine" / "1.png").write_bytes(whole)
        os.utime(pairs / "mine" / "1.png", ns=(times.st_atime_ns, times.st_mtime_ns))
        found = evaluating(pairs, "mine")
        assert found.failures == []
        assert len(values(found, "psnr")) == 3

    def test_a_mended_file_is_scored(self, pairs: Path) -> None:
        whole = (pairs / "mine" / "1.png").read_bytes()
        (pairs / "mine" / "1.png").write_bytes(whole[:50])
        assert len(evaluating(pairs, "mine").failures) == 1
        (pairs / "mine" / "1.png").write_bytes(whole)
        assert evaluating(pairs, "mine").failures == []

    def test_notes_are_told_again(self, pairs: Path) -> None:
        write(pairs / "gt" / "1.png", np.zeros((90, 100, 3), np.uint8))  # too small for NIQE
        write(pairs / "mine" / "1.png", np.ones((90, 100, 3), np.uint8))
        first, second = (evaluating(pairs, "mine", metrics=("psnr", "niqe")) for _ in range(2))
        assert first.notes == second.notes
        assert "NIQE: expected at least two blocks of 96x96 pixels, got 100x90; left out" in first.notes[0]

    def test_a_file_in_the_journals_place_is_one_sentence(self, pairs: Path) -> None:
        (pairs / "out" / "mine").mkdir(parents=True)
        (pairs / "out" / "mine" / "journal").write_text("x")
        with pytest.raises(FileError, match=r"journal: can't be written \(Not a directory\)"):
            evaluating(pairs, "mine")

    def test_another_evaluation_of_the_same_place_is_refused(self, pairs: Path) -> None:
        with locked(pairs / "out" / "mine"), pytest.raises(FileError, match="expected no other run to write there"):
            evaluating(pairs, "mine")


class TestLabels:
    @pytest.mark.parametrize("label", ["..", ".", "", "a/b", "a\\b", "C:", "x" * 300, "a\nb"])
    def test_one_that_is_no_plain_name_is_refused(self, pairs: Path, label: str) -> None:
        with pytest.raises(ReblurError, match="expected LABEL=FOLDER with a plain name as LABEL, got"):
            evaluating(pairs, **{"results": [f"{label}={pairs / 'mine'}"]})

    @pytest.mark.parametrize("label", ["blurry", "sharp"])
    def test_the_data_sets_own_words_are_refused(self, pairs: Path, label: str) -> None:
        with pytest.raises(ReblurError, match=f"a folder of results called {label}; give another name: NAME="):
            evaluating(pairs, **{"results": [f"{label}={pairs / 'mine'}"]})

    def test_two_folders_of_one_name_are_told_apart_by_those_above(self, pairs: Path) -> None:
        for folder in ("a/results", "b/results"):
            write(pairs / folder / "1.png", np.zeros(SIZE, np.uint8))
        found = evaluating(pairs, "a/results", "b/results")
        assert [run.name for run in found.runs] == ["a_results", "b_results"]

    def test_a_label_may_be_given(self, pairs: Path) -> None:
        found = commands.evaluate(
            Asked([f"theirs={pairs / 'mine'}"], pairs / "gt", None, chosen_metrics(["psnr"], [], None), set(),
                  pairs / "out", "cpu")
        )  # fmt: skip
        assert [run.name for run in found.runs] == ["theirs"]
        assert (pairs / "out" / "theirs" / "summary.json").is_file()


def test_the_command_prints_how_names_were_matched_the_means_and_the_speed(pairs: Path) -> None:
    command = [sys.executable, "-m", "reblur_plugin.evaluate", "mine", "--gt", "gt", "--metrics", "psnr", "ssim-volume"]
    done = subprocess.run(command, cwd=pairs, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "mine: 3 of 3 by the words of their names (1.png is 1)" in done.stdout
    assert "ssim-volume: SSIM (Gaussian 11x11x11 over the channels (MATLAB))" in done.stdout
    assert "images a second by 1 process" in done.stdout
    summary = json.loads((pairs / "results" / "evaluation" / "mine" / "summary.json").read_text())
    assert summary["means"]["gt"]["result"]["psnr"]["images"] == 3
