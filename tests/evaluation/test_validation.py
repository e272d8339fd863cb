"""Validation with a model whose every stage is a flat grey of its own, so that each score says where it came from."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor

import reblur_plugin
from reblur_plugin.errors import MetricError
from reblur_plugin.evaluation import validation
from reblur_plugin.evaluation.journal import Entry, Journal
from reblur_plugin.evaluation.scores import Scores, stage_after
from reblur_plugin.evaluation.scoring import try_metrics
from reblur_plugin.evaluation.validation import validate

reblur_plugin.register()

BLURRY, SHARP = 50, 200
STEPS = (100, 110, 120, 130)  # L^0 ... L^3
PSNR = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}


def grey(level: float, size: tuple[int, int] = (16, 24)) -> Tensor:
    """Return a flat image `(1, 3, H, W)` of that grey level."""
    return torch.full((1, 3, *size), level / 255)


def psnr(level: float, reference: float = SHARP) -> float:
    """Return the PSNR of one flat image against another, by its definition."""
    return 20 * math.log10(255 / abs(level - reference))


class Model:
    """Stands in for ReblurModel: M_D gives grey 100, each step of adaptation 10 more, M_R takes 5 away."""

    def __init__(self, opt: dict[str, Any], tta: bool = False) -> None:
        self.opt, self.tta = opt, object() if tta else None
        self.saved: list[str] = []
        self.device = torch.device("cpu")
        self.net_r: Any = None
        self.astray: str | None = None
        self.best_metric_results: dict[str, Any] = {}

    def deblur(self, blurry: Tensor) -> Tensor:
        return blurry + (STEPS[0] - BLURRY) / 255

    def reblur(self, deblurred: Tensor) -> Tensor:
        return deblurred - 5 / 255

    def adapt(self, blurry: Tensor) -> Any:
        images = [blurry + (level - BLURRY) / 255 for level in STEPS]
        losses: list[float | None] = [0.5, 0.25, 0.125, None]
        steps = [SimpleNamespace(number=i, loss=loss, change=i / 8, seconds=i / 4) for i, loss in enumerate(losses)]
        return SimpleNamespace(
            image=images[-1], initial=images[0], steps=steps, after=lambda number: images[number], fallback=self.astray
        )

    def get_bare_model(self, network: Any) -> Any:
        return network

    def save_networks(self, name: str) -> None:
        self.saved.append(name)


class Images(list[dict[str, Any]]):
    """Stands in for a data set."""

    def __init__(self, name: str, count: int = 1, with_sharp: bool = True, size: tuple[int, int] = (16, 24)) -> None:
        sharp = {"gt": grey(SHARP, size)[0]} if with_sharp else {}
        super().__init__(
            {"name": f"SEQ/{i}", "lq_path": f"SEQ/{i}.png", "lq": grey(BLURRY, size)[0], **sharp} for i in range(count)
        )
        self.opt = {"name": name}


@pytest.fixture
def opt(tmp_path: Path) -> dict[str, Any]:
    """Options of a test; `train` makes a training of them."""
    return {
        "is_train": False,
        "datasets": {"val": {"name": "first", "phase": "val"}, "val_2": {"name": "second", "phase": "val"}},
        "path": {"visualization": str(tmp_path / "pictures"), "log": str(tmp_path)},
        "val": {"metrics": dict(PSNR)},
    }


@pytest.fixture
def train(opt: dict[str, Any]) -> dict[str, Any]:
    return opt | {"is_train": True, "datasets": {"train": {"name": "t", "phase": "train"}, **opt["datasets"]}}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


class Recorder:
    """Stands in for TensorBoard's writer."""

    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, Any]] = {}

    def add_scalar(self, name: str, value: float, step: Any) -> None:
        self.scalars[name] = (value, step)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What BasicSR's logger is told."""
    from basicsr.utils import get_root_logger

    logger, lines = get_root_logger(), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)


