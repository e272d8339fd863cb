"""The discriminator of L_Adv (Tables 5, S5), as in the first author's earlier work (Nah et al., CVPR 2017)."""

from __future__ import annotations

from torch import Tensor, nn

_LAYERS = ((32, 1), (32, 2), (64, 1), (64, 2), (128, 1), (128, 4), (256, 1), (256, 4), (512, 1), (512, 4))


class ReblurDiscriminator(nn.Module):
    """Ten 5x5 convolutions with LeakyReLU(0.2), no bias, no normalisation, and a 1x1 classifier (D7).

    `(B, C, H, W)` in [0, 1] to logits `(B, 1, ceil(H/256), ceil(W/256))`: one number for the training patch of 256.

    Args:
        num_channels: image channels C.
    """

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = num_channels
        for out_channels, stride in _LAYERS:
            layers += [nn.Conv2d(channels, out_channels, 5, stride, padding=2, bias=False), nn.LeakyReLU(0.2)]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: positive for "real"."""
        return self.classifier(self.features(x - 0.5))
