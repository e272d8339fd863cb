"""A resumed run is the unbroken one, by whatever chance its networks and images draw; where it begins and ends."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Runner
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.data.pair_dataset import DrawSampler
from reblur_plugin.engine import training
from reblur_plugin.host import registry
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options.reading import OptionError

reblur_plugin.register()

Options = dict[str, Any]


class HalfForgetful(nn.Module):
    """A network that drops half of its features."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return image + self.out(nn.functional.dropout(self.into(image), 0.5, self.training))


@pytest.fixture
def forgetful() -> Iterator[None]:
    registry.ARCH_REGISTRY.register(HalfForgetful)
    yield
    del registry.ARCH_REGISTRY._obj_map["HalfForgetful"]


@pytest.fixture
def trained(tmp_path: Path, tiny_options: Options) -> Path:
    """An experiment of two iterations, saved at each; return its folder."""
    tiny_options["logger"]["save_checkpoint_freq"] = 1
    training.train(copy.deepcopy(tiny_options), tmp_path)
    return tmp_path / "experiments" / "tiny"


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log"
    }


def assert_seventeen_and_twenty_three_are_forty(folder: Path, options: Options) -> None:
    del options["val"]
    options["train"]["total_iter"] = 40
    training.train(copy.deepcopy(options), folder)
    options["name"] = "broken"
    training.train({**copy.deepcopy(options), "train": {**options["train"], "total_iter": 17}}, folder)
    training.train(options, folder, auto_resume=True)
    for label in "gr":
        straight, resumed = (
            checkpoints.state_dict(folder / "experiments" / name / "models" / f"net_{label}_40.pth")
            for name in ("tiny", "broken")
        )
        assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []


class TestOrder:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_training_takes_every_draw_from_the_first_on_once(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch, workers: int
    ) -> None:
        taken: list[str] = []
        feed = ReblurModel.feed_data
        monkeypatch.setattr(ReblurModel, "feed_data", lambda self, data: (taken.extend(data["name"]), feed(self, data)))
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = workers
        tiny_options["train"]["total_iter"] = 3
        training.train(copy.deepcopy(tiny_options), tmp_path)
        tiny_options["train"]["total_iter"] = 5
        training.train(tiny_options, tmp_path, auto_resume=True)
        names = [f"SEQ_{sequence}/00000{frame}" for sequence in "AB" for frame in (0, 1)]
        assert taken == [names[draw.image] for draw in islice(DrawSampler(4, seed=0), 10)]


class TestExactness:
    @pytest.mark.usefixtures("forgetful")
    @pytest.mark.parametrize("workers", [0, 1])
    def test_networks_with_dropout_go_on_as_if_unbroken(
        self, tmp_path: Path, tiny_options: Options, workers: int
    ) -> None:
        tiny_options["network_g"] = {"type": "HalfForgetful"}
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = workers
        assert_seventeen_and_twenty_three_are_forty(tmp_path, tiny_options)

    @pytest.mark.usefixtures("forgetful")
    def test_dropout_differs_by_iteration(self, tmp_path: Path, tiny_options: Options) -> None:
        seen = []
        tiny_options["network_g"] = {"type": "HalfForgetful"}
        tiny_options["train"]["total_iter"] = 3
        whole = nn.functional.dropout

        def dropout(*arguments: Any) -> Tensor:
            dropped = whole(*arguments)
            if torch.is_grad_enabled():
                seen.append(dropped == 0)
            return dropped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn.functional, "dropout", dropout)
            training.train(tiny_options, tmp_path)
        assert len(seen) == 3
        assert not any(torch.equal(seen[i], seen[j]) for i, j in ((0, 1), (0, 2), (1, 2)))

    @pytest.mark.parametrize("workers", [0, 2])
    def test_data_sets_of_others_go_on_as_if_unbroken(
        self, tmp_path: Path, tiny_options: Options, workers: int
    ) -> None:
        folders = {
            f"dataroot_{key}": str(tmp_path / "data" / "train" / "SEQ_A" / kind)
            for key, kind in (("lq", "blur_gamma"), ("gt", "sharp"))
        }
        chance = {"gt_size": 16, "use_hflip": True, "use_rot": True}  # drawn by Python's generator
        loading = {"io_backend": {"type": "disk"}, "batch_size_per_gpu": 2, "num_worker_per_gpu": workers}
        tiny_options["datasets"]["train"] = {"type": "PairedImageDataset", **folders, **chance, **loading}
        assert_seventeen_and_twenty_three_are_forty(tmp_path, tiny_options)

    def test_processes_draw_different_chance(self, tmp_path: Path, tiny_options: Options, runner: Runner) -> None:
        prelude = """
import torch
from reblur_plugin.models.reblur_model import ReblurModel
whole = ReblurModel.optimize_parameters
def optimize_parameters(self, iteration):
    with (folder / f"drawn{rank}").open("a") as file:
        file.write(f"{torch.rand(1).item()} ")
    whole(self, iteration)
ReblurModel.optimize_parameters = optimize_parameters
"""
        assert runner.run(tiny_options, tmp_path, processes=2, prelude=prelude) == [0, 0]
        drawn = [(tmp_path / f"drawn{rank}").read_text().split() for rank in (0, 1)]
        assert len({*drawn[0], *drawn[1]}) == 4  # two iterations of two processes


