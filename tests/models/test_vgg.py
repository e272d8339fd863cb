"""L_VGG through BasicSR's PerceptualLoss at the paper's weight, with a small stand-in for VGG19's download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import reblur_plugin
from reblur_plugin.host import build_loss
from reblur_plugin.options import reading

reblur_plugin.register()


@pytest.fixture
def random_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """VGG19's layers without its 500 MB of classifier and without a download: widths divided by 16."""

    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            channels = 3
            for width in torchvision.models.vgg.cfgs["E"]:
                if width == "M":
                    layers.append(nn.MaxPool2d(2))
                else:
                    layers += [nn.Conv2d(channels, int(width) // 16, 3, padding=1), nn.ReLU(inplace=True)]
                    channels = int(width) // 16
            self.features = nn.Sequential(*layers)

    monkeypatch.setattr(torchvision.models.vgg, "vgg19", lambda **_: Narrow())


def test_the_options_block_is_l1_between_conv5_4_features_times_three_tenths(random_vgg: None, root: Path) -> None:
    block: dict[str, Any] = reading.read(root / "options" / "gopro_srn_vgg_n2.yml")["train"]["perceptual_opt"]
    loss = build_loss(block)
    images = torch.rand(2, 1, 3, 32, 32)
    # By hand: ImageNet's mean and deviation, then VGG19's features up to and with its 16th convolution, no ReLU.
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).reshape(2, 1, 3, 1, 1)
    layers = list(loss.vgg.vgg_net.children())
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 16
    assert isinstance(layers[-1], nn.Conv2d)
    features = [nn.Sequential(*layers)((image - mean) / deviation) for image in images]
    value, style = loss(*images)
    torch.testing.assert_close(value, 0.3 * (features[0] - features[1]).abs().mean())
    assert style is None
