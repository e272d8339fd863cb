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


class TestAgain:
    def test_tables_and_figures_of_an_older_report_are_deleted(self, make_run: Any, tmp_path: Path) -> None:
        out = tmp_path / "out"
        report(out, make_run(tmp_path / "a", "gopro_srn_n2_tta"))
        assert (out / "tables" / "table_6.csv").is_file()
        assert (out / "figures" / "crops.png").is_file()
        (out / "tables" / "mine.csv").write_text("not ours")
        report(out, make_run(tmp_path / "b", "other"), crops=0)
        assert not list((out / "tables").glob("table_*"))
        assert not (out / "figures" / "crops.png").exists()
        assert (out / "tables" / "mine.csv").is_file()

    def test_a_report_within_the_results_is_not_taken_for_one(self, pictures: Path) -> None:
        for _ in range(2):
            out = pictures / "srn" / "report"
            assert report(out, pictures / "srn", sharp=pictures / "gopro") == []
            assert [one["label"] for one in data(out)["methods"]] == ["srn"]


class TestNames:
    def test_two_methods_may_show_one_file(self, pictures: Path) -> None:
        given = f"a={pictures / 'srn'}", f"b={pictures / 'srn'}"
        assert report(pictures / "out", *given, sharp=pictures / "gopro") == []
        assert len(list((pictures / "out" / "pictures").iterdir())) == 6

    def test_runs_of_folders_of_one_name_never_become_one(self, make_run: Any, tmp_path: Path) -> None:
        runs = [make_run(tmp_path / place, name) for place, name in (("x/a", "m"), ("y/b", "m"), ("z/c", "a"))]
        report(tmp_path / "out", *runs)
        names = [one["run"] for one in data(tmp_path / "out")["methods"] if one["run"]]
        assert list(dict.fromkeys(names)) == ["a", "b", "a 2"]

    def test_a_name_for_several_runs_or_twice_is_refused(self, make_run: Any, tmp_path: Path) -> None:
        runs = make_run(tmp_path / "all" / "a", "first"), make_run(tmp_path / "all" / "b", "second")
        with pytest.raises(ReblurError, match="expected a name for one run, got it twice"):
            report(tmp_path / "out", *(f"x={run}" for run in runs))
        (tmp_path / "all" / "records.jsonl").write_text(
            "".join((run / "records.jsonl").read_text(encoding="utf-8") for run in runs), encoding="utf-8"
        )
        with pytest.raises(ReblurError, match="expected one run to be called x, got 2; give each by itself"):
            report(tmp_path / "out", f"x={tmp_path / 'all'}")

    def test_images_of_two_data_sets_of_a_run_are_told_apart(self, make_run: Any, tmp_path: Path) -> None:
        run = make_run(tmp_path / "a", "run", images=1)
        text = (run / "records.jsonl").read_text(encoding="utf-8")
        second = text.replace('"dataset": "set"', '"dataset": "other"').replace('"sharp": "s0"', '"sharp": "t0"')
        (run / "records.jsonl").write_text(text + second, encoding="utf-8")
        assert report(tmp_path / "out", run, crops=0) == []
        names = [one["name"] for one in data(tmp_path / "out")["images"]]
        assert names == ["other/SEQ_0/000000", "set/SEQ_0/000000"]

    @pytest.mark.skipif(sys.platform != "linux", reason="needs names that are no UTF-8")
    def test_names_of_any_bytes_letters_and_length_are_shown(self, make_run: Any, tmp_path: Path) -> None:
        names = [b"caf\xe9".decode("utf-8", "surrogateescape"), "_猫 $x$", "[1] \\ {%&#^~}", "n" * 200]
        runs = [make_run(tmp_path / str(at), name, sequence=name[:50]) for at, name in enumerate(names)]
        assert all("in common" in problem for problem in report(tmp_path / "out", *runs))
        assert (tmp_path / "out" / "index.html").is_file()


def test_a_picture_that_a_format_cannot_hold_is_named(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", "run", images=1)
    for path in [*(run / "visualization").iterdir(), *(tmp_path / "data").iterdir()]:
        cv2.imwrite(str(path), np.zeros((16, 70_000, 3), np.uint8))
    problems = report(tmp_path / "out", run, crops=0)
    assert any("70000x16 pixels are more than .jpg can hold; give --pictures png" in problem for problem in problems)
    assert report(tmp_path / "out", run, crops=0, suffix="png") == []


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