class TestStages:
    def test_each_stage_is_scored_by_its_own_image(self, opt: dict[str, Any]) -> None:
        opt["val"] |= {"input_metrics": True, "reblurred": True}
        scores = validate(Model(opt, tta=True), Images("first"), "x", None, False)
        expected = {
            "blurry": psnr(BLURRY),
            "deblurred": psnr(100),
            "adapted": psnr(130),
            # M_R(L), of the deblurred image and not of the adapted one, against the blurry image: 100 - 5 against 50
            "reblurred": psnr(95, BLURRY),
        }
        assert {stage: value["psnr"] for stage, value in scores.images["SEQ/0"].items()} == pytest.approx(expected)
        assert scores.stages() == list(expected)

    def test_steps_asked_for_are_stages_of_their_own(self, opt: dict[str, Any]) -> None:
        opt["val"]["adapted_steps"] = [0, 1, 3]
        scores = validate(Model(opt, tta=True), Images("first"), "x", None, False)
        assert {stage: value["psnr"] for stage, value in scores.images["SEQ/0"].items()} == pytest.approx(
            {"deblurred": psnr(100), "adapted_1": psnr(110), "adapted": psnr(130)}
        )

    def test_without_adaptation_there_is_one(self, opt: dict[str, Any]) -> None:
        scores = validate(Model(opt), Images("first"), "x", None, False)
        assert scores.images["SEQ/0"] == {"deblurred": {"psnr": pytest.approx(psnr(100))}}

    def test_names_of_stages(self) -> None:
        assert [stage_after(number, 3) for number in range(4)] == ["deblurred", "adapted_1", "adapted_2", "adapted"]
        assert stage_after(0, 0) == "deblurred"


class TestPictures:
    @pytest.fixture
    def levels(self, opt: dict[str, Any], tmp_path: Path) -> dict[str, int]:
        """Return the grey levels of the written pictures by their names."""
        opt["val"] |= {"adapted_steps": [1], "reblurred": True, "suffix": "mine"}
        validate(Model(opt, tta=True), Images("first"), "x", None, True)
        pictures = (tmp_path / "pictures").rglob("*.png")
        return {str(path.relative_to(tmp_path / "pictures")): int(cv2.imread(str(path))[3, 4, 1]) for path in pictures}

    def test_each_stage_has_its_own_beside_that_of_the_deblurred_image(self, levels: dict[str, int]) -> None:
        assert levels == {
            "first/SEQ/0_mine.png": 100,
            "first/SEQ/0_mine_adapted_1.png": 110,
            "first/SEQ/0_mine_adapted.png": 130,
            "first/SEQ/0_mine_reblurred.png": 95,
        }

    def test_in_training_they_carry_the_iteration_and_no_suffix(self, train: dict[str, Any], tmp_path: Path) -> None:
        train["val"]["suffix"] = "mine"
        validate(Model(train), Images("first"), 40, None, True)
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")] == ["pictures/SEQ/0/0_40.png"]

    def test_the_comparison_shows_all_stages(self, opt: dict[str, Any], tmp_path: Path) -> None:
        opt["val"] |= {"comparison": True, "adapted_steps": [1]}
        validate(Model(opt, tta=True), Images("first"), "x", None, True)
        picture = cv2.imread(str(tmp_path / "pictures" / "first" / "SEQ" / "0_comparison.png"))
        assert picture.shape[1] == 5 * 480  # blurry, deblurred, adapted_1, adapted, sharp
        assert [int(level) for level in picture[-5, 240::480, 0]] == [BLURRY, 100, 110, 130, SHARP]


