"""What BasicSR 1.4.2 does wrong and this plugin does not: the rows of docs/host_defects.md that no other test shows."""

from __future__ import annotations

import ast
import copy
import csv
import errno
import functools
import importlib.util
import logging
import multiprocessing
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin import checkpoints, cli, test, train, training_states
from reblur_plugin.data.pair_dataset import DrawSampler
from reblur_plugin.engine import testing, training
from reblur_plugin.engine.batches import Batches
from reblur_plugin.engine.preparation import prepare
from reblur_plugin.evaluation.request import Request
from reblur_plugin.evaluation.scores import Scores
from reblur_plugin.evaluation.scoring import Awaited, Scorer
from reblur_plugin.evaluation.validation import evaluate
from reblur_plugin.files import FileError
from reblur_plugin.host import get_root_logger, registry
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options import checks, reading
from reblur_plugin.options.components import build_dataset

reblur_plugin.register()

Options = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder that gets experiments/ and results/."""
    return tmp_path


@pytest.fixture
def trained(place: Path, tiny_options: Options) -> Path:
    """An experiment "tiny" of two iterations, saved at each; return its folder."""
    tiny_options["logger"]["save_checkpoint_freq"] = 1
    del tiny_options["val"], tiny_options["datasets"]["val"]
    training.train(copy.deepcopy(tiny_options), place)
    tiny_options["train"]["total_iter"] = 3
    return place / "experiments" / "tiny"


@pytest.fixture
def fresh_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """BasicSR's logger as in a new process."""
    logger = logging.getLogger("basicsr")
    level = logger.level
    monkeypatch.setattr("basicsr.utils.logger.initialized_logger", {})
    monkeypatch.setattr(logger, "handlers", [])
    logger.setLevel(logging.NOTSET)
    yield logger
    logger.setLevel(level)


def states(experiment: Path) -> set[str]:
    return {path.stem for path in (experiment / "training_states").glob("*.state")}


def log_of(experiment: Path) -> str:
    """Return the newest log of an experiment."""
    return max(experiment.glob("*.log"), key=lambda path: path.stat().st_mtime_ns).read_text()


