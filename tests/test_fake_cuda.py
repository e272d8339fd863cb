"""On a GPU, as far as tensors without values can tell: no step mixes devices, and none waits more than the first."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_cuda import WORKS, fake_cuda
from torch import nn

import reblur_plugin
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.core.adapt import Adapter, adapt
from reblur_plugin.core.choices import AdaptConfig, AdaptError
from reblur_plugin.core.reblurability import reblurability
from reblur_plugin.data.images import write_image
from reblur_plugin.evaluation.request import Request
from reblur_plugin.evaluation.validation import evaluate
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.photographs import deblurring
from reblur_plugin.photographs.jobs import Job

reblur_plugin.register()
pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith(WORKS) or torch.cuda.is_available(),
    reason="fake tensors of another PyTorch, or a GPU that is there",
)
GPU = torch.device("cuda", 0)
NETWORKS: dict[str, dict[str, Any]] = {
    "U-Net": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
    "SRN": {"type": "SRN", "num_feats": [4, 4, 4]},
    "DMPHN": {"type": "DMPHN", "num_feats": [4, 4, 4]},
    "DHN": {"type": "DHN", "num_feats": [4, 4, 4]},
}


@pytest.fixture
def waits() -> Iterator[list[str]]:
    with fake_cuda() as noted:
        yield noted


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Options of a training as BasicSR's classes get them."""
    return {
        "name": "a",
        "model_type": "ReblurModel",
        "is_train": True,
        "dist": False,
        "rank": 0,
        "world_size": 1,
        "num_gpu": 1,
        "manual_seed": 0,
        "network_g": NETWORKS["U-Net"],
        "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
        "path": {"models": str(tmp_path), "training_states": str(tmp_path)},
        "val": {},
        "datasets": {},
        "logger": {},
        "train": {
            "total_iter": 9,
            "optim_g": {"type": "Adam", "lr": 1e-4},
            "optim_r": {"type": "Adam", "lr": 1e-4},
            "scheduler": {"milestones": [5]},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {},
        },
    }


def adversarial(options: dict[str, Any]) -> None:
    options["network_d"] = {"type": "ReblurDiscriminator"}
    options["train"] |= {"gan_opt": {"type": "GANLoss", "gan_type": "vanilla"}, "optim_d": {"lr": 1e-4}}


CHOICES: dict[str, dict[str, Any]] = {
    "as in the paper": {},
    "deblur first": {"reblur_opt": {"order": "deblur_first"}},
    "S as reference": {"reblur_opt": {"sharp_reference": "real"}},
    "no reference": {"reblur_opt": {"sharp_reference": "none"}},
    "averaged": {"ema_decay": 0.9},
    "clipped": {"grad_clip": 0.2},
    "in parts": {"accumulate": 2},
    "bf16": {"amp": "bf16"},
    "channels last": {"channels_last": True},
    "fused": {f"optim_{label}": {"type": "Adam", "lr": 1e-4, "fused": True} for label in "gr"},
    "SGD": {f"optim_{label}": {"type": "SGD", "lr": 1e-4, "momentum": 0.9} for label in "gr"},
}


def trained(options: dict[str, Any], steps: int, waits: list[str]) -> tuple[ReblurModel, list[int]]:
    """Return a model after some steps, and how often each of them waited."""
    model = ReblurModel(options)
    counts = [len(waits)]
    for iteration in range(1, steps + 1):
        model.feed_data({"lq": torch.rand(2, 3, 32, 32), "gt": torch.rand(2, 3, 32, 32)})
        model.update_learning_rate(iteration, warmup_iter=-1)
        model.optimize_parameters(iteration)
        counts.append(len(waits))
    return model, [after - before for before, after in pairwise(counts)]