class TestBatches:
    """Images of one size beside each other go through M_D at once, unless they adapt."""

    @pytest.fixture
    def passes(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        sizes: list[int] = []
        deblur = Model.deblur

        def counted(self: Model, blurry: Tensor) -> Tensor:
            sizes.append(len(blurry))
            return deblur(self, blurry)

        monkeypatch.setattr(Model, "deblur", counted)
        return sizes

    @pytest.fixture
    def images(self) -> Images:
        """Five images, the third of another size, each with a grey level of its own."""
        images = Images("first", count=5)
        images[2] |= {"lq": grey(BLURRY, (24, 16))[0], "gt": grey(SHARP, (24, 16))[0]}
        for i, item in enumerate(images):
            item["lq"] = item["lq"] + i / 255
        return images

    @pytest.mark.parametrize(("size", "expected"), [(None, [1] * 5), (2, [2, 1, 2]), (3, [2, 1, 2])])
    def test_every_image_has_its_own_scores_and_pictures(
        self,
        opt: dict[str, Any],
        passes: list[int],
        images: Images,
        tmp_path: Path,
        size: int | None,
        expected: list[int],
    ) -> None:
        opt["val"] |= {"input_metrics": True} | ({} if size is None else {"batch_size": size})
        scores = validate(Model(opt), images, "x", None, True)
        assert passes == expected
        assert list(scores.images) == [f"SEQ/{i}" for i in range(5)]
        for i in range(5):
            stages = {stage: values["psnr"] for stage, values in scores.images[f"SEQ/{i}"].items()}
            assert stages == pytest.approx({"blurry": psnr(BLURRY + i), "deblurred": psnr(100 + i)})
            assert cv2.imread(str(tmp_path / "pictures" / "first" / "SEQ" / f"{i}.png"))[0, 0, 0] == 100 + i

    def test_what_has_been_read_is_scored_before_the_next_one_fails(
        self, opt: dict[str, Any], passes: list[int], images: Images
    ) -> None:
        images[3].clear()
        opt["val"]["batch_size"] = 2
        with pytest.raises(KeyError, match="lq"):
            validate(Model(opt), images, "x", None, False)
        assert passes == [2]
        opt["val"]["batch_size"] = 1
        with pytest.raises(KeyError, match="lq"):
            validate(Model(opt), images, "x", None, False)
        assert passes == [2, 1, 1, 1]

    def test_metrics_go_where_the_model_is(
        self, opt: dict[str, Any], images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = []
        scored = validation.scored
        monkeypatch.setattr(validation, "scored", lambda *given: (devices.append(given[2]), scored(*given))[1])
        model = Model(opt)
        validate(model, images, "x", None, False)
        assert {id(device) for device in devices} == {id(model.device)}

    def test_images_adapt_one_by_one(
        self, opt: dict[str, Any], images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        adapt = Model.adapt
        monkeypatch.setattr(Model, "adapt", lambda self, blurry: (sizes.append(len(blurry)), adapt(self, blurry))[1])
        opt["val"]["batch_size"] = 4
        validate(Model(opt, tta=True), images, "x", None, False)
        assert sizes == [1] * 5


class TestTables:
    def test_a_test_writes_scores_and_the_trace(self, opt: dict[str, Any], tmp_path: Path) -> None:
        opt["val"]["adapted_steps"] = [1]
        validate(Model(opt, tta=True), Images("first", count=2), "x", None, False)
        assert [(row["image"], row["stage"]) for row in rows(tmp_path / "first.csv")] == [
            (f"SEQ/{image}", stage) for image in (0, 1) for stage in ("deblurred", "adapted_1", "adapted")
        ]
        trace = rows(tmp_path / "first_trace.csv")
        assert list(trace[0]) == ["image", "step", "loss", "change", "seconds", "psnr"]
        assert [list(row.values())[:5] for row in trace[4:]] == [
            ["SEQ/1", "0", "0.5", "0.0", "0.000"],
            ["SEQ/1", "1", "0.25", "0.125", "0.250"],
            ["SEQ/1", "2", "0.125", "0.25", "0.500"],
            ["SEQ/1", "3", "", "0.375", "0.750"],
        ]
        # steps that weren't asked for have no score
        scored = [row["psnr"] and float(row["psnr"]) for row in trace[:4]]
        assert scored == [pytest.approx(psnr(100)), pytest.approx(psnr(110)), "", pytest.approx(psnr(130))]

    @pytest.mark.parametrize(("count", "lines"), [(2, 2), (7, 6)])
    def test_images_that_stay_unadapted_are_told(
        self, opt: dict[str, Any], said: list[str], count: int, lines: int
    ) -> None:
        model = Model(opt, tta=True)
        model.astray = "nan or infinity after step 2"
        validate(model, Images("first", count), "x", None, False)
        told = [line for line in said if "unadapted" in line]
        assert told[0] == "first: SEQ/0 stays unadapted: nan or infinity after step 2"
        assert len(told) == lines
        assert count < 6 or told[-1] == "first: 7 images stay unadapted"

    def test_without_adaptation_there_is_no_trace(self, opt: dict[str, Any], tmp_path: Path) -> None:
        validate(Model(opt), Images("first"), "x", None, False)
        assert [path.name for path in tmp_path.iterdir()] == ["first.csv"]

    def test_training_writes_none(self, train: dict[str, Any], tmp_path: Path) -> None:
        validate(Model(train, tta=True), Images("first"), 4, None, False)
        assert list(tmp_path.iterdir()) == []

    def test_images_without_a_value_dont_count_in_the_mean(self) -> None:
        values = {"a": 2.0, "b": math.nan, "c": 4.0}
        scores = Scores({name: {"deblurred": {"niqe": value}} for name, value in values.items()})
        scores.images["d"] = {"deblurred": {}}
        assert scores.mean("deblurred", "niqe") == 3.0
        assert math.isnan(Scores({"b": {"deblurred": {"niqe": math.nan}}}).mean("deblurred", "niqe"))

    def test_the_table_has_the_columns_that_exist_and_a_dash_where_there_is_no_value(self) -> None:
        scores = Scores({"a": {"deblurred": {"niqe": 5.0}, "adapted_1": {"niqe": math.nan}, "reblurred": {"psnr": 30}}})
        assert scores.table().splitlines() == [
            "             niqe     psnr",
            "deblurred  5.0000        -",
            "adapted_1       -        -",
            "reblurred       -  30.0000",
        ]

    def test_tensorboard_gets_each_stage_under_its_name_and_no_nan(self, train: dict[str, Any]) -> None:
        train["val"]["metrics"] |= {"niqe": {"type": "reblur_niqe"}}  # nan on flat images
        recorder = Recorder()
        validate(Model(train, tta=True), Images("first"), 40, recorder, False)
        assert recorder.scalars == {
            "metrics/first/psnr": (pytest.approx(psnr(100)), 40),
            "metrics/first/psnr_adapted": (pytest.approx(psnr(130)), 40),
        }


class TestBest:
    def test_it_is_that_of_the_deblurred_image(self, train: dict[str, Any]) -> None:
        train["val"]["best"] = "psnr"
        model = Model(train, tta=True)
        validate(model, Images("first"), 40, None, False)
        found = model.best_metric_results["first"]["psnr"]
        assert found == {"better": "higher", "val": pytest.approx(psnr(100)), "iter": 40}
        assert model.saved == ["best"]

    @pytest.mark.parametrize(("better", "kept"), [("higher", [1, 2, 2, 4]), ("lower", [1, 1, 3, 3])])
    def test_it_follows_the_metrics_direction(
        self, train: dict[str, Any], monkeypatch: pytest.MonkeyPatch, better: str, kept: list[int]
    ) -> None:
        train["val"] |= {"best": "psnr", "metrics": {"psnr": PSNR["psnr"] | {"better": better}}}
        model = Model(train)
        for iteration, (level, expected) in enumerate(zip((100, 110, 90, 120), kept, strict=True), 1):
            monkeypatch.setattr(model, "deblur", lambda _, level=level: grey(level))
            validate(model, Images("first"), iteration, None, False)
            assert model.best_metric_results["first"]["psnr"]["iter"] == expected
        assert len(model.saved) == len(set(kept))

    def test_the_networks_follow_the_first_set_alone(self, train: dict[str, Any]) -> None:
        train["val"]["best"] = "psnr"
        model = Model(train)
        validate(model, Images("second"), 40, None, False)
        assert model.saved == []
        assert model.best_metric_results["second"]["psnr"]["iter"] == 40
        validate(model, Images("first"), 40, None, False)
        assert model.saved == ["best"]

    def test_photographs_have_no_best_psnr(self, train: dict[str, Any], said: list[str]) -> None:
        train["val"]["metrics"] |= {"niqe": {"type": "reblur_niqe"}}
        model = Model(train)
        validate(model, Images("second", with_sharp=False), 40, None, False)
        assert model.best_metric_results["second"] == {}
        assert "second, 1 images" in said[-1]
        assert not re.search("inf|Best|psnr", said[-1])

    def test_a_metric_that_an_older_state_lacks_begins_anew(self, train: dict[str, Any]) -> None:
        model = Model(train)
        model.best_metric_results = {"first": {"ssim": {"better": "higher", "val": 0.5, "iter": 20}}}
        validate(model, Images("first"), 40, None, False)
        assert set(model.best_metric_results["first"]) == {"ssim", "psnr"}

    def test_a_first_set_without_sharp_images_cant_choose_by_psnr(self, train: dict[str, Any]) -> None:
        train["val"]["best"] = "psnr"
        with pytest.raises(MetricError, match="val: best: psnr needs sharp images, and first, the first validation"):
            try_metrics(Images("first", with_sharp=False), train)
        try_metrics(Images("second", with_sharp=False), train)
        train["val"] |= {"best": "niqe", "metrics": {"niqe": {"type": "reblur_niqe"}}}
        try_metrics(Images("first", with_sharp=False), train)


class TestReblurability:
    """The metric takes the model's M_R where its block names no other."""

    class Halving(torch.nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 3, 1, bias=False)
            self.weight = torch.nn.Parameter(0.5 * torch.eye(3)[..., None, None])

    def test_it_is_taken_of_each_stage_by_the_models_own_net(self, opt: dict[str, Any]) -> None:
        opt["val"]["metrics"] = {"left": {"type": "reblurability"}}
        model = Model(opt, tta=True)
        model.net_r = self.Halving()
        scores = validate(model, Images("first", with_sharp=False), "x", None, False)
        assert {stage: value["left"] for stage, value in scores.images["SEQ/0"].items()} == pytest.approx(
            {"deblurred": 50, "adapted": 65}
        )

    def test_it_is_tried_first_unless_the_model_has_the_net(self, opt: dict[str, Any]) -> None:
        opt["val"]["metrics"] = {"left": {"type": "reblurability"}}
        with pytest.raises(MetricError, match=r"reblurability: weights: missing; give net_r_\*\.pth, or network_r"):
            try_metrics(Images("first"), opt)
        try_metrics(Images("first"), opt | {"network_r": {"type": "ReblurNet"}})


class TestSharing:
    def test_each_process_takes_its_share(self, opt: dict[str, Any]) -> None:
        found = [
            list(validate(Model(opt | {"rank": rank, "world_size": 2}), Images("first", 5), "x", None, False).images)
            for rank in (0, 1)
        ]
        assert found == [["SEQ/0", "SEQ/2", "SEQ/4"], ["SEQ/1", "SEQ/3"]]

    def test_what_the_journal_knows_isnt_computed_again(self, opt: dict[str, Any], tmp_path: Path) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        known = {index: Entry(index, f"SEQ/{index}", {"deblurred": {"psnr": -index - 0.1}}, []) for index in (0, 3)}
        for index, rank in ((0, 0), (3, 7)):
            Journal(tmp_path / "journal", rank).add("first", known[index])
        Journal(tmp_path / "journal").add("second", Entry(1, "SEQ/1", {}, []))
        half = validate(Model(opt | {"rank": 0, "world_size": 2}), Images("first", 5), "x", None, False).images
        assert list(half) == [f"SEQ/{i}" for i in (0, 1, 3, 4)]  # 1, 2 and 4 were left: 1 and 4 are its share
        whole = validate(Model(opt), Images("first", 5), "x", None, False).images
        assert list(whole) == [f"SEQ/{i}" for i in range(5)]
        assert [whole[f"SEQ/{i}"]["deblurred"]["psnr"] for i in (0, 3)] == [-0.1, -3.1]
        assert whole["SEQ/2"]["deblurred"]["psnr"] == pytest.approx(psnr(100))

    def test_an_image_is_noted_after_its_pictures(
        self, opt: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        there: list[int] = []
        monkeypatch.setattr(Journal, "add", lambda *_: there.append(len(list(tmp_path.rglob("*.png")))))
        validate(Model(opt), Images("first", 2), "x", None, True)
        assert there == [1, 2]