def command(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str, *arguments: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    return cli.guarded({"train": train.main, "test": test.main}[program])


def errors_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    errors = capfd.readouterr().err
    assert "Traceback" not in errors
    return [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith("error: ")]


class TestSilentWrongResults:
    """Section A."""

    @pytest.mark.parametrize(("batch", "total"), [(3, 7), (4, 3)])
    def test_batches_that_do_not_divide_the_data_shorten_no_training(
        self, place: Path, tiny_options: Options, batch: int, total: int
    ) -> None:
        del tiny_options["val"]
        tiny_options["datasets"]["train"]["batch_size_per_gpu"] = batch  # of 4 images
        tiny_options["train"]["total_iter"] = total
        training.train(tiny_options, place)
        assert states(place / "experiments" / "tiny") == set(map(str, {*range(2, total + 1, 2), total}))

    def test_a_state_whose_m_r_is_missing_is_refused(self, trained: Path, tiny_options: Options) -> None:
        (trained / "models" / "net_r_2.pth").unlink()
        tiny_options["path"]["resume_state"] = str(trained / "training_states" / "2.state")
        with pytest.raises(checkpoints.CheckpointError, match=r"net_r_2\.pth: no such checkpoint; check the path"):
            training.train(tiny_options, trained.parents[1])
        assert not (trained / "training_states" / "3.state").exists()

    def test_a_resumed_run_has_the_weights_of_both_networks(self, trained: Path, tiny_options: Options) -> None:
        opt, _ = prepare(tiny_options, trained.parents[1], is_train=True)
        opt["path"] |= training_states.find(opt, auto_resume=True).path
        model = ReblurModel(opt)
        for label, network in (("g", model.net_g), ("r", model.net_r)):
            saved = checkpoints.state_dict(trained / "models" / f"net_{label}_2.pth")
            assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())

    def test_auto_resume_looks_where_experiments_are_written(
        self, trained: Path, tiny_options: Options, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
    ) -> None:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        training.train(tiny_options, trained.parents[1], auto_resume=True)
        assert states(trained) == {"1", "2", "3"}
        assert "starting after iteration 2" in log_of(trained)
        assert list(trained.parent.iterdir()) == [trained]  # nothing was moved aside
        assert list(Path.cwd().iterdir()) == []

    @pytest.mark.parametrize(
        ("metric", "best"), [("calculate_niqe", 13.8), ("reblur_niqe", 13.8), ("calculate_psnr", 14.2)]
    )
    def test_the_best_value_is_the_lowest_where_lower_is_better(
        self, place: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch, metric: str, best: float
    ) -> None:
        tiny_options["val"]["metrics"] = {"m": {"type": metric, "crop_border": 0}}
        opt, _ = prepare(tiny_options, place, is_train=True)
        model = ReblurModel(opt)
        dataset = build_dataset("val", opt["datasets"]["val"])
        for iteration, value in enumerate((14.0, 13.8, 14.2), start=1):
            monkeypatch.setattr(Scorer, "begin", lambda *_, value=value: Awaited(["m"], {"m": value}))
            model.validation(torch.utils.data.DataLoader(dataset), iteration, None, False)
        assert model.best_metric_results["tiny_val"]["m"]["val"] == best

    def test_the_average_takes_over_statistics_of_batch_norm(self, place: Path, tiny_options: Options) -> None:
        class NormedGain(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm2d(3)

            def forward(self, x: Tensor) -> Tensor:
                return self.norm(x)

        registry.ARCH_REGISTRY.register(NormedGain)
        try:
            tiny_options["network_g"] = {"type": "NormedGain"}
            tiny_options["train"]["ema_decay"] = 0.999
            model = ReblurModel(prepare(tiny_options, place, is_train=True)[0])
        finally:
            del registry.ARCH_REGISTRY._obj_map["NormedGain"]
        model.feed_data({"lq": torch.full((2, 3, 8, 8), 0.5), "gt": torch.full((2, 3, 8, 8), 0.8)})
        model.optimize_parameters(1)
        assert not torch.equal(model.net_g.norm.running_mean, torch.zeros(3))
        assert torch.equal(model.net_g_ema.norm.running_mean, model.net_g.norm.running_mean)


class TestLostWork:
    """Section B."""

    @pytest.mark.parametrize("spoil", ["cut short", "empty", "without M_D", "M_D cut short"])
    def test_auto_resume_goes_back_to_the_newest_whole_state_and_names_what_it_skipped(
        self, trained: Path, tiny_options: Options, spoil: str
    ) -> None:
        state, network = trained / "training_states" / "2.state", trained / "models" / "net_g_2.pth"
        spoilt = network if "M_D" in spoil else state
        if spoil == "without M_D":
            spoilt.unlink()
        else:
            spoilt.write_bytes(b"" if spoil == "empty" else spoilt.read_bytes()[:1000])
        (state.parent / "latest.state").write_bytes(b"")  # no number: not one of ours
        training.train(tiny_options, trained.parents[1], auto_resume=True)
        log = log_of(trained)
        assert f"skipped 2.state: {spoilt}: " in log
        assert "starting after iteration 1" in log
        assert "3" in states(trained)

    def test_a_full_disk_ends_the_run_with_one_sentence(
        self, place: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        tiny_options["logger"]["save_checkpoint_freq"] = 1
        (place / "o.yml").write_text(yaml.safe_dump(tiny_options))
        monkeypatch.setattr(torch, "save", refuse)
        assert command(monkeypatch, place, "train", "-opt", "o.yml") == 1
        (sentence,) = errors_of(capfd)
        assert re.fullmatch(
            r".*net_g_1\.pth: can't be written \(.*No space left.*\); free or change the disk, then resume", sentence
        )
        assert list((place / "experiments" / "tiny" / "models").iterdir()) == []

    def test_a_full_disk_at_the_end_of_a_test_is_one_sentence(self, place: Path) -> None:
        (place / "file").write_text("in the folder's place")
        scores = Scores({"a": {"deblurred": {"psnr": 20.0}}})
        with pytest.raises(FileError, match=r"set\.csv: can't be written \(.+\); free or change the disk"):
            scores.write_csv(place / "file" / "set.csv", ["psnr"])

    def test_adaptation_and_validation_run_on_the_bare_network(
        self, place: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def deadlock(*_: Any, **__: Any) -> None:
            raise AssertionError("the wrapper waits for processes that don't validate")

        tiny_options["val"] |= {"tta": {"steps": 1, "lr": 1e-4}, "reblurred": True}
        opt, _ = prepare(tiny_options, place, is_train=True)
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            model = ReblurModel({**opt, "dist": True})
            assert isinstance(model.net_g, nn.parallel.DistributedDataParallel)
            monkeypatch.setattr(nn.parallel.DistributedDataParallel, "forward", deadlock)
            dataset = build_dataset("val", opt["datasets"]["val"])
            request = Request.of(model.opt, dataset.opt["name"])
            adapted = evaluate(model, dataset, request)
            plain = evaluate(model, dataset, replace(request, adapts=False))
        finally:
            torch.distributed.destroy_process_group()
        assert adapted.stages() == ["deblurred", "adapted", "reblurred", "unchanged"]
        assert plain.stages() == ["deblurred", "reblurred", "unchanged"]

    def test_a_damaged_image_in_a_worker_ends_the_run_with_one_sentence_at_any_time(
        self, place: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 1
        last = [draw.image for draw, _ in zip(DrawSampler(4, seed=0), range(4), strict=False)][-1]
        image = build_dataset("train", {**tiny_options["datasets"]["train"], "phase": "train"}).pairs[last].blurry
        image.write_bytes(image.read_bytes()[:100])
        (place / "o.yml").write_text(yaml.safe_dump(tiny_options))
        assert command(monkeypatch, place, "train", "-opt", "o.yml") == 1
        assert errors_of(capfd) == [
            f"{image}: expected an image, got a damaged or unknown file; unzip or download it again"
        ]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_workers_are_started_once_for_all_epochs(self, place: Path, tiny_options: Options, workers: int) -> None:
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = workers
        opt, _ = prepare(tiny_options, place, is_train=True)
        before = set(multiprocessing.active_children())
        batches = Batches(build_dataset("train", opt["datasets"]["train"]), opt, 0)
        started = set(multiprocessing.active_children()) - before
        assert len(started) == workers
        for _ in range(5):  # two batches an epoch
            batches.next()
        assert set(multiprocessing.active_children()) - before == started
        batches.close()

    def test_a_new_run_may_start_from_the_networks_of_the_old_one_of_its_name(
        self, trained: Path, tiny_options: Options
    ) -> None:
        tiny_options["path"]["pretrain_network_g"] = str(trained / "models" / "net_g_latest.pth")
        training.train(tiny_options, trained.parents[1])
        assert "Loaded net_g from" in log_of(trained)
        assert len(list(trained.parent.glob("tiny_archived_*"))) == 1

    @pytest.mark.parametrize("arguments", [(), ("--auto_resume",)], ids=["fresh", "resumed"])
    def test_the_option_file_of_an_experiment_runs_where_it_lies(
        self, trained: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
    ) -> None:
        place = trained.parents[1]
        words = ("-opt", "experiments/tiny/tiny.yml", "--force_yml", "train:total_iter=3", *arguments)
        assert command(monkeypatch, place, "train", *words) == 0
        assert "3" in states(trained)
        assert yaml.safe_load((trained / "tiny.yml").read_text())["train"]["total_iter"] == 3

    def test_a_state_of_another_experiment_brings_its_networks(self, trained: Path, tiny_options: Options) -> None:
        tiny_options["name"] = "other"
        tiny_options["path"]["resume_state"] = str(trained / "training_states" / "2.state")
        before = sorted(trained.rglob("*"))
        training.train(tiny_options, trained.parents[1])
        assert states(trained.with_name("other")) == {"3"}
        assert "starting after iteration 2" in log_of(trained.with_name("other"))
        assert sorted(trained.rglob("*")) == before

    def test_validation_asks_for_its_frequency_only(self, place: Path, tiny_options: Options) -> None:
        tiny_options["val"] = {"val_freq": 1}
        assert training.train(tiny_options, place)


class TestSecurity:
    """Section C."""

    def test_reading_options_leaves_yamls_own_loaders_alone(self, place: Path) -> None:
        loaders = [yaml.SafeLoader, yaml.FullLoader, yaml.CLoader]
        before = [(dict(loader.yaml_constructors), str(loader.yaml_implicit_resolvers)) for loader in loaders]
        (place / "o.yml").write_text("a: 1e-4\n")
        reading.override(reading.read(place / "o.yml"), ["b=2e-4"])
        assert [(dict(loader.yaml_constructors), str(loader.yaml_implicit_resolvers)) for loader in loaders] == before


class TestMessages:
    """Section D: what ends in a traceback there and runs here; what is refused here is in test_bad_input.py."""

    def test_names_with_dots_are_names(self, place: Path, tiny_data: Path, tiny_options: Options) -> None:
        sequence = (tiny_data / "test" / "SEQ_A").rename(tiny_data / "test" / "SEQ_0.1")
        for kind in ("blur_gamma", "sharp"):
            (sequence / kind / "000000.png").rename(sequence / kind / "000.5.png")
        training.train(tiny_options, place)
        pictures = place / "experiments" / "tiny" / "visualization" / "SEQ_0.1" / "000.5"
        assert [path.name for path in pictures.iterdir()] == ["000.5_2.png"]

    def test_keys_that_have_a_natural_value_may_be_left_out(self, place: Path, tiny_options: Options) -> None:
        for key in ("scale", "num_gpu", "manual_seed"):
            del tiny_options[key]
        del tiny_options["logger"]["use_tb_logger"], tiny_options["val"]["save_img"]
        training.train(copy.deepcopy(tiny_options), place)
        models = place / "experiments" / "tiny" / "models"
        tiny_options["path"] = {f"pretrain_network_{label}": str(models / f"net_{label}_2.pth") for label in "gr"}
        del tiny_options["val"], tiny_options["logger"], tiny_options["train"], tiny_options["datasets"]["train"]
        assert checks.problems(tiny_options, is_train=False) == []
        testing.test(tiny_options, place)
        pictures = place / "results" / "tiny" / "visualization" / "tiny_val"
        assert {path.name for path in pictures.rglob("*.png")} == {"000000.png"}

    @pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "RMSprop"])
    def test_pytorchs_optimisers_are_all_there(self, place: Path, tiny_options: Options, optimizer: str) -> None:
        del tiny_options["val"]
        tiny_options["train"]["optim_g"] = {"type": optimizer, "lr": 1e-4}
        assert training.train(tiny_options, place)

    def test_a_wandb_that_is_not_there_is_named_before_anything_is_made(
        self, place: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
        tiny_options["logger"] |= {"use_tb_logger": True, "wandb": {"project": "x"}}
        with pytest.raises(
            reading.OptionError, match="logger: wandb: the package wandb isn't installed; pip install wan"
        ):
            training.train(tiny_options, place)
        assert [path.name for path in place.iterdir()] == ["data"]

    def test_a_perceptual_loss_may_be_a_single_number(self, place: Path, tiny_options: Options) -> None:
        del tiny_options["val"]
        tiny_options["train"]["perceptual_opt"] = {"type": "L1Loss", "loss_weight": 0.1}
        training.train(tiny_options, place)
        assert "l_g_percep" in log_of(place / "experiments" / "tiny")

    def test_basicsrs_own_models_are_tested_without_a_suffix(self, place: Path, tiny_options: Options) -> None:
        training.train(copy.deepcopy(tiny_options), place)
        network = place / "experiments" / "tiny" / "models" / "net_g_2.pth"
        del tiny_options["network_r"]
        tiny_options |= {"model_type": "SRModel", "path": {"pretrain_network_g": str(network)}}
        testing.test(tiny_options, place)
        assert len(list((place / "results" / "tiny").rglob("*.png"))) > 0

    def test_a_name_with_debug_in_it_changes_nothing(self, place: Path, tiny_options: Options) -> None:
        tiny_options |= {"name": "debug_it"}
        tiny_options["logger"]["use_tb_logger"] = True
        training.train(copy.deepcopy(tiny_options), place)
        stored = yaml.safe_load((place / "experiments" / "debug_it" / "debug_it.yml").read_text())
        assert {key: stored[key] for key in ("name", "val")} == {key: tiny_options[key] for key in ("name", "val")}
        assert list((place / "tb_logger" / "debug_it").iterdir()) != []

    def test_an_early_logger_costs_no_log(
        self, place: Path, tiny_options: Options, fresh_logger: logging.Logger
    ) -> None:
        get_root_logger().info("early")
        training.train(tiny_options, place)
        log = log_of(place / "experiments" / "tiny")
        assert [word for word in ("net_g: ResUNet", "l_g_pix", "psnr", "Trained 2 iterations") if word not in log] == []

    def test_scores_of_the_test_set_are_written_with_their_images(self, place: Path, tiny_options: Options) -> None:
        training.train(copy.deepcopy(tiny_options), place)
        models = place / "experiments" / "tiny" / "models"
        tiny_options["path"] = {f"pretrain_network_{label}": str(models / f"net_{label}_2.pth") for label in "gr"}
        testing.test(tiny_options, place)
        with (place / "results" / "tiny" / "tiny_val.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["image"] for row in rows] == ["SEQ_A/000000", "SEQ_B/000000"]
        assert np.isfinite([float(row["psnr"]) for row in rows]).all()


@functools.cache
def _parsed(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def rows() -> list[list[str]]:
    """Return the cells of each row of docs/host_defects.md."""
    lines = (ROOT / "docs" / "host_defects.md").read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if re.match(r"\| [A-D]\d+ ", line)
    ]


class TestTheTable:
    """docs/host_defects.md."""

    def test_has_every_defect_once_in_order(self) -> None:
        counts = {"A": 17, "B": 14, "C": 3, "D": 27}
        expected = [f"{letter}{number}" for letter, count in counts.items() for number in range(1, count + 1)]
        assert [row[0] for row in rows()] == expected

    def test_every_row_says_four_things(self) -> None:
        assert [row for row in rows() if len(row) != 4 or not all(row)] == []

    def test_every_test_that_they_name_is_there(self) -> None:
        named = {row[0]: re.findall(r"`([^`]+::[^`]+)`", row[3]) for row in rows()}
        assert [row for row, names in named.items() if not names] == []
        failures = [f"{row}: {name}" for row, names in named.items() for name in names if not _exists(name)]
        assert failures == []


def _exists(test: str) -> bool:
    """Return whether `file::Class::function` is under tests/ or, for a file with a table CASES, `file::case`."""
    file, *names = test.split("::")
    path = ROOT / "tests" / file
    body = _parsed(path) if path.is_file() else []
    for node in body:
        if (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) == "CASES"
            and isinstance(node.value, ast.Dict)
        ):
            return names[0] in {ast.literal_eval(key) for key in node.value.keys if key}
    for name in names:
        found = [node for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name]
        if not found:
            return False
        body = found[0].body
    return True
