"""Records say what each score is; half a line costs that line only; an unfinished run is read from its journal."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin.evaluation import records
from reblur_plugin.evaluation.journal import Entry, Journal
from reblur_plugin.evaluation.records import Record, RecordError, Score
from reblur_plugin.evaluation.scores import TraceRow
from reblur_plugin.evaluation.variants import Variant

PSNR = Variant("PSNR", "RGB, 8 bits", "higher")
HEAD: dict[str, Any] = {
    "run": "mine",
    "datasets": ["set"],
    "metrics": {"p": asdict(PSNR)},
    "checkpoints": {"pretrain_network_g": "abcd"},
    "blur_kinds": {"set": "blur_gamma"},
    "versions": {"torch": "2"},
}


def entry(name: str = "a/1", value: float = 30.0) -> Entry:
    stages = {"deblurred": {"p": value}, "adapted": {"p": value + 1}, "reblurred": {"p": 40.0}}
    trace = [TraceRow(0, "deblurred", 0.5, 0.0, 1.0), TraceRow(5, "adapted", None, 0.25, 2.0)]
    pictures = {"deblurred": "visualization/a/1.png"}
    return Entry(0, name, stages, trace, None, pictures, "/b/1.png", "/s/1.png", {"blurry": "bb", "sharp": "ss"})


def written(folder: Path, *entries: Entry) -> Path:
    records.write(folder, "mine", records.records_of("mine", "set", entries, HEAD), HEAD)
    return folder / "records.jsonl"


class TestRecords:
    def test_there_is_one_for_each_image_and_stage_and_it_says_what_it_is(self) -> None:
        found = records.records_of("mine", "set", [entry()], HEAD)
        assert [(one.image, one.stage, one.step, one.reference) for one in found] == [
            ("a/1", "deblurred", 0, "sharp"),
            ("a/1", "adapted", 5, "sharp"),
            ("a/1", "reblurred", None, "blurry"),
        ]
        assert found[0] == Record(
            run="mine",
            dataset="set",
            image="a/1",
            stage="deblurred",
            scores={"p": Score(30.0, PSNR)},
            reference="sharp",
            step=0,
            loss=0.5,
            change=0.0,
            seconds=1.0,
            blur_kind="blur_gamma",
            pixels={"blurry": "bb", "sharp": "ss"},
            weights={"pretrain_network_g": "abcd"},
            versions={"torch": "2"},
            picture="visualization/a/1.png",
            blurry="/b/1.png",
            sharp="/s/1.png",
        )

    def test_a_line_alone_says_all(self, tmp_path: Path) -> None:
        line = json.loads(written(tmp_path, entry()).read_text().splitlines()[0])
        assert line["scores"]["p"] == {"value": 30.0, "metric": "PSNR", "form": "RGB, 8 bits", "better": "higher"}
        assert (line["blur_kind"], line["weights"], line["versions"]) == (
            "blur_gamma",
            {"pretrain_network_g": "abcd"},
            {"torch": "2"},
        )

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        written(tmp_path, entry("a/1"), entry("a/2", 1 / 3))
        run = records.read_runs(tmp_path)[0]
        assert run.records == records.records_of("mine", "set", [entry("a/1"), entry("a/2", 1 / 3)], HEAD)
        assert (run.name, run.finished, run.torn) == ("mine", True, 0)

    def test_numbers_that_json_lacks_come_back(self, tmp_path: Path) -> None:
        text = written(tmp_path, entry("a/1", math.inf), entry("a/2", math.nan)).read_text()
        assert "Infinity" not in text  # what Python alone would read
        assert "NaN" not in text
        values = [one.scores["p"].value for one in records.read_runs(tmp_path)[0].records if one.stage == "deblurred"]
        assert values[0] == math.inf
        assert math.isnan(values[1])

    def test_the_summary_has_means_of_finite_values(self, tmp_path: Path) -> None:
        written(tmp_path, entry("a/1", 30.0), entry("a/2", 34.0), entry("a/3", math.inf))
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["means"]["set"]["deblurred"] == {"p": {"mean": 32.0, "images": 2}}
        assert summary["checkpoints"] == {"pretrain_network_g": "abcd"}


class TestReading:
    def test_half_a_line_at_the_end_costs_that_line_only(self, tmp_path: Path) -> None:
        path = written(tmp_path, entry("a/1"), entry("a/2"))
        whole = path.read_bytes()
        last = whole.rindex(b"\n", 0, -1) + 1
        for end in range(last + 1, len(whole) - 1, 7):
            path.write_bytes(whole[:end])
            run = records.read_runs(tmp_path)[0]
            assert (len(run.records), run.torn) == (5, 1)
        path.write_bytes(whole[:last])
        assert records.read_runs(tmp_path)[0].torn == 0

    def test_of_equal_records_the_last_counts(self, tmp_path: Path) -> None:
        path = written(tmp_path, entry("a/1", 30.0))
        first = path.read_bytes()
        written(tmp_path, entry("a/1", 35.0))
        path.write_bytes(first + path.read_bytes())
        (run,) = records.read_runs(tmp_path)
        assert [one.scores["p"].value for one in run.records] == [35.0, 36.0, 40.0]
        assert run.replaced == 2  # the third is the same

    def test_an_unfinished_run_has_the_images_that_it_finished(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "journal")
        journal.start(HEAD)
        journal.add("set", entry("a/1"))
        with (tmp_path / "journal" / "0.jsonl").open("ab") as file:
            file.write(b'{"dataset": "set", "ind')
        run = records.read_runs(tmp_path)[0]
        assert run.records == records.records_of("mine", "set", [entry("a/1")], HEAD)
        assert (run.name, run.finished) == ("mine", False)

    def test_a_folder_without_records_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match=r"expected records\.jsonl and summary\.json of a test or an evaluation"):
            records.read_runs(tmp_path)[0]

    def test_lines_of_others_are_counted_as_damaged(self, tmp_path: Path) -> None:
        path = written(tmp_path, entry())
        path.write_bytes(path.read_bytes() + b'{"image": 3}\n[]\nnull\n\n{"scores": {"p": {}}}\n')
        run = records.read_runs(tmp_path)[0]
        assert (len(run.records), run.torn) == (3, 4)

    @pytest.mark.parametrize(
        "change",
        [
            {"image": 5},
            {"image": ["x"]},
            {"stage": None},
            {"pixels": None},
            {"pixels": ["x"]},
            {"picture": 7},
            {"sharp": 3},
            {"step": "a"},
            {"loss": "a"},
            {"blur_kind": 4},
            {"weights": {"a": 1}},
            {"scores": {"p": {"value": 1, "metric": ["a"], "form": "", "better": "higher"}}},
            {"scores": {"p": {"value": "much", "metric": "PSNR", "form": "", "better": "higher"}}},
            {"unknown": 1},
            {"sharp": "a\0b"},
            {"blurry": "\ud800"},
            {"loss": 10**400},
        ],
        ids=str,
    )
    def test_a_line_of_another_kind_costs_that_line(self, tmp_path: Path, change: dict[str, Any]) -> None:
        path = written(tmp_path, entry())
        first, *others = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps({**json.loads(first), **change}), *others]))
        (run,) = records.read_runs(tmp_path)
        assert (len(run.records), run.torn) == (2, 1)

    def test_lines_of_several_runs_may_be_put_together(self, tmp_path: Path) -> None:
        first = written(tmp_path / "a", entry()).read_text()
        second = first.replace('"run": "mine"', '"run": "other"')
        (tmp_path / "records.jsonl").write_text(first + second)
        assert [(run.name, len(run.records)) for run in records.read_runs(tmp_path)] == [("mine", 3), ("other", 3)]

    @pytest.mark.parametrize("content", ['{"run": ', "[]", None])
    def test_without_a_summary_records_say_by_themselves_what_they_are(
        self, tmp_path: Path, content: str | None
    ) -> None:
        written(tmp_path, entry())
        (tmp_path / "summary.json").unlink()
        if content is not None:
            (tmp_path / "summary.json").write_text(content)
        run = records.read_runs(tmp_path)[0]
        assert (run.name, len(run.records), run.head) == ("mine", 3, {})
