"""`report`: what it writes of runs and of folders of pictures; what is broken is named and the rest is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluate import chosen_metrics
from reblur_plugin.evaluation.commands import Asked
from reblur_plugin.report import writing
from reblur_plugin.report.page import Pictures


def report(out: Path, *given: Path | str, suffix: str = "jpg", crops: int = 2, **changes: Any) -> list[str]:
    """Write a report; return its problems."""
    asked: dict[str, Any] = {
        "results": [str(one) for one in given],
        "sharp": None,
        "blurry": None,
        "metrics": chosen_metrics(["psnr", "ssim"], [], None),
        "optional": set(),
        "out": out / "evaluation",
        "device": "cpu",
    }
    return writing.write(Asked(**{**asked, **changes}), out, "Report", crops, Pictures(suffix))[1]


def data(out: Path) -> dict[str, Any]:
    """Return what the page's script shows."""
    text = (out / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found is not None
    shown: dict[str, Any] = json.loads(found[1])
    return shown


@pytest.fixture
def pictures(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Sharp and blurry images in GOPRO's layout, and the results of two methods, one of them in one folder."""
    for number in range(3):
        grain = rng.integers(0, 256, (12, 24, 3), dtype=np.uint8)
        sharp = cv2.resize(grain, (192, 96), interpolation=cv2.INTER_CUBIC)
        for place, blur in (("gopro/A/sharp", 1), ("gopro/A/blur", 9), ("srn/A", 5), ("dhn", 3)):
            name = f"{number:06d}.png" if place != "dhn" else f"A-{number:06d}_out.png"
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), cv2.blur(sharp, (blur, blur)))
    return tmp_path


class TestOfRuns:
    def test_there_are_tables_figures_and_a_page(self, make_run: Any, tmp_path: Path) -> None:
        runs = make_run(tmp_path / "a", "first"), make_run(tmp_path / "b", "gopro_srn_n2_tta", shift=1.0)
        assert report(tmp_path / "out", *runs) == []
        names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
        tables = ("scores", "differences", "table_2", "table_6", "table_S4", "images")
        assert {f"tables/{name}.{suffix}" for name in tables for suffix in ("md", "csv", "tex")} <= names
        figures = ("tradeoff", "gain", "crops", "kernels")
        assert {f"figures/{name}.{suffix}" for name in figures[:3] for suffix in ("pdf", "png")} <= names
        assert "index.html" in names
        # three images of blurry, two times three stages, and sharp
        assert len([name for name in names if name.startswith("pictures/")]) == 3 * 2 + 2 * 3 * 3

    def test_a_folder_of_runs_stands_for_each_of_them(self, make_run: Any, tmp_path: Path) -> None:
        make_run(tmp_path / "results" / "a", "first")
        make_run(tmp_path / "results" / "b", "second")
        report(tmp_path / "out", tmp_path / "results")
        assert {one["run"] for one in data(tmp_path / "out")["methods"]} == {"", "first", "second"}

    def test_runs_of_one_name_are_told_apart(self, make_run: Any, tmp_path: Path) -> None:
        runs = make_run(tmp_path / "a", "same"), make_run(tmp_path / "b", "same", shift=1.0)
        report(tmp_path / "out", *runs)
        assert {one["run"] for one in data(tmp_path / "out")["methods"]} == {"", "a", "b"}
        report(tmp_path / "out", f"ours={runs[0]}", runs[1])
        assert {one["run"] for one in data(tmp_path / "out")["methods"]} == {"", "ours", "same"}


