"""Losses that can't stand where an option block puts them are refused before a training begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin.host import registry
from reblur_plugin.models.criteria import Criteria, ReblurModelError

reblur_plugin.register()


class ThreeImages(nn.Module):
    """A loss of more than the output and its target."""

    def forward(self, output: Tensor, sharp: Tensor, blurry: Tensor) -> Tensor:
        return (output - sharp + blurry).mean()


@pytest.fixture
def registered() -> Iterator[None]:
    registry.LOSS_REGISTRY.register(ThreeImages)
    yield
    del registry.LOSS_REGISTRY._obj_map["ThreeImages"]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("key", ["pixel_opt", "perceptual_opt"])
@pytest.mark.parametrize("loss", [{"type": "ThreeImages"}, {"type": "GANLoss", "gan_type": "vanilla"}])
def test_a_loss_of_other_arguments_is_refused(key: str, loss: dict[str, Any]) -> None:
    message = rf"^train: {key}: type: expected a loss of \(output, sharp\), got {loss['type']}$"
    with pytest.raises(ReblurModelError, match=message):
        Criteria.build({key: loss}, torch.device("cpu"))
