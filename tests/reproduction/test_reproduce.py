"""scripts/reproduce.py from its data to its verdicts: interrupted, gone on with, made again."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reproduction.verdicts import together

# The command with a scale of a few iterations on images of 96x64 pixels
_TINY = """
import sys
sys.path.insert(0, {scripts!r})
import reproduce
from reproduction import scales
scales.SCALES["minutes"] = scales.Scale(
    claims=(1, 2, 5),
    seeds=2,
    test_pairs=2,
    centre=(64, 48),
    small=(48, 48),
    patches=(1, 32),
    narrow=4,
    reblur=4,
    reblur_arm=4,
)
sys.exit(reproduce.main())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two training and two test sequences."""
    root = tmp_path_factory.mktemp("sets") / "of" / "pairs"
    rng = np.random.default_rng(0)
    for part, sequences in (("train", ("A", "B")), ("test", ("C", "D"))):
        for sequence in sequences:
            grain = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            sharp = cv2.resize(grain, (96, 64), interpolation=cv2.INTER_CUBIC)
            for kind, width in (("sharp", 1), ("blur", 9)):
                path = root / "GOPRO_Large" / part / sequence / kind / "000001.png"
                path.parent.mkdir(parents=True)
                assert cv2.imwrite(str(path), cv2.blur(sharp, (width, 1)))
    return root


def command(root: Path, data: Path, out: Path, *arguments: str) -> list[str]:
    code = _TINY.format(scripts=str(root / "scripts"))
    given = ["--scale", "minutes", "--data", str(data), "-o", str(out), "--processes", "2", *arguments]
    return [sys.executable, "-c", code, *given]


def run(root: Path, data: Path, out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(out.parent), "TORCH_HOME": str(out.parent)}  # no weights of LPIPS
    given = command(root, data, out, *arguments)
    return subprocess.run(given, capture_output=True, text=True, check=False, env=environment)


def numbers(out: Path) -> Any:
    return json.loads((out / "claims.json").read_text(encoding="utf-8"))["claims"]


@pytest.fixture(scope="module")
def finished(root: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of claim 1 that was stopped three times: by a kill, by Ctrl-C, by the time that it may take."""
    out = tmp_path_factory.mktemp("reproduction") / "out"
    process = subprocess.Popen(command(root, data, out, "--claims", "1"), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: any(out.glob("experiments/*/*.log")), process)
    process.kill()
    process.wait()
    process = subprocess.Popen(command(root, data, out, "--claims", "1"), stderr=subprocess.PIPE, text=True)
    wait_for((out / "done").is_dir, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "not all is done; start the same again to go on" in errors
    stopped = len(list((out / "done").iterdir()))
    done = run(root, data, out, "--claims", "1", "--stop-after", "0.01")
    assert done.returncode == 130, done.stderr
    assert numbers(out)[0]["verdict"] is None
    done = run(root, data, out, "--claims", "1")
    assert done.returncode == 0, done.stderr
    assert stopped < len(list((out / "done").iterdir())) == 14
    return out


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


class TestReproduce:
    def test_it_ends_in_verdicts_with_intervals_and_seeds(self, finished: Path) -> None:
        (claim,) = numbers(finished)
        counting = [part["verdict"] for part in claim["parts"] if part["counts"]]
        assert claim["verdict"] == together(counting)
        assert [part["counts"] for part in claim["parts"]] == [True, True, True, True, False, False, True]
        for part in claim["parts"]:
            assert (part["seeds"], part["sequences"], part["images"], len(part["effects"])) == (2, 2, 2, 2)
            assert part["after"] - part["before"] == pytest.approx(part["effect"])
            assert part["over_seeds"][0] <= part["effect"] <= part["over_seeds"][1]
        page = (finished / "claims.md").read_text(encoding="utf-8")
        assert f"## 1. Clean images are hard to reblur (Sec. 3.1, Table 1): {claim['verdict']}" in page

    def test_numbers_are_those_of_the_tests_pictures(self, finished: Path) -> None:
        """PSNR of M_R(L) to B, from the PNG files that one of the tests has written."""
        (claim,) = numbers(finished)
        means = []
        for network in ("narrow", "small"):
            found = []
            for seed in ("s0", "s1"):
                for sequence in ("C", "D"):
                    folder = finished / "results" / f"reblurred_{network}_{seed}" / "visualization" / "test" / sequence
                    blurry = finished / "data" / "test_48x48" / sequence / "blur" / "000001.png"
                    result, reference = cv2.imread(str(folder / "000001_reblurred.png")), cv2.imread(str(blurry))
                    found.append(cv2.PSNR(result, reference))
            means.append(np.mean(found))
        assert [claim["parts"][3]["before"], claim["parts"][3]["after"]] == pytest.approx(means)

    def test_curves_hold_the_losses_of_every_training(self, finished: Path) -> None:
        rows = list(csv.DictReader((finished / "curves.csv").read_text(encoding="utf-8").splitlines()))
        trainings = {path.name for path in (finished / "experiments").iterdir() if path.is_dir()}
        assert {row["training"] for row in rows} == trainings
        of_one = {row["iteration"]: float(row["value"]) for row in rows if row["training"] == "narrow_s0"}
        assert list(of_one) == ["1", "2", "3", "4"]
        assert {row["quantity"] for row in rows} >= {"l_g_pix", "l_r_blur", "rho"}

    def test_the_same_seeds_give_the_same_numbers(self, finished: Path, root: Path, data: Path, tmp_path: Path) -> None:
        done = run(root, data, tmp_path / "again", "--claims", "1", "--processes", "1")
        assert done.returncode == 0, done.stderr
        assert numbers(tmp_path / "again") == numbers(finished)

    def test_what_is_finished_is_not_run_again(self, finished: Path, root: Path, data: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in finished.glob("results/*/records.jsonl")}
        done = run(root, data, finished, "--claims", "1")
        assert done.returncode == 0, done.stderr
        assert {path: path.stat().st_mtime_ns for path in finished.glob("results/*/records.jsonl")} == before

    def test_other_claims_go_on_from_there_and_end_in_pictures(self, finished: Path, root: Path, data: Path) -> None:
        done = run(root, data, finished)
        assert done.returncode == 0, done.stderr
        assert [claim["claim"] for claim in numbers(finished)] == [1, 2, 5]
        lpips = [part for claim in numbers(finished) for part in claim["parts"] if part["metric"] == "LPIPS"]
        assert lpips
        assert not any("verdict" in part for part in lpips)  # its weights can't be had
        assert numbers(finished)[2]["verdict"] is None
        assert "its comparisons are not run (--lpips-weights names a file)" in done.stderr
        page = (finished / "report" / "index.html").read_text(encoding="utf-8")
        assert "5. Adaptation improves LPIPS, NIQE and sharpness step by step" in page

    def test_an_option_file_is_run_by_hand(self, finished: Path, tmp_path: Path) -> None:
        options = finished / "options" / "reblurred_narrow_s0.yml"
        by_hand = [sys.executable, "-m", "reblur_plugin.test", "-opt", str(options), "--force_yml", "name=by_hand"]
        done = subprocess.run(by_hand, cwd=finished, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        files = (finished / "results" / name / "records.jsonl" for name in ("by_hand", "reblurred_narrow_s0"))
        again, before = ([json.loads(line)["scores"] for line in file.read_text().splitlines()] for file in files)
        assert again == before


class TestRefused:
    def test_other_data_in_the_same_folder(self, finished: Path, root: Path, data: Path, tmp_path: Path) -> None:
        other = tmp_path / "other" / "sets" / "here"
        for path in data.rglob("*.png"):
            target = other / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = cv2.imread(str(path))
            assert cv2.imwrite(str(target), 255 - picture)
        before = {path: path.stat().st_mtime_ns for path in (finished / "data").rglob("*.png")}
        done = run(root, other, finished, "--claims", "1")
        assert done.returncode == 1
        assert "was made with other data or weights; name another folder by -o" in done.stderr
        assert {path: path.stat().st_mtime_ns for path in (finished / "data").rglob("*.png")} == before

    def test_a_claim_that_needs_more(self, root: Path, data: Path, tmp_path: Path) -> None:
        done = run(root, data, tmp_path / "out", "--claims", "6")
        assert done.returncode == 1
        assert "--claims 6: this scale makes 1, 2, 5; claim 6 needs --dmphn, claim 7 --photographs" in done.stderr

    @pytest.mark.parametrize(
        ("option", "value", "expected"),
        [
            ("--seeds", "2", "expected a whole number from 3, got '2'"),
            ("--processes", "0", "expected a whole number from 1, got '0'"),
            ("--stop-after", "-1", "expected a number of minutes above 0, got '-1'"),
            ("--stop-after", "nan", "expected a number of minutes above 0, got 'nan'"),
        ],
    )
    def test_numbers_that_mean_nothing(
        self, root: Path, data: Path, tmp_path: Path, option: str, value: str, expected: str
    ) -> None:
        done = run(root, data, tmp_path / "out", f"{option}={value}")
        assert done.returncode == 2
        assert f"argument {option}: {expected}" in done.stderr

    def test_a_job_that_fails_is_named_with_its_log(self, root: Path, data: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "experiments").write_text("no folder", encoding="utf-8")
        done = run(root, data, tmp_path / "out", "--claims", "1")
        assert done.returncode == 1
        assert re.search(
            r"error: (narrow|reblur_small)_s0: ended with 1; the last line of \S+\.log: error:", done.stderr
        )
        assert "Traceback" not in done.stderr