class TestTraining:
    @pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
    def test_no_step_mixes_devices_or_waits(
        self, options: dict[str, Any], waits: list[str], choice: dict[str, Any]
    ) -> None:
        options["train"] |= choice
        model, counts = trained(options, 3, waits)
        assert {weight.device for net in (model.net_g, model.net_r) for weight in net.parameters()} == {GPU}
        assert counts[1:] == [0, 0]

    @pytest.mark.parametrize("network", NETWORKS)
    def test_all_networks_can_be_trained(self, options: dict[str, Any], waits: list[str], network: str) -> None:
        options["network_g"] = NETWORKS[network]
        adversarial(options)
        _, counts = trained(options, 2, waits)
        assert counts[1] == 0

    @pytest.mark.parametrize("fused", [True, False])
    def test_a_state_is_gone_on_from_with_fused_switched(
        self, options: dict[str, Any], waits: list[str], fused: bool
    ) -> None:
        for label in "gr":
            options["train"][f"optim_{label}"]["fused"] = fused
        before, _ = trained(copy.deepcopy(options), 1, waits)
        saved = {label: updater.state_dict() for label, updater in before.updaters.items()}
        for label in "gr":
            options["train"][f"optim_{label}"]["fused"] = not fused
        model = ReblurModel(options)
        for label, updater in model.updaters.items():
            updater.load_state_dict(saved[label])
            places = {
                value.device
                for state in updater.optimizer.state.values()
                for name, value in state.items()
                if isinstance(value, torch.Tensor) and (name != "step" or not fused)
            }
            assert places == {GPU}
        model.feed_data({"lq": torch.rand(2, 3, 32, 32), "gt": torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(2)


class TestAdaptation:
    @pytest.mark.parametrize(
        "choices",
        [
            {},
            {"fused": True},
            {"channels_last": True},
            {"amp": "bf16"},
            {"amp": "auto"},
            {"histogram": "torch"},
            {"optimizer": "sgd"},
            {"target": "current"},
            {"keep": "all"},
            {"max_change": 0.1},
            {"max_memory": 2**33},
        ],
        ids=str,
    )
    def test_waits_equally_often_whatever_the_steps(self, waits: list[str], choices: dict[str, Any]) -> None:
        networks, counts = self.networks(), []
        for steps in (2, 5):
            before = len(waits)
            found = adapt(*networks, torch.rand(1, 3, 32, 32, device=GPU), steps=steps, lr=1e-3, **choices)
            counts.append(len(waits) - before)
            assert found.image.device == GPU
        assert counts[0] >= counts[1]  # planning waits, the first time

    def test_an_image_elsewhere_is_one_sentence(self, waits: list[str]) -> None:
        with pytest.raises(AdaptError, match=r"^deblur_net: expected its weights on the image's device cpu, got "):
            adapt(*self.networks(), torch.rand(1, 3, 32, 32), steps=1)

    def test_frames_are_carried_along(self, waits: list[str]) -> None:
        adapter = Adapter(*self.networks(), steps=1)
        for _ in range(2):
            assert adapter(torch.rand(1, 3, 32, 32, device=GPU)).image.device == GPU

    def networks(self) -> tuple[nn.Module, nn.Module]:
        return ResUNet(1, (4, 4, 4)).to(GPU), ReblurNet(1, 4).to(GPU)


class Images(list[dict[str, Any]]):
    """A data set."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__(items)
        self.opt = {"name": "val"}


class TestUse:
    def test_the_model_deblurs_reblurs_and_adapts(self, options: dict[str, Any], waits: list[str]) -> None:
        model = ReblurModel({**options, "val": {"tta": {"steps": 1}}})
        blurry = torch.rand(1, 3, 32, 32)
        images = [model.deblur(blurry), model.reblur(model.deblur(blurry)), model.adapt(blurry).image]
        assert {image.device for image in images} == {GPU}

    @pytest.mark.parametrize("tta", [None, {"steps": 1}], ids=["deblurred", "adapted"])
    def test_a_validation_scores_each_stage_of_each_size(
        self, options: dict[str, Any], waits: list[str], tmp_path: Path, tta: dict[str, Any] | None
    ) -> None:
        model = ReblurModel({**options, "val": {"tta": tta}})
        images = [torch.rand(3, *size) for size in ((32, 32), (32, 32), (32, 48))]
        items = [{"name": f"{i}", "lq_path": f"{i}.png", "lq": image, "gt": image} for i, image in enumerate(images)]
        request = Request(
            metrics={"rb": {"type": "reblurability"}},
            adapts=tta is not None,
            reblurred=True,
            batch_size=2,
            stem=tmp_path.joinpath,
            comparison=True,
        )
        scores = evaluate(model, Images(items), request, model.net_r)
        assert list(scores.images) == ["0", "1", "2"]
        assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path}

    def test_photographs_are_deblurred(self, waits: list[str], tmp_path: Path) -> None:
        source, target = tmp_path / "a.png", tmp_path / "out" / "a.png"
        write_image(source, np.full((32, 48, 3), 90, np.uint8))
        networks = ResUNet(1, (4, 4, 4)), ReblurNet(1, 4)
        job = Job(source, target, tmp_path / "out" / "a_comparison.png")
        assert deblurring.deblur([job], *networks, AdaptConfig(steps=1), GPU) == []
        assert target.is_file()

    def test_reblurability_stays_where_the_image_is(self, waits: list[str]) -> None:
        found = reblurability(ReblurNet(1, 4).to(GPU), torch.rand(1, 3, 32, 32, device=GPU))
        assert found.device == GPU


def test_what_mixes_devices_and_what_waits_is_seen(waits: list[str]) -> None:
    network = nn.Conv2d(3, 3, 1).to(GPU)
    with pytest.raises(RuntimeError, match="device"):
        network(torch.rand(1, 3, 8, 8))
    float(network(torch.rand(1, 3, 8, 8, device=GPU)).sum())
    assert len(waits) == 1
