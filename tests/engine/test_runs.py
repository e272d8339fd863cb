"""Training and testing end to end on tiny data: by our entry points, and by BasicSR's own pipelines."""

from __future__ import annotations

import copy
import csv
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from reblur_plugin import checkpoints
from reblur_plugin.data.images import ImageError
from reblur_plugin.engine import testing, training
from reblur_plugin.options.reading import OptionError

Options = dict[str, Any]


def weights(folder: Path, name: str, label: str, iteration: int | str) -> dict[str, torch.Tensor]:
    return checkpoints.state_dict(folder / "experiments" / name / "models" / f"net_{label}_{iteration}.pth")


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_options(trained: Path, options: Options) -> Options:
    models = trained / "experiments" / "tiny" / "models"
    tested = {key: copy.deepcopy(options[key]) for key in ("model_type", "num_gpu", "network_g", "network_r")}
    return tested | {
        "name": "tiny_test",
        "scale": 1,
        "datasets": {"test": {**options["datasets"]["val"], "name": "tiny_set"}},
        "path": {f"pretrain_network_{label}": str(models / f"net_{label}_latest.pth") for label in "gr"},
        "val": {**options["val"], "tta": {"steps": 2, "lr": 1e-3}, "input_metrics": True, "comparison": True},
    }


test_options.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture
def trained(tmp_path: Path, tiny_options: Options) -> Path:
    assert training.train(tiny_options, tmp_path)
    return tmp_path


class TestTraining:
    def test_writes_basicsrs_folders(self, trained: Path) -> None:
        experiment = trained / "experiments" / "tiny"
        assert {path.name for path in (experiment / "models").iterdir()} == {
            f"net_{label}_{iteration}.pth" for label in "gr" for iteration in ("2", "latest")
        }
        assert (experiment / "training_states" / "2.state").is_file()
        assert {path.name for path in (experiment / "visualization").iterdir()} == {"SEQ_A", "SEQ_B"}
        log = next(experiment.glob("train_tiny_*.log")).read_text()
        assert [word for word in ("rho", "l_r_sharp", "psnr") if word not in log] == []

    def test_stores_options_that_run_by_themselves(self, trained: Path, tiny_options: Options) -> None:
        stored = yaml.safe_load((trained / "experiments" / "tiny" / "tiny.yml").read_text())
        assert stored == tiny_options

    @pytest.mark.parametrize("total", [1, 5])
    def test_runs_exactly_total_iter_iterations(self, tmp_path: Path, tiny_options: Options, total: int) -> None:
        tiny_options["train"]["total_iter"] = total
        training.train(tiny_options, tmp_path)
        states = [path.stem for path in (tmp_path / "experiments" / "tiny" / "training_states").iterdir()]
        assert max(map(int, states)) == total

    @pytest.mark.parametrize("amp", [None, "bf16", "fp16"])
    def test_forty_iterations_are_seventeen_and_twenty_three(
        self, tmp_path: Path, tiny_options: Options, amp: str | None
    ) -> None:
        tiny_options["datasets"]["train"]["num_worker_per_gpu"] = 1
        scheduler = {"type": "MultiStepLR", "milestones": [10, 30], "gamma": 0.5}
        tiny_options["train"] |= {"ema_decay": 0.5, "total_iter": 40, "amp": amp, "scheduler": scheduler}
        tiny_options["val"] |= {"val_freq": 8, "save_img": False}
        training.train(tiny_options, tmp_path)
        first = {**tiny_options, "name": "broken", "train": {**tiny_options["train"], "total_iter": 17}}
        training.train(first, tmp_path)
        training.train({**tiny_options, "name": "broken"}, tmp_path, auto_resume=True)
        for label in "gr":
            assert_equal(weights(tmp_path, "tiny", label, 40), weights(tmp_path, "broken", label, 40))
        states = [tmp_path / "experiments" / name / "training_states" / "40.state" for name in ("tiny", "broken")]
        straight, resumed = (checkpoints.load(path)["updaters"] for path in states)
        for label in "gr":
            assert straight[label]["scaler"] == resumed[label]["scaler"]
            groups = [state[label]["optimizer"]["param_groups"] for state in (straight, resumed)]
            assert groups[0] == groups[1]  # learning rates among them

    def test_the_seed_decides(self, tmp_path: Path, tiny_options: Options) -> None:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            training.train({**tiny_options, "name": name, "manual_seed": seed}, tmp_path)
        assert_equal(weights(tmp_path, "a", "g", 2), weights(tmp_path, "b", "g", 2))
        assert not torch.equal(*(weights(tmp_path, name, "g", 2)["head.weight"] for name in "ac"))

    def test_a_new_run_moves_the_old_one_aside(self, trained: Path, tiny_options: Options) -> None:
        training.train(tiny_options, trained)
        assert len(list((trained / "experiments").glob("tiny_archived_*"))) == 1

    def test_what_cannot_start_leaves_the_old_run_where_it_is(self, trained: Path, tiny_options: Options) -> None:
        before = sorted(trained.rglob("*"))
        tiny_options["datasets"]["train"]["batch_size_per_gpu"] = 5
        with pytest.raises(OptionError, match="batch_size_per_gpu: expected at most the 4 images there are, got 5"):
            training.train(tiny_options, trained)
        assert sorted(trained.rglob("*")) == before

    def test_partners_of_different_size_are_named(self, tmp_path: Path, tiny_data: Path, tiny_options: Options) -> None:
        path = tiny_data / "train" / "SEQ_A" / "blur_gamma" / "000000.png"
        cv2.imwrite(str(path), np.zeros((32, 44, 3), np.uint8))
        with pytest.raises(ImageError, match=r"SEQ_A/blur_gamma/000000.png: expected the size .*40x32, got 44x32"):
            training.train(tiny_options, tmp_path)


