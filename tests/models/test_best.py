"""ReblurModel's validation: who is best, which networks are kept, what is written. The scores are given by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from reblur_plugin.evaluation.request import Request
from reblur_plugin.evaluation.scores import Scores, TraceRow
from reblur_plugin.models import reblur_model
from reblur_plugin.models.best import comparable
from reblur_plugin.models.reblur_model import ReblurModel


class Model:
    """Stands in for ReblurModel, whose `validation` it has."""

    validation, _keep_best = ReblurModel.validation, ReblurModel._keep_best
    net_r, is_compiled = None, True

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt, self.is_train, self.saved = opt, opt["is_train"], list[str]()
        self.asked: list[tuple[Request, Any]] = []
        self.best_metric_results: dict[str, Any] = {}

    def save_networks(self, name: str) -> None:
        self.saved.append(name)


@pytest.fixture
def opt(tmp_path: Path) -> dict[str, Any]:
    """Options of a training with two validation sets."""
    return {
        "is_train": True,
        "datasets": {
            "train": {"name": "t", "phase": "train"},
            "val": {"name": "first", "phase": "val"},
            "val_2": {"name": "second", "phase": "val"},
        },
        "path": {"visualization": str(tmp_path / "pictures"), "log": str(tmp_path)},
        "val": {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
    }


@pytest.fixture(autouse=True)
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Return the scores that the deblurred image will have; those of the adapted one are higher by 10."""
    values = {"psnr": 20.0}

    def evaluate(model: Model, dataset: Any, request: Request, reblur_net: Any) -> Scores:
        model.asked.append((request, reblur_net))
        stages = {"deblurred": dict(values), "adapted": {name: value + 10 for name, value in values.items()}}
        return Scores({"a": stages}, {"a": [TraceRow(0, "deblurred", 1.0, 0.0, 0.0)]})

    monkeypatch.setattr(reblur_model, "evaluate", evaluate)
    return values


def validate(model: Model, name: str, current_iter: int | str, writer: Any = None, save_img: bool = False) -> None:
    model.validation(SimpleNamespace(dataset=SimpleNamespace(opt={"name": name})), current_iter, writer, save_img)


