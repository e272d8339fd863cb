"""Validation with a model whose every stage is a flat grey of its own, so that each score says where it came from."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor

import reblur_plugin
from reblur_plugin.engine.preparation import try_metrics
from reblur_plugin.errors import MetricError
from reblur_plugin.evaluation import scoring, validation, workers
from reblur_plugin.evaluation.journal import Entry, Journal
from reblur_plugin.evaluation.request import Request
from reblur_plugin.evaluation.scores import Scores, stage_after
from reblur_plugin.evaluation.validation import evaluate
from reblur_plugin.evaluation.workers import Answer

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

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.device = torch.device("cpu")
        self.net_r: torch.nn.Module | None = None
        self.astray: str | None = None

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


def validate(model: Model, images: Images, pictures_as: int | str | None = None) -> Scores:
    """Return what the model's options ask for."""
    return evaluate(model, images, Request.of(model.opt, images.opt["name"], pictures_as), model.net_r)


def adapting(opt: dict[str, Any]) -> dict[str, Any]:
    return opt | {"val": opt["val"] | {"tta": {"steps": 3}}}


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


class TestStages:
    def test_each_stage_is_scored_by_its_own_image(self, opt: dict[str, Any]) -> None:
        opt["val"] |= {"input_metrics": True, "reblurred": True}
        scores = validate(Model(adapting(opt)), Images("first"))
        expected = {
            "blurry": psnr(BLURRY),
            "deblurred": psnr(100),
            "adapted": psnr(130),
            # M_R(L), of the deblurred image and not of the adapted one, against the blurry image: 100 - 5 against 50
            "reblurred": psnr(95, BLURRY),
            "unchanged": psnr(100, BLURRY),
        }
        assert {stage: value["psnr"] for stage, value in scores.images["SEQ/0"].items()} == pytest.approx(expected)
        assert scores.stages() == list(expected)

    def test_m_r_takes_floats_though_adaptation_gives_bf16(self, opt: dict[str, Any]) -> None:
        class Half(Model):
            def adapt(self, blurry: Tensor) -> Any:
                found = super().adapt(blurry)
                found.initial = found.initial.bfloat16()
                return found

            def reblur(self, deblurred: Tensor) -> Tensor:
                assert deblurred.dtype == torch.float32
                return super().reblur(deblurred)

        opt["val"]["reblurred"] = True
        assert "reblurred" in validate(Half(adapting(opt)), Images("first")).stages()

    def test_steps_asked_for_are_stages_of_their_own(self, opt: dict[str, Any]) -> None:
        opt["val"]["adapted_steps"] = [0, 1, 3]
        scores = validate(Model(adapting(opt)), Images("first"))
        assert {stage: value["psnr"] for stage, value in scores.images["SEQ/0"].items()} == pytest.approx(
            {"deblurred": psnr(100), "adapted_1": psnr(110), "adapted": psnr(130)}
        )

    def test_without_adaptation_there_is_one(self, opt: dict[str, Any]) -> None:
        scores = validate(Model(opt), Images("first"))
        assert scores.images["SEQ/0"] == {"deblurred": {"psnr": pytest.approx(psnr(100))}}

    def test_names_of_stages(self) -> None:
        assert [stage_after(number, 3) for number in range(4)] == ["deblurred", "adapted_1", "adapted_2", "adapted"]
        assert stage_after(0, 0) == "deblurred"


