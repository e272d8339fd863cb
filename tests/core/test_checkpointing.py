"""Checkpointing changes what is remembered, not what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.archs.dmphn_arch import DHN
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core.checkpointing import checkpointed
from reblur_plugin.core.objectives import finest
from reblur_plugin.errors import ReblurError

NETWORKS = {
    "U-Net": lambda: ResUNet(2, (8, 8, 8)),
    "SRN": lambda: SRN((4, 4, 4)),
    "DHN": lambda: DHN(num_feats=(4, 4, 4)),
}


def gradients(network: nn.Module, depth: int | None, image: Tensor) -> tuple[list[Tensor], int]:
    """Return the gradient of every weight, and the bytes that autograd was given to keep before the backward pass."""
    network.zero_grad()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), checkpointed(network, depth):
        loss = finest(network(image)).square().mean()
        size = sum(kept.values())
        loss.backward()
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None], size


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_gradients_are_the_same_to_the_bit(name: str, depth: int) -> None:
    network, image = NETWORKS[name](), torch.rand(1, 3, 24, 20)
    expected, _ = gradients(network, None, image)
    found, _ = gradients(network, depth, image)
    assert len(found) == len(expected)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("name", "depth"), [("U-Net", 0), ("SRN", 1), ("DHN", 1)])
def test_less_is_remembered(name: str, depth: int) -> None:
    network, image = NETWORKS[name](), torch.rand(1, 3, 64, 64)
    assert gradients(network, depth, image)[1] < 0.8 * gradients(network, None, image)[1]


def test_parts_inside_module_lists_are_found() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(2))

        def forward(self, image: Tensor) -> Tensor:
            for block in self.blocks:
                image = block(image)
            return image

    network = Listed()
    runs: list[int] = []
    for block in network.blocks:
        block[0].register_forward_hook(lambda *_: runs.append(1))
    gradients(network, 1, torch.rand(1, 3, 4, 4))
    assert len(runs) == 4  # each block once more in the backward pass


def test_single_layers_are_not_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, image: (runs.append(1), forward(layer, image))[1])
    gradients(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), 1, torch.rand(1, 3, 4, 4))
    assert len(runs) == 2


def test_the_network_is_given_back_as_it_was_also_after_an_exception() -> None:
    network = ResUNet(1, (4, 4, 4))

    def own(image: Tensor) -> Tensor:
        return image

    network.body.forward = own
    network.tail.register_forward_hook(lambda *_: pytest.fail("stopped"))
    with checkpointed(network, 1), pytest.raises(pytest.fail.Exception):
        network(torch.rand(1, 3, 8, 8))
    assert network.body.__dict__["forward"] is own
    assert not any("forward" in part.__dict__ for part in network.modules() if part is not network.body)


def test_a_part_that_changes_its_input_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)))
    message = "checkpointing: Sequential changes its input in place and can't be computed twice; leave it out"
    with pytest.raises(ReblurError, match=message):
        gradients(network, 1, torch.rand(1, 3, 4, 4))