class TestOtherDataSets:
    def test_basicsrs_own_data_set_trains_and_resumes(self, tmp_path: Path, tiny_options: Options) -> None:
        folders = {
            f"dataroot_{key}": str(tmp_path / "data" / "train" / "SEQ_A" / kind)
            for key, kind in (("lq", "blur_gamma"), ("gt", "sharp"))
        }
        tiny_options["datasets"]["train"] = {
            "type": "PairedImageDataset",
            **folders,
            "io_backend": {"type": "disk"},
            "gt_size": 16,
            "use_hflip": True,
            "use_rot": True,
            "batch_size_per_gpu": 2,
            "num_worker_per_gpu": 1,
        }
        assert training.train(tiny_options, tmp_path)
        tiny_options["train"]["total_iter"] = 4
        assert training.train(tiny_options, tmp_path, auto_resume=True)
        assert "head.weight" in weights(tmp_path, "tiny", "g", 4)

    def test_images_of_one_name_in_two_folders_stay_two(self, trained: Path, tiny_options: Options) -> None:
        from reblur_plugin.evaluation.validation import _name

        dataset = type("Other", (), {"opt": {"dataroot_lq": str(trained / "data")}})
        items = [{"lq_path": str(trained / "data" / sequence / "000000.png")} for sequence in "AB"]
        assert [_name(item, dataset) for item in items] == ["A/000000", "B/000000"]
        assert _name({"lq_path": "A/0001"}, dataset) == "A/0001"  # a key of an lmdb
        assert _name({"lq_path": "/elsewhere/A/0001.png"}, dataset) == "elsewhere/A/0001"