class TestOfPictures:
    def test_any_list_of_folders_is_enough(self, pictures: Path) -> None:
        root, out = pictures / "gopro", pictures / "out"
        assert report(out, pictures / "srn", pictures / "dhn", sharp=root, blurry=root) == []
        shown = data(out)
        assert [one["label"] for one in shown["methods"]] == ["blurry", "srn", "dhn"]
        assert [one["name"] for one in shown["images"]] == [f"A/{number:06d}" for number in range(3)]
        for image in shown["images"]:
            assert [one["label"] for one in image["pictures"]] == ["blurry", "srn", "dhn", "sharp"]
            assert (image["width"], image["height"]) == (192, 96)
            psnr = [scores[0] for scores in image["scores"]]
            assert psnr == sorted(psnr)  # less and less blur

    def test_without_sharp_images_there_is_what_needs_none(self, pictures: Path) -> None:
        report(pictures / "out", pictures / "srn", metrics=chosen_metrics(["psnr", "niqe"], [], None))
        assert [one["name"] for one in data(pictures / "out")["metrics"]] == ["NIQE"]

    def test_the_pictures_of_the_page_are_those_of_the_files(self, pictures: Path) -> None:
        out = pictures / "out"
        report(out, pictures / "srn", sharp=pictures / "gopro", suffix="png")
        image = data(out)["images"][1]
        shown = {one["label"]: np.array(Image.open(out / one["src"])) for one in image["pictures"]}
        assert np.array_equal(shown["srn"], np.array(Image.open(pictures / "srn" / "A" / "000001.png")))
        assert np.array_equal(shown["sharp"], np.array(Image.open(pictures / "gopro" / "A" / "sharp" / "000001.png")))

    def test_a_second_report_keeps_pictures_and_deletes_those_of_others(self, pictures: Path) -> None:
        out = pictures / "out"
        report(out, pictures / "srn", pictures / "dhn", sharp=pictures / "gopro")
        times = {path.name: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
        (out / "pictures" / "mine.jpg").write_bytes(b"not ours")
        report(out, pictures / "srn", sharp=pictures / "gopro")
        left = {path.name: path.stat().st_mtime_ns for path in (out / "pictures").iterdir()}
        assert left.pop("mine.jpg")
        assert len(left) == 6
        assert left.items() <= times.items()


class TestBrokenInputs:
    def test_each_is_a_sentence_and_the_rest_is_there(self, make_run: Any, tmp_path: Path) -> None:
        run = make_run(tmp_path / "a", "run")
        whole = (run / "visualization" / "0_adapted.png").read_bytes()
        (run / "visualization" / "0_adapted.png").write_bytes(whole[: len(whole) // 2])  # truncated
        (run / "visualization" / "1_adapted.png").unlink()
        cv2.imwrite(str(run / "visualization" / "2_adapted.png"), np.zeros((10, 10, 3), np.uint8))
        with (run / "records.jsonl").open("ab") as file:
            file.write(b'{"run": "ru')
        (tmp_path / "empty").mkdir()
        problems = "\n".join(report(tmp_path / "out", run, tmp_path / "empty", tmp_path / "none"))
        assert "0_adapted.png: expected an image, got a damaged or unknown file; unzip or download it again" in problems
        assert "1_adapted.png: expected a picture, but it can't be read (No such file or directory)" in problems
        assert "2_adapted.png: expected 128x72 as SEQ_0/000002's others, got 10x10" in problems
        assert f"{run}: damaged lines of records: 1; left out" in problems
        assert f"{tmp_path / 'empty'}: expected images" in problems
        assert f"{tmp_path / 'none'}: no such folder; expected images" in problems
        shown = {one["name"]: [two["label"] for two in one["pictures"]] for one in data(tmp_path / "out")["images"]}
        assert all(labels == ["blurry", "deblurred", "adapted 1", "sharp"] for labels in shown.values())
        assert data(tmp_path / "out")["images"][0]["scores"][3] is not None  # its scores are there
        assert "What could not be used" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")

    def test_runs_of_other_data_are_not_mixed(self, make_run: Any, tmp_path: Path) -> None:
        first, second = make_run(tmp_path / "a", "first"), make_run(tmp_path / "b", "second")
        text = (second / "records.jsonl").read_text(encoding="utf-8")
        (second / "records.jsonl").write_text(text.replace('"sharp": "s0"', '"sharp": "other"'), encoding="utf-8")
        assert report(tmp_path / "out", first, second) == [
            "sharp images of second and first differ under one name (SEQ_0/000000): other data; those of second are "
            "left out",
            "second and first have 2 images in common; differences are over these",
        ]
        image = data(tmp_path / "out")["images"][0]
        assert [scores is not None for scores in image["scores"]] == [True] * 4 + [False] * 3

    def test_nothing_usable_is_one_sentence_and_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(ReblurError, match="empty: expected images"):
            report(tmp_path / "out", tmp_path / "empty")
        assert not (tmp_path / "out" / "index.html").exists()

    def test_a_run_whose_pictures_are_gone_has_its_numbers(self, make_run: Any, tmp_path: Path) -> None:
        run = make_run(tmp_path / "a", "run")
        shutil.rmtree(run / "visualization")
        shutil.rmtree(tmp_path / "data")
        problems = report(tmp_path / "out", run)
        assert len(problems) > 0
        assert data(tmp_path / "out")["images"] == []
        assert (
            "0.2800" in (tmp_path / "out" / "tables" / "images.csv").read_text(encoding="utf-8")
            or (tmp_path / "out" / "tables" / "scores.csv").is_file()
        )


def test_the_command_prints_the_page_and_what_could_not_be_used(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "run")
    command = [sys.executable, "-m", "reblur_plugin.report", str(run), "-o", "out", "--crops", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(Path("out") / "index.html")), done.stderr
    command.insert(4, "nowhere")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "note: nowhere: no such folder; expected images\n"
