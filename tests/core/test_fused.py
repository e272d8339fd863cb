"""Fused Adam beside PyTorch's plain one, in every layout of weights and gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from reblur_plugin.core.fused import FusedAdam

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = [(6, 5, 3, 3), (4, 3, 1, 1), (1, 3, 5, 5), (7,), (4, 3)]
CHOICES = {"lr": 0.1, "weight_decay": 0.01}


def weights(layout: str) -> list[nn.Parameter]:
    torch.manual_seed(0)
    values = [torch.randn(shape) for shape in SHAPES]
    return [nn.Parameter(v.to(memory_format=FORMATS[layout]) if v.ndim == 4 else v) for v in values]


def moved(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, layout: str, steps: int) -> None:
    for step in range(steps):
        torch.manual_seed(100 + step)
        for weight in parameters:
            gradient = torch.randn(weight.shape)
            weight.grad = gradient.to(memory_format=FORMATS[layout]) if gradient.ndim == 4 else gradient
        optimizer.step()


@pytest.mark.parametrize(("layout", "gradients"), list(product(FORMATS, FORMATS)))
@pytest.mark.parametrize("amsgrad", [False, True])
def test_takes_adams_steps_whatever_lies_how(layout: str, gradients: str, amsgrad: bool) -> None:
    expected, found = weights("contiguous"), weights(layout)
    moved(expected, torch.optim.Adam(expected, amsgrad=amsgrad, **CHOICES), "contiguous", 3)
    moved(found, FusedAdam(found, amsgrad=amsgrad, fused=True, **CHOICES), gradients, 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert [weight.stride() for weight in found] == [weight.stride() for weight in weights(layout)]


@pytest.mark.parametrize("layout", FORMATS)
def test_states_are_adams(layout: str) -> None:
    found, expected = weights(layout), weights("contiguous")
    adam, reference = FusedAdam(found, fused=True, **CHOICES), torch.optim.Adam(expected, **CHOICES)
    moved(found, adam, layout, 2)
    moved(expected, reference, "contiguous", 2)
    for index, state in reference.state_dict()["state"].items():
        torch.testing.assert_close(adam.state_dict()["state"][index], state, rtol=1e-5, atol=1e-6)