class TestBest:
    def test_the_best_networks_are_kept_by_the_metric_asked_for(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from reblur_plugin.evaluation import scores

        values = iter([1.0, 3.0, 2.0])  # of the three validations
        monkeypatch.setattr(scores.Scores, "mean", lambda *_: next(values))
        monkeypatch.setattr(scores.Scores, "table", lambda *_: "")
        tiny_options["train"]["total_iter"] = 3
        tiny_options["logger"]["save_checkpoint_freq"] = 1
        tiny_options["val"] |= {"val_freq": 1, "best": "psnr"}
        training.train(tiny_options, tmp_path)
        for label in "gr":
            assert_equal(weights(tmp_path, "tiny", label, "best"), weights(tmp_path, "tiny", label, 2))
        best = checkpoints.load(tmp_path / "experiments" / "tiny" / "training_states" / "3.state")["best"]
        assert best["tiny_val"]["psnr"] == {"better": "higher", "val": 3.0, "iter": 2}

    def test_a_resumed_run_remembers_the_best_value(
        self, tmp_path: Path, tiny_options: Options, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from reblur_plugin.evaluation import scores

        values = iter([3.0, 2.0])
        monkeypatch.setattr(scores.Scores, "mean", lambda *_: next(values))
        monkeypatch.setattr(scores.Scores, "table", lambda *_: "")
        tiny_options["val"] |= {"val_freq": 2, "best": "psnr"}
        training.train(tiny_options, tmp_path)
        tiny_options["train"]["total_iter"] = 4
        training.train(tiny_options, tmp_path, auto_resume=True)
        assert_equal(weights(tmp_path, "tiny", "g", "best"), weights(tmp_path, "tiny", "g", 2))


class TestTable1:
    def test_m_r_is_trained_on_a_held_m_d_and_scored_by_the_blur_it_brings_back(
        self, trained: Path, tiny_options: Options
    ) -> None:
        models = trained / "experiments" / "tiny" / "models"
        options = {**tiny_options, "name": "reblur", "path": {"pretrain_network_g": str(models / "net_g_latest.pth")}}
        options["train"] = {key: options["train"][key] for key in ("total_iter", "optim_r", "scheduler")}
        options["train"] |= {"freeze_deblur_net": True, "reblur_opt": {"sharp_reference": "none"}}
        training.train(options, trained)
        assert not torch.equal(*(weights(trained, name, "r", "latest")["head.weight"] for name in ("tiny", "reblur")))
        tested = test_options(trained, tiny_options)
        tested["path"]["pretrain_network_r"] = str(trained / "experiments" / "reblur" / "models" / "net_r_latest.pth")
        tested["val"] |= {"reblurred": True, "save_img": False}
        del tested["val"]["tta"]
        testing.test(tested, trained)
        with (trained / "results" / "tiny_test" / "tiny_set.csv").open() as file:
            rows = {(row["image"], row["stage"]): float(row["psnr"]) for row in csv.DictReader(file)}
        # By hand from the written networks: M_R(M_D(B)) in 8 bits against B.
        from reblur_plugin.archs.reblur_arch import ReblurNet
        from reblur_plugin.archs.resunet_arch import ResUNet

        deblur_net, reblur_net = ResUNet(1, (4, 4, 4)), ReblurNet(1, 4)
        deblur_net.load_state_dict(weights(trained, "tiny", "g", "latest"))
        reblur_net.load_state_dict(weights(trained, "reblur", "r", "latest"))
        blurry = cv2.imread(str(trained / "data" / "test" / "SEQ_A" / "blur_gamma" / "000000.png"))[..., ::-1]
        tensor = torch.from_numpy(np.ascontiguousarray(blurry.transpose(2, 0, 1)))[None].float() / 255
        with torch.no_grad():
            reblurred = (reblur_net(deblur_net(tensor)).clamp(0, 1) * 255).round()
        mse = ((reblurred - tensor * 255) ** 2).mean().item()
        assert rows["SEQ_A/000000", "reblurred"] == pytest.approx(10 * math.log10(255**2 / mse), rel=1e-6)


class TestTesting:
    def test_scores_and_shows_every_stage(self, trained: Path, tiny_options: Options) -> None:
        testing.test(test_options(trained, tiny_options), trained)
        results = trained / "results" / "tiny_test"
        with (results / "tiny_set.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [(row["image"], row["stage"]) for row in rows] == [
            (f"SEQ_{sequence}/000000", stage) for sequence in "AB" for stage in ("blurry", "deblurred", "adapted")
        ]
        for sequence in "AB":
            folder = results / "visualization" / "tiny_set" / f"SEQ_{sequence}"
            assert {path.name for path in folder.iterdir()} == {
                "000000.png",
                "000000_adapted.png",
                "000000_comparison.png",
            }

    def test_the_score_is_that_of_the_written_picture(self, trained: Path, tiny_options: Options) -> None:
        testing.test(test_options(trained, tiny_options), trained)
        results = trained / "results" / "tiny_test"
        with (results / "tiny_set.csv").open() as file:
            scores = {(row["image"], row["stage"]): float(row["psnr"]) for row in csv.DictReader(file)}
        sharp = cv2.imread(str(trained / "data" / "test" / "SEQ_A" / "sharp" / "000000.png")).astype(float)
        for stage, suffix in (("deblurred", ""), ("adapted", "_adapted")):
            picture = cv2.imread(str(results / "visualization" / "tiny_set" / "SEQ_A" / f"000000{suffix}.png"))
            psnr = 10 * math.log10(255**2 / ((picture.astype(float) - sharp) ** 2).mean())
            assert scores["SEQ_A/000000", stage] == pytest.approx(psnr, rel=1e-9)

    def test_images_are_shared_out_to_processes_each_once(self, trained: Path, tiny_options: Options) -> None:
        from reblur_plugin.engine.preparation import prepare
        from reblur_plugin.evaluation.request import Request
        from reblur_plugin.evaluation.validation import evaluate
        from reblur_plugin.models.reblur_model import ReblurModel

        opt, datasets = prepare(test_options(trained, tiny_options), trained, is_train=False)
        model = ReblurModel(opt)
        seen = []
        for rank in (0, 1):
            model.opt |= {"rank": rank, "world_size": 2}
            seen += list(evaluate(model, datasets["test"], Request.of(model.opt, "tiny_set")).images)
        assert sorted(seen) == ["SEQ_A/000000", "SEQ_B/000000"]

    def test_photographs_without_a_sharp_partner_get_the_scores_that_need_none(
        self, trained: Path, tiny_options: Options
    ) -> None:
        options = test_options(trained, tiny_options)
        options["datasets"]["test"] |= {
            "layout": "photographs",
            "dataroot": str(trained / "data" / "test" / "SEQ_A" / "blur_gamma"),
        }
        options["val"]["metrics"]["niqe"] = {"type": "reblur_niqe"}
        testing.test(options, trained)
        with (trained / "results" / "tiny_test" / "tiny_set.csv").open() as file:
            row = next(csv.DictReader(file))
        assert (row["image"], row["psnr"], row["niqe"]) == ("000000", "", "nan")


class TestBasicSRsOwnPipelines:
    def test_its_train_pipeline_runs_reblur_model(self, tmp_path: Path, tiny_options: Options) -> None:
        log = _run_in_basicsr(tmp_path, tiny_options, "train")
        assert "l_r_sharp" in log
        assert "rho" in log
        models = tmp_path / "experiments" / "tiny" / "models"
        assert {path.name for path in models.iterdir()} == {
            f"net_{label}_{iteration}.pth" for label in "gr" for iteration in ("2", "latest")
        }

    def test_it_runs_the_options_that_our_training_has_stored(self, tmp_path: Path, tiny_options: Options) -> None:
        tiny_options["train"] |= {"total_epoch": 1, "scheduler": {"type": "MultiStepLR", "milestones": ["50%"]}}
        del tiny_options["train"]["total_iter"], tiny_options["datasets"]["train"]["name"]
        del tiny_options["datasets"]["train"]["num_worker_per_gpu"]
        del tiny_options["val"]["save_img"], tiny_options["logger"]["use_tb_logger"], tiny_options["manual_seed"]
        training.train(tiny_options, tmp_path)
        stored = yaml.safe_load((tmp_path / "experiments" / "tiny" / "tiny.yml").read_text())
        _run_in_basicsr(tmp_path, {**stored, "name": "again"}, "train")
        assert (tmp_path / "experiments" / "again" / "models" / "net_r_2.pth").is_file()

    def test_its_test_pipeline_adapts(self, trained: Path, tiny_options: Options) -> None:
        log = _run_in_basicsr(trained, test_options(trained, tiny_options), "test")
        assert "adapted" in log
        assert (trained / "results" / "tiny_test" / "tiny_set.csv").is_file()

    def test_its_srmodel_takes_a_frozen_m_r_as_a_loss(self, trained: Path, tiny_options: Options) -> None:
        options = {**tiny_options, "name": "stock", "model_type": "SRModel"}
        del options["network_r"], options["val"]
        options["train"] = {key: options["train"][key] for key in ("total_iter", "optim_g", "scheduler")} | {
            "pixel_opt": {"type": "L1Loss"},
            "perceptual_opt": {
                "type": "FrozenReblurLoss",
                "weights": str(trained / "experiments" / "tiny" / "models" / "net_r_latest.pth"),
                "num_blocks": 1,
                "num_feat": 4,
            },
        }
        del options["datasets"]["val"]
        assert "l_percep" in _run_in_basicsr(trained, options, "train")


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _run_in_basicsr(folder: Path, options: Options, phase: str) -> str:
    """Run BasicSR's unchanged pipeline as a user's own script does; return its log."""
    options = copy.deepcopy(options)
    options["path"].setdefault("resume_state", None)
    (folder / "options.yml").write_text(yaml.safe_dump(options))
    (folder / "main.py").write_text(
        textwrap.dedent(f"""
        import os
        import reblur_plugin
        reblur_plugin.register()
        from basicsr.{phase} import {phase}_pipeline
        {phase}_pipeline(os.getcwd())
        """)
    )
    command = [sys.executable, "main.py", "-opt", "options.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=_environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
