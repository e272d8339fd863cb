"""scripts/table1.py: trainings, tests and a report by one command."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.mark.parametrize("arguments", [["--train", "data"], ["--test", "data"]])
def test_one_folder_without_the_other_is_refused(root: Path, tmp_path: Path, arguments: list[str]) -> None:
    command = [sys.executable, str(root / "scripts" / "table1.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give both --train and --test, or neither for the demo's data" in done.stderr


def test_it_ends_in_a_report_with_psnr_of_l_to_b_beside(root: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    for part, count in (("train", 8), ("test", 2)):
        for number in range(count):
            grain = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            sharp = cv2.resize(grain, (96, 80), interpolation=cv2.INTER_CUBIC)
            for kind, width in (("sharp", 1), ("blur", 9)):
                path = tmp_path / part / "SEQ" / kind / f"{number:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                assert cv2.imwrite(str(path), cv2.blur(sharp, (width, 1)))
    command = [sys.executable, str(root / "scripts" / "table1.py"), "--train", "train", "--test", "test"]
    command += ["--blocks", "1", "--iterations", "4", "--reblur-iterations", "2", "-o", "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "report" / "tables" / "inverse_relation.csv").read_text().splitlines())
    assert row["run"] == "table1_reblur_on_unet1_test"
    blurry, sharp = (
        [cv2.imread(str(tmp_path / "test" / "SEQ" / kind / f"{number:06d}.png")) for number in range(2)]
        for kind in ("blur", "sharp")
    )
    folder = tmp_path / "results" / row["run"] / "visualization" / "photographs" / "SEQ"
    for column, suffix, references in (
        ("PSNR(L, S)", "", sharp),
        ("PSNR(M_R(L), B)", "_reblurred", blurry),
        ("PSNR(L, B)", "", blurry),
    ):
        results = [cv2.imread(str(folder / f"{number:06d}{suffix}.png")) for number in range(2)]
        expected = [cv2.PSNR(result, reference) for result, reference in zip(results, references, strict=True)]
        assert float(row[column]) == pytest.approx(np.mean(expected))
    assert float(row["gain of M_R"]) == pytest.approx(float(row["PSNR(M_R(L), B)"]) - float(row["PSNR(L, B)"]))
    assert (tmp_path / "report" / "figures" / "inverse_relation.pdf").is_file()
