"""Which data a run has seen stands in its log, results and checkpoints; a pack trains as its image files do."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from reblur_plugin import checkpoints
from reblur_plugin.data.doctor import check, find_blocks
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.packed import pack
from reblur_plugin.engine.testing import test as run_test
from reblur_plugin.engine.training import train


@pytest.fixture
def held_out(tiny_options: dict[str, Any], tiny_data: Path) -> dict[str, Any]:
    """Options that train on one sequence and validate on the other of the same folder."""
    datasets = tiny_options["datasets"]
    datasets["train"] |= {"dataroot": str(tiny_data / "train"), "without": ["SEQ_B"]}
    datasets["val"] |= {"dataroot": str(tiny_data / "train"), "only": ["SEQ_B"]}
    return tiny_options


def network(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(folder / "experiments" / "tiny" / "models" / "net_g_2.pth")["params"]


def test_a_pack_trains_as_its_files_do_and_all_tells_of_the_data(
    held_out: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    assert train(held_out, tmp_path / "files")
    pack(list_pairs({"dataroot": str(tiny_data / "train")}), tmp_path / "pack")
    for block in held_out["datasets"].values():
        block |= {"layout": "packed", "dataroot": str(tmp_path / "pack")}
    assert train(held_out, tmp_path / "packed")
    for key, value in network(tmp_path / "files").items():
        assert torch.equal(network(tmp_path / "packed")[key], value)

    (diagnosis,) = check(find_blocks(tmp_path / "pack"))
    (part,) = check([diagnosis.block | {"without": ["SEQ_B"]}], look=False)
    for kind, layout in (("files", "gopro"), ("packed", "packed")):
        (log,) = (tmp_path / kind / "experiments" / "tiny").glob("train_*.log")
        text = log.read_text()
        told = f"2 pairs, 1 sequence, layout {layout}, blur kind blur_gamma, fingerprint {part.fingerprint}"
        assert f"tiny_train: {told}" in text
        assert "tiny_val, 2 images, blur kind blur_gamma\n" in text
        origin = checkpoints.load(tmp_path / kind / "experiments" / "tiny" / "models" / "net_g_2.pth")["origin"]
        assert (origin["data"], origin["blur_kind"]) == (part.fingerprint, "blur_gamma")

    models = tmp_path / "files" / "experiments" / "tiny" / "models"
    held_out["path"] = {f"pretrain_network_{label}": str(models / f"net_{label}_2.pth") for label in "gr"}
    assert run_test(held_out, tmp_path)
    with (tmp_path / "results" / "tiny" / "tiny_val.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["blur_kind"]) for row in rows] == [
        ("SEQ_B/000000", "blur_gamma"),
        ("SEQ_B/000001", "blur_gamma"),
    ]
