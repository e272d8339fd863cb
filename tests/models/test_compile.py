"""`train: compile`: what torch.compile translates takes the same steps."""

from __future__ import annotations

import copy
import sys
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin.errors import ReblurError
from reblur_plugin.models.reblur_model import ReblurModel

reblur_plugin.register()


@pytest.fixture(autouse=True)
def quick_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Translate without a C compiler: the graph and its gradients are traced as for any backend."""
    torch._dynamo.reset()
    monkeypatch.setenv("CXX", sys.executable)  # found, never run
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))


def model(is_compiled: bool, order: str = "reblur_first") -> ReblurModel:
    torch.manual_seed(1)
    descent = {"type": "SGD", "lr": 0.05}
    opt: dict[str, Any] = {"is_train": True, "dist": False, "rank": 0, "world_size": 1, "num_gpu": 0, "path": {}}
    opt |= {
        "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": (4, 6, 8)},
        "network_r": {"type": "ReblurNet", "num_blocks": 2, "num_feat": 4},
        "train": {
            "optim_g": descent,
            "optim_r": descent,
            "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {"order": order},
            "compile": is_compiled,
        },
    }
    return ReblurModel(copy.deepcopy(opt))


def trained(is_compiled: bool, images: dict[str, Tensor], order: str, iterations: int) -> ReblurModel:
    made = model(is_compiled, order)
    for iteration in range(1, iterations + 1):
        made.feed_data(images)
        made.optimize_parameters(iteration)
    return made


@pytest.fixture
def images() -> dict[str, Tensor]:
    return {"lq": torch.rand(4, 3, 16, 16), "gt": torch.rand(4, 3, 16, 16)}


@pytest.mark.parametrize("order", ["reblur_first", "deblur_first"])
def test_compiled_networks_take_the_same_step(images: dict[str, Tensor], order: str) -> None:
    compiled, plain = (
        [weight.detach() for network in (made.net_g, made.net_r) for weight in network.parameters()]
        for made in (trained(is_compiled, images, order, 2) for is_compiled in (True, False))
    )
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-7)  # sums in another order


def test_networks_are_compiled_where_it_is_asked_for_and_names_of_weights_stay() -> None:
    compiled, plain = model(True), model(False)
    for network in ("net_g", "net_r"):
        assert getattr(compiled, network)._compiled_call_impl is not None
        assert getattr(plain, network)._compiled_call_impl is None
        state = getattr(compiled, network).state_dict()
        assert list(state) == list(getattr(plain, network).state_dict())
        getattr(plain, network).load_state_dict(state)


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    with pytest.raises(ReblurError, match=r"train: compile: expected a C\+\+ compiler, found no no-such-compiler"):
        model(True)
    model(False)


def test_photographs_are_deblurred_uncompiled(images: dict[str, Tensor]) -> None:
    made = trained(True, images, "reblur_first", 1)
    frames = torch._dynamo.utils.counters["frames"]["total"]
    deblurred = made.deblur(torch.rand(1, 3, 20, 36))
    made.reblur(deblurred)
    assert torch._dynamo.utils.counters["frames"]["total"] == frames > 0
