"""Size of a network: parameters and multiply-adds, counted without computing anything."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights of `network`."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_macs(network: nn.Module, height: int, width: int, channels: int = 3) -> int:
    """Return the multiply-adds of all convolutions for one image `(1, channels, height, width)`.

    Biases, activations and resizing aren't counted, as in the literature. Runs on PyTorch's meta device: no memory,
    no time, whatever the size.
    """
    total = 0

    def count(layer: nn.Conv2d | nn.ConvTranspose2d, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        positions = output if isinstance(layer, nn.Conv2d) else inputs[0]  # a transposed one works at each input pixel
        total += positions.shape[0] * positions.shape[-2] * positions.shape[-1] * layer.weight.numel()

    network = copy.deepcopy(network).to("meta")
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(1, channels, height, width, device="meta"))
    return total
