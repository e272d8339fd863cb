"""The journal of a test: what was written comes back, whatever a kill has done to the last line."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path

import pytest

from reblur_plugin.evaluation.journal import Entry, Journal
from reblur_plugin.evaluation.scores import TraceRow
from reblur_plugin.files import FileError

IDENTITY = {"options": "a", "checkpoints": ["b", "c"], "data": ["d"]}


def entry(index: int, value: float = 30.0) -> Entry:
    trace = [TraceRow(0, "deblurred", 0.25, 0.0, 1.5), TraceRow(1, "adapted", None, value, 0.1)]
    return Entry(index, f"SEQ/{index:06d}", {"deblurred": {"psnr": value, "niqe": math.inf}, "adapted": {}}, trace)


class TestEntries:
    def test_they_come_back_in_the_order_of_the_data_set(self, tmp_path: Path) -> None:
        for index, rank in ((4, 0), (1, 1), (0, 0)):
            Journal(tmp_path, rank).add("set", entry(index))
        assert Journal(tmp_path, 5).entries("set") == [entry(0), entry(1), entry(4)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0.jsonl", "1.jsonl"]  # no two write to one

    def test_numbers_come_back_bit_for_bit(self, tmp_path: Path) -> None:
        chance = random.Random(0)
        values = [struct.unpack("<d", chance.randbytes(8))[0] for _ in range(200)]
        for index, value in enumerate(values):
            Journal(tmp_path).add("set", entry(index, value))
        found = [item.stages["deblurred"]["psnr"] for item in Journal(tmp_path).entries("set")]
        assert [struct.pack("<d", value) for value in found if value == value] == [
            struct.pack("<d", value) for value in values if value == value
        ]
        assert [math.isnan(value) for value in found] == [math.isnan(value) for value in values]

    def test_sets_are_kept_apart(self, tmp_path: Path) -> None:
        Journal(tmp_path).add("one", entry(0))
        assert Journal(tmp_path).entries("other") == []

    def test_a_torn_line_doesnt_count_nor_spoil_the_next(self, tmp_path: Path) -> None:
        for index in (0, 1):
            Journal(tmp_path).add("set", entry(index))
        whole = (tmp_path / "0.jsonl").read_bytes()
        second = whole.rindex(b"\n{") + 1
        for end in range(second, len(whole) - 1):  # the last byte but one closes the second line
            (tmp_path / "0.jsonl").write_bytes(whole[:end])
            assert Journal(tmp_path).entries("set") == [entry(0)]
            Journal(tmp_path).add("set", entry(2))
            assert Journal(tmp_path).entries("set") == [entry(0), entry(2)]

    def test_zeros_that_a_power_cut_leaves_dont_count(self, tmp_path: Path) -> None:
        Journal(tmp_path).add("set", entry(0))
        with (tmp_path / "0.jsonl").open("ab") as file:
            file.write(b"\xff\x00" * 50 + b"\n0\n")
        assert Journal(tmp_path).entries("set") == [entry(0)]

    def test_a_full_disk_is_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the folder's place")
        for write in (lambda journal: journal.add("set", entry(0)), lambda journal: journal.start(IDENTITY)):
            with pytest.raises(FileError, match=r"journal: can't be written \(.+\); free or change the disk, then run"):
                write(Journal(tmp_path / "file" / "journal"))


class TestIdentity:
    def test_without_a_journal_there_is_nothing_to_compare(self, tmp_path: Path) -> None:
        assert Journal(tmp_path / "none").differences(IDENTITY) is None

    def test_the_same_test_has_no_difference(self, tmp_path: Path) -> None:
        Journal(tmp_path).start(IDENTITY)
        assert Journal(tmp_path).differences(json.loads(json.dumps(IDENTITY))) == []

    def test_another_one_is_told_by_what_differs(self, tmp_path: Path) -> None:
        Journal(tmp_path).start(IDENTITY)
        assert Journal(tmp_path).differences(IDENTITY | {"data": ["e"], "options": "f"}) == ["options", "data"]

    def test_a_finished_test_leaves_no_journal(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "journal")
        journal.start(IDENTITY)
        journal.add("set", entry(0))
        journal.finish()
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_head_counts_as_none(self, tmp_path: Path) -> None:
        (tmp_path / "test.json").write_bytes(b'{"opt')
        assert Journal(tmp_path).differences(IDENTITY) is None