class TestPictures:
    @pytest.fixture
    def levels(self, opt: dict[str, Any], tmp_path: Path) -> dict[str, int]:
        """Return the grey levels of the written pictures by their names."""
        opt["val"] |= {"adapted_steps": [1], "reblurred": True, "suffix": "mine"}
        validate(Model(adapting(opt)), Images("first"), "x")
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
        validate(Model(train), Images("first"), 40)
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")] == ["pictures/SEQ/0/0_40.png"]

    def test_the_comparison_shows_all_stages(self, opt: dict[str, Any], tmp_path: Path) -> None:
        opt["val"] |= {"comparison": True, "adapted_steps": [1]}
        validate(Model(adapting(opt)), Images("first"), "x")
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
        scores = validate(Model(opt), images, "x")
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
            validate(Model(opt), images)
        assert passes == [2]
        opt["val"]["batch_size"] = 1
        with pytest.raises(KeyError, match="lq"):
            validate(Model(opt), images)
        assert passes == [2, 1, 1, 1]

    def test_metrics_go_where_the_model_is(
        self, opt: dict[str, Any], images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        devices = []
        scorer = validation.Scorer
        monkeypatch.setattr(validation, "Scorer", lambda *given: (devices.append(given[1]), scorer(*given))[1])
        model = Model(opt)
        validate(model, images)
        assert devices == [model.device]
        assert devices[0] is model.device

    def test_images_adapt_one_by_one(
        self, opt: dict[str, Any], images: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes = []
        adapt = Model.adapt
        monkeypatch.setattr(Model, "adapt", lambda self, blurry: (sizes.append(len(blurry)), adapt(self, blurry))[1])
        opt["val"]["batch_size"] = 4
        validate(Model(adapting(opt)), images)
        assert sizes == [1] * 5


class TestReblurability:
    """The metric takes the model's M_R where its block names no other."""

    class Halving(torch.nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 3, 1, bias=False)
            self.weight = torch.nn.Parameter(0.5 * torch.eye(3)[..., None, None])

    def test_it_is_taken_of_each_stage_by_the_models_own_net(self, opt: dict[str, Any]) -> None:
        opt["val"]["metrics"] = {"left": {"type": "reblurability"}}
        model = Model(adapting(opt))
        model.net_r = self.Halving()
        scores = validate(model, Images("first", with_sharp=False))
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
            list(validate(Model(opt | {"rank": rank, "world_size": 2}), Images("first", 5)).images) for rank in (0, 1)
        ]
        assert found == [["SEQ/0", "SEQ/2", "SEQ/4"], ["SEQ/1", "SEQ/3"]]

    def test_what_the_journal_knows_isnt_computed_again(self, opt: dict[str, Any], tmp_path: Path) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        known = {index: Entry(index, f"SEQ/{index}", {"deblurred": {"psnr": -index - 0.1}}, []) for index in (0, 3)}
        for index, rank in ((0, 0), (3, 7)):
            Journal(tmp_path / "journal", rank).add("first", known[index])
        Journal(tmp_path / "journal").add("second", Entry(1, "SEQ/1", {}, []))
        half = validate(Model(opt | {"rank": 0, "world_size": 2}), Images("first", 5)).images
        assert list(half) == [f"SEQ/{i}" for i in (0, 1, 3, 4)]  # 1, 2 and 4 were left: 1 and 4 are its share
        whole = validate(Model(opt), Images("first", 5)).images
        assert list(whole) == [f"SEQ/{i}" for i in range(5)]
        assert [whole[f"SEQ/{i}"]["deblurred"]["psnr"] for i in (0, 3)] == [-0.1, -3.1]
        assert whole["SEQ/2"]["deblurred"]["psnr"] == pytest.approx(psnr(100))

    def test_an_image_is_noted_after_its_pictures(
        self, opt: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        there: list[int] = []
        monkeypatch.setattr(Journal, "add", lambda *_: there.append(len(list(tmp_path.rglob("*.png")))))
        validate(Model(opt), Images("first", 2), "x")
        assert there == [1, 2]


class Late:
    """Stands in for worker processes: of two images the second one's scores are there first."""

    def __init__(self, count: int) -> None:
        self.submitted: list[tuple[Future[Answer], Any]] = []

    def submit(self, *request: Any) -> Future[Answer]:
        future: Future[Answer] = Future()
        self.submitted.append((future, request))
        if len(self.submitted) % 2 == 0:
            for other, asked in reversed(self.submitted[-2:]):
                other.set_result(workers._answer("pictures", *asked))
        return future

    def close(self) -> None:
        """Images whose scores aren't there lose them."""


class TestWhileScoresAreComputed:
    """The next images are deblurred meanwhile; an image is noted once its scores are there."""

    @pytest.fixture(autouse=True)
    def late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scoring, "Workers", Late)
        monkeypatch.setattr(validation, "workers_for", lambda *_: 1)

    @pytest.fixture
    def images(self) -> Images:
        """Six images, each with a grey level of its own."""
        images = Images("first", count=6)
        for i, item in enumerate(images):
            item["lq"] = item["lq"] + i / 255
        return images

    def test_every_image_has_its_own_in_the_order_of_the_set(
        self, opt: dict[str, Any], images: Images, tmp_path: Path
    ) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        scores = validate(Model(opt), images)
        assert {name: stages["deblurred"]["psnr"] for name, stages in scores.images.items()} == pytest.approx(
            {f"SEQ/{i}": psnr(100 + i) for i in range(6)}
        )
        noted = (tmp_path / "journal" / "0.jsonl").read_text().split("\n")
        assert [json.loads(line)["index"] for line in noted if line] == list(range(6))

    def test_an_interruption_leaves_those_whose_scores_are_there(
        self, opt: dict[str, Any], images: Images, tmp_path: Path
    ) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        whole = validate(Model(opt), images)
        shutil.rmtree(tmp_path / "journal")

        class Stopped(Images):
            def __getitem__(self, index: int) -> Any:
                if index == 5:
                    raise KeyboardInterrupt
                return images[index]

        with pytest.raises(KeyboardInterrupt):
            validate(Model(opt), Stopped("first", 6), "x")
        # the fifth is deblurred and its picture written, but it waits for its score
        assert (tmp_path / "pictures" / "first" / "SEQ" / "4.png").exists()
        assert [entry.index for entry in Journal(tmp_path / "journal").entries("first")] == [0, 1, 2, 3]
        assert validate(Model(opt), images) == whole

    def test_an_error_leaves_all_before_it(
        self, opt: dict[str, Any], images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opt["path"]["journal"] = str(tmp_path / "journal")
        submit = Late.submit

        def arriving(self: Late, *request: Any) -> Future[Answer]:
            future = submit(self, *request)
            if len(self.submitted) == 5:  # its partner never comes: it arrives while it is waited for
                threading.Timer(0.1, lambda: future.set_result(workers._answer("pictures", *request))).start()
            return future

        monkeypatch.setattr(Late, "submit", arriving)
        images[5].clear()
        with pytest.raises(KeyError, match="lq"):
            validate(Model(opt), images)
        assert [entry.index for entry in Journal(tmp_path / "journal").entries("first")] == [0, 1, 2, 3, 4]


def test_so_many_images_wait_for_their_scores_and_no_more() -> None:
    events = []

    class Waiting:
        def __init__(self, index: int) -> None:
            self.index = index

        def done(self) -> bool:
            return False

        def result(self) -> dict[str, float]:
            events.append(f"scored {self.index}")
            return {}

    def begin() -> Iterator[list[Any]]:
        for i in range(4):
            events.append(f"begun {i}")
            yield [validation._Begun(Entry(i, str(i), {}, []), {"deblurred": Waiting(i)})]  # type: ignore[dict-item]

    assert [entry.index for entry in validation._scored(begin(), 2)] == [0, 1, 2, 3]
    assert events == [*(f"begun {i}" for i in range(3)), "scored 0", "begun 3", *(f"scored {i}" for i in (1, 2, 3))]
