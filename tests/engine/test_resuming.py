"""What a resumed run does otherwise is told, thing by thing; what changes no result isn't."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.engine import training
from reblur_plugin.engine.resuming import differences

reblur_plugin.register()

Options = dict[str, Any]


def options(**train: Any) -> Options:
    return {
        "manual_seed": 0,
        "datasets": {"train": {"dataroot": "a", "gt_size": 64, "num_worker_per_gpu": 2}},
        "network_g": {"type": "UNet", "num_feats": [8, 8]},
        "train": {"total_iter": 10, "grad_clip": 0.2, **train},
    }


def saved(**origin: Any) -> dict[str, Any]:
    known = {"options": options(), "data": "1234", "blur_kind": "blur", "processes": 1, "versions": {"torch": "2"}}
    return {"iter": 5, "origin": {**known, **origin}}


def opt(resolved: Options | None = None, **others: Any) -> Options:
    found = {"resolved": resolved or options(), "data_fingerprint": "1234", "blur_kind": "blur", "world_size": 1}
    return {**found, **others}


def told(state: dict[str, Any], present: Options) -> list[str]:
    """Return what is told, without the versions of this environment."""
    return [note for note in differences(state, present) if "version" not in note]


class TestDifferences:
    def test_nothing_is_told_of_the_same(self) -> None:
        assert told(saved(), opt()) == []

    @pytest.mark.parametrize(
        ("present", "expected"),
        [
            (opt(data_fingerprint="5678"), "training data is '5678', was '1234'"),
            (opt(blur_kind="blur_gamma"), "kind of blur is 'blur_gamma', was 'blur'"),
            (opt(world_size=2), "processes is 2, was 1"),
            (opt({**options(), "manual_seed": 1}), "manual_seed is 1, was 0"),
            (opt({**options(), "network_r": {"type": "ReblurNet"}}), "network_r is {'type': 'ReblurNet'}, was None"),
            (
                opt({**options(), "network_g": {"type": "UNet", "num_feats": [8, 16]}}),
                "network_g: num_feats is [8, 16],",
            ),
            (opt(options(grad_clip=1.0)), "train: grad_clip is 1.0, was 0.2"),
            (opt(options(reblur_opt={"loss_weight": 2.0})), "train: reblur_opt is {'loss_weight': 2.0}, was None"),
            (opt({**options(), "datasets": {"train": {"gt_size": 96}}}), "datasets: train: gt_size is 96, was 64"),
        ],
    )
    def test_each_thing_that_changes_results_is_told(self, present: Options, expected: str) -> None:
        (note,) = told(saved(), present)
        assert note.startswith(f"resumed: {expected}")

    def test_a_version_is_told(self) -> None:
        notes = differences(saved(versions={"reblur_plugin": "0.0"}), opt())
        assert f"version: reblur_plugin is '{reblur_plugin.__version__}', was '0.0'" in notes[0]

    def test_what_changes_no_result_is_not(self) -> None:
        moved = options(total_iter=20, compile=True)
        moved["datasets"] = {"train": {"dataroot": "b", "gt_size": 64, "num_worker_per_gpu": 0}}
        assert told(saved(), opt(moved)) == []

    def test_a_state_that_tells_nothing_is_gone_on_from(self) -> None:
        assert differences({"iter": 5}, opt()) == []


def without_a_sequence(folder: Path) -> None:
    for split in ("train", "test"):
        shutil.rmtree(folder / "data" / split / "SEQ_B")


class TestARunOnOtherData:
    """Its set before was easier: no PSNR on this one reaches the best on that."""

    @pytest.fixture
    def other(self, tmp_path: Path, tiny_options: Options) -> Options:
        """Options that go on from two iterations."""
        tiny_options["val"]["best"] = "psnr"
        training.train(copy.deepcopy(tiny_options), tmp_path)
        state = tmp_path / "experiments/tiny/training_states/2.state"
        content = checkpoints.load(state)
        content["best"]["tiny_val"]["psnr"]["val"] = 99.0
        checkpoints.save(content, state)
        tiny_options["train"]["total_iter"] = 4
        tiny_options["datasets"]["train"]["batch_size_per_gpu"] = 1
        return tiny_options

    def test_the_log_tells_of_the_data_and_of_the_best(self, tmp_path: Path, other: Options) -> None:
        without_a_sequence(tmp_path)
        training.train(other, tmp_path, auto_resume=True)
        (log,) = (path for path in (tmp_path / "experiments/tiny").glob("train_*.log") if "resumed" in path.read_text())
        warnings = [line for line in log.read_text().splitlines() if "WARNING" in line]
        assert [word for word in ("training data", "batch_size", "best psnr") if word not in " ".join(warnings)] == []

    def test_the_best_networks_are_chosen_anew(self, tmp_path: Path, other: Options) -> None:
        without_a_sequence(tmp_path)
        training.train(other, tmp_path, auto_resume=True)
        best = checkpoints.load(tmp_path / "experiments/tiny/models/net_g_best.pth")
        assert best["origin"]["iteration"] == 4

    def test_on_the_same_data_the_best_stays(self, tmp_path: Path, other: Options) -> None:
        training.train(other, tmp_path, auto_resume=True)
        best = checkpoints.load(tmp_path / "experiments/tiny/models/net_g_best.pth")
        assert best["origin"]["iteration"] == 2