class TestBest:
    def test_it_is_that_of_the_deblurred_image(self, opt: dict[str, Any]) -> None:
        opt["val"]["best"] = "psnr"
        model = Model(opt)
        validate(model, "first", 40)
        assert model.best_metric_results["first"]["psnr"] == {"better": "higher", "val": 20.0, "iter": 40}
        assert model.saved == ["best"]

    @pytest.mark.parametrize(("better", "kept"), [("higher", [1, 2, 2, 4]), ("lower", [1, 1, 3, 3])])
    def test_it_follows_the_metrics_direction(
        self, opt: dict[str, Any], scored: dict[str, float], better: str, kept: list[int]
    ) -> None:
        opt["val"]["best"] = "psnr"
        opt["val"]["metrics"]["psnr"]["better"] = better
        model = Model(opt)
        for iteration, (value, expected) in enumerate(zip((20.0, 21.0, 19.0, 22.0), kept, strict=True), 1):
            scored["psnr"] = value
            validate(model, "first", iteration)
            assert model.best_metric_results["first"]["psnr"]["iter"] == expected
        assert len(model.saved) == len(set(kept))

    def test_a_known_metric_knows_its_own(self, opt: dict[str, Any], scored: dict[str, float]) -> None:
        opt["val"]["metrics"] = {"n": {"type": "reblur_niqe"}}
        scored.clear()
        model = Model(opt)
        for iteration, value in enumerate((5.0, 4.0, 6.0)):
            scored["n"] = value
            validate(model, "first", iteration)
        assert model.best_metric_results["first"]["n"] == {"better": "lower", "val": 4.0, "iter": 1}

    def test_the_networks_follow_the_first_set_alone(self, opt: dict[str, Any]) -> None:
        opt["val"]["best"] = "psnr"
        model = Model(opt)
        validate(model, "second", 40)
        assert model.saved == []
        assert model.best_metric_results["second"]["psnr"]["iter"] == 40
        validate(model, "first", 40)
        assert model.saved == ["best"]

    def test_the_first_process_alone_saves(self, opt: dict[str, Any]) -> None:
        opt["val"]["best"] = "psnr"
        model = Model(opt | {"rank": 1, "world_size": 2})
        validate(model, "first", 40)
        assert model.saved == []
        assert model.best_metric_results["first"]["psnr"]["iter"] == 40

    def test_nan_is_never_the_best(self, opt: dict[str, Any], scored: dict[str, float]) -> None:
        model = Model(opt)
        scored["psnr"] = float("nan")
        validate(model, "first", 40)
        assert model.best_metric_results == {"first": {}}

    def test_photographs_have_no_best_psnr(
        self, opt: dict[str, Any], scored: dict[str, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Any] = []
        monkeypatch.setattr(reblur_model.output, "log_means", lambda *given: told.append(given[2]))
        scored.clear()
        model = Model(opt)
        validate(model, "second", 40)
        assert model.best_metric_results["second"] == {}
        assert told == [{}]

    def test_a_metric_that_an_older_state_lacks_begins_anew(self, opt: dict[str, Any]) -> None:
        model = Model(opt)
        model.best_metric_results = {"first": {"ssim": {"better": "higher", "val": 0.5, "iter": 20}}}
        validate(model, "first", 40)
        assert set(model.best_metric_results["first"]) == {"ssim", "psnr"}

    def test_options_stay_as_they_are(self, opt: dict[str, Any]) -> None:
        validate(Model(opt), "first", 40)
        assert opt["val"]["metrics"] == {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


def test_networks_compute_as_they_are_written(opt: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # photographs come in many sizes: none of them is worth a translation of M_D or M_R
    stances: list[str] = []

    def evaluate(*_: Any) -> Scores:
        stances.append(torch._dynamo.eval_frame._stance.stance)
        return Scores({})

    monkeypatch.setattr(reblur_model, "evaluate", evaluate)
    loader = SimpleNamespace(dataset=SimpleNamespace(opt={"name": "first"}))
    Model(opt).validation(loader, 1, None)
    assert stances == ["force_eager"]


class TestFiles:
    def test_a_test_writes_tables_by_its_first_process(self, opt: dict[str, Any], tmp_path: Path) -> None:
        for rank, expected in ((1, set()), (0, {"first.csv", "first_trace.csv"})):
            validate(Model(opt | {"is_train": False, "rank": rank, "world_size": 2}), "first", "x")
            assert {path.name for path in tmp_path.iterdir()} == expected

    def test_training_writes_none_but_curves(self, opt: dict[str, Any], tmp_path: Path) -> None:
        drawn = {}
        writer = SimpleNamespace(add_scalar=lambda name, value, step: drawn.update({name: (value, step)}))
        validate(Model(opt), "first", 4, writer)
        assert list(tmp_path.iterdir()) == []
        assert drawn == {"metrics/first/psnr": (20.0, 4), "metrics/first/psnr_adapted": (30.0, 4)}

    def test_pictures_are_asked_for_by_their_iteration(self, opt: dict[str, Any], tmp_path: Path) -> None:
        model = Model(opt)
        model.net_r = torch.nn.DataParallel(torch.nn.Identity())  # type: ignore[assignment]
        validate(model, "first", 0, save_img=True)
        validate(model, "first", 0)
        (shown, own_net), (hidden, _) = model.asked
        assert shown.stem is not None
        assert shown.stem("SEQ/1") == tmp_path / "pictures" / "SEQ" / "1" / "1_0"
        assert hidden.stem is None
        assert isinstance(own_net, torch.nn.Identity)


class TestComparable:
    BEST = {"first": {"psnr": {"better": "higher", "val": 30.0, "iter": 4}}}  # noqa: RUF012
    BEFORE = {"first": {"data": "1234", "metrics": {"psnr": {"crop_border": 0}}}}  # noqa: RUF012

    def test_a_best_of_the_same_data_and_options_stays(self) -> None:
        assert comparable(self.BEST, self.BEFORE, self.BEFORE) == (self.BEST, [])

    def test_a_best_of_other_data_is_forgotten_and_told(self) -> None:
        now = {"first": {**self.BEFORE["first"], "data": "5678"}}
        told = "first: the best psnr so far, 30.0000 of iteration 4, is of other data: forgotten"
        assert comparable(self.BEST, self.BEFORE, now) == ({"first": {}}, [told])

    def test_a_best_by_other_options_of_its_metric_is_forgotten(self) -> None:
        now = {"first": {**self.BEFORE["first"], "metrics": {"psnr": {"crop_border": 2}, "ssim": {}}}}
        kept, (note,) = comparable(self.BEST, self.BEFORE, now)
        assert (kept, "other options of the metric" in note) == ({"first": {}}, True)

    def test_the_best_of_a_set_that_isnt_validated_now_stays(self) -> None:
        assert comparable(self.BEST, self.BEFORE, {}) == (self.BEST, [])

    def test_states_that_dont_tell_by_what_they_judged_keep_their_best(self) -> None:
        assert comparable(self.BEST, {}, self.BEFORE) == (self.BEST, [])
