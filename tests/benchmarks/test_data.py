"""The command `data`: what it reads side by side is the same data, and its table names rates and sizes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import data
from benchmarks.report import BenchError
from reblur_plugin.data.images import decode_image
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.packed import pack


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def arguments(tiny_data: Path) -> argparse.Namespace:
    return command.parse(["data", "--quick", "--repeats", "1", "--threads", "1", "--data", str(tiny_data / "train")])


def test_the_table_has_the_four_readers_side_by_side(arguments: argparse.Namespace) -> None:
    report = data.run(arguments)
    assert [case.name for case in report.cases] == ["a pair alone", "batches"]
    for case in report.cases:
        assert [row.name for row in case.rows] == ["BasicSR, PNG", "BasicSR, lmdb", "ours, PNG", "ours, packed"]
        for row in case.rows:
            assert len(row.seconds) == 1
            rate = "pairs/s" if case.name == "a pair alone" else "batches/s"
            assert row.values[rate] == pytest.approx(1 / row.seconds[0])
    assert all(row.values["processor seconds"] > 0 for row in report.cases[1].rows)
    # pixels of a pair and 128 bytes of NumPy's header
    assert f", {(2 * 32 * 40 * 3 + 128) / 1e6:.2f} MB packed, " in "\n".join(report.notes)
    assert sum(note.startswith(("GOPRO", "REDS")) for note in report.notes) == 4


def test_all_four_read_the_same_pixels(tiny_data: Path, tmp_path: Path) -> None:
    block = {"layout": "gopro", "dataroot": str(tiny_data / "train")}
    pairs = list_pairs(block)
    pack(pairs, tmp_path / "pack")
    data._link(pairs, tmp_path)
    # 32 of 40 columns: nine places an image
    places = set()
    for pair in pairs:
        images = [
            decode_image(path).transpose(2, 0, 1) / np.float32(255) for path in (pair.blurry, pair.sharp or Path())
        ]
        places |= {b"".join(image[..., left : left + 32].tobytes() for image in images) for left in range(9)}
    assert len(places) == 9 * len(pairs)
    for dataset in data._datasets(block, tmp_path, 32, "none").values():
        items = [dataset[index] for index in range(len(pairs)) for _ in range(10)]
        seen = {item["lq"].numpy().tobytes() + item["gt"].numpy().tobytes() for item in items}
        assert len(seen) > 9
        assert seen <= places


def test_the_packed_count_is_divided_out(arguments: argparse.Namespace) -> None:
    clock = iter(np.arange(0, 100, 0.5))
    case = data._case("x", {"a": list, "b": list}, {"a": 1, "b": 5}, "pairs/s", arguments, lambda: float(next(clock)))
    assert [row.seconds for row in case.rows] == [[0.5], [0.1]]


def test_a_folder_without_pairs_is_refused(tmp_path: Path, arguments: argparse.Namespace) -> None:
    (tmp_path / "a.png").touch()
    arguments.data = tmp_path
    with pytest.raises(BenchError, match=r"--data .*: expected pairs of image files, found none; give a data set's"):
        data.run(arguments)


def test_synthetic_pairs_stand_in_for_a_data_set(tmp_path: Path) -> None:
    assert len(list_pairs(data._block(None, tmp_path, quick=True))) == 8