class TestEnd:
    def test_fewer_iterations_than_are_trained_are_refused(self, trained: Path, tiny_options: Options) -> None:
        before = content(trained)
        tiny_options["train"]["total_iter"] = 1
        tiny_options["train"]["scheduler"]["milestones"] = [1]
        with pytest.raises(
            OptionError,
            match=r"total_iter: expected at least the 2 iterations that .*2\.state has been trained for, got 1; raise",
        ):
            training.train(tiny_options, trained.parents[1], auto_resume=True)
        assert content(trained) == before

    def test_a_finished_run_is_left_as_it_is(self, trained: Path, tiny_options: Options) -> None:
        before, logs = content(trained), set(trained.glob("*.log"))
        times = {path: path.stat().st_mtime_ns for path in (trained / "models").iterdir()}
        assert training.train(tiny_options, trained.parents[1], auto_resume=True)
        assert content(trained) == before
        assert {path: path.stat().st_mtime_ns for path in (trained / "models").iterdir()} == times
        text = "".join(log.read_text() for log in set(trained.glob("*.log")) - logs or logs)
        assert "2 iterations are trained already: nothing is left to do" in text

    def test_a_validation_that_is_missing_is_still_done(self, trained: Path, tiny_options: Options) -> None:
        path = trained / "training_states" / "2.state"
        torch.save({**checkpoints.load(path), "to_validate": True, "best": {}}, path)
        assert training.train(tiny_options, trained.parents[1], auto_resume=True)
        state = checkpoints.load(path)
        assert state["to_validate"] is False
        assert state["best"]["tiny_val"]["psnr"]["iter"] == 2

    def test_the_last_state_is_written_after_the_latest_networks(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # a state of the last iteration says that nothing is left to do
        written: list[str] = []
        save = checkpoints.save
        monkeypatch.setattr(checkpoints, "save", lambda found, path: (written.append(path.name), save(found, path)))
        training.train(tiny_options, tmp_path)
        first_state = written.index("2.state")
        assert {"net_g_latest.pth", "net_r_latest.pth", "net_g_2.pth"} <= set(written[:first_state])


class TestResumeState:
    def test_a_run_that_started_from_anothers_state_goes_on_from_its_own(
        self, trained: Path, tiny_options: Options
    ) -> None:
        tiny_options |= {"name": "other", "path": {"resume_state": str(trained / "training_states" / "1.state")}}
        tiny_options["train"]["total_iter"] = 3
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            training.train(copy.deepcopy(tiny_options), trained.parents[1], auto_resume=True)
        other = trained.with_name("other")
        assert "starting after iteration 1" in "".join(log.read_text() for log in other.glob("*.log"))
        tiny_options["train"]["total_iter"] = 4
        training.train(tiny_options, trained.parents[1], auto_resume=True)
        assert "starting after iteration 3" in "".join(log.read_text() for log in other.glob("*.log"))
