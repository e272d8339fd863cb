"""SRN, the scale-recurrent network of Tao et al. (CVPR 2018) as the paper uses it: sRGB, no LSTM (section S1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reblur_plugin.archs.layers import Upsample, conv, padded, res_blocks, upsampler


def _in_block(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    """Encoder stage: conv 5x5, ReLU, three ResBlocks."""
    return nn.Sequential(conv(in_channels, channels, 5, stride), nn.ReLU(), *res_blocks(3, channels, 5))


class SRN(nn.Module):
    """SRN without LSTM: three passes of one encoder-decoder over H/4, H/2 and H, each fed with the last result.

    `(B, C, H, W)` in [0, 1] to three deblurred images, finest first: `(B, C, H, W)`, half and quarter size (rounded
    up). The image handed to the next scale carries no gradient. 7,086,339 parameters with PixelShuffle, 6,881,251
    with the original transposed convolutions; 1199.0 and 1174.3 G multiply-adds for 1280x720.

    Args:
        num_feats: channels at H, H/2 and H/4 of each scale.
        num_channels: image channels C.
        upsample: "pixelshuffle", or "deconv" with the original's 4x4 kernels (D1).
        multi_scale_output: False returns the finest image alone, for pipelines that expect one tensor.
    """

    def __init__(
        self,
        num_feats: Sequence[int] = (32, 64, 128),
        num_channels: int = 3,
        upsample: Upsample = "pixelshuffle",
        multi_scale_output: bool = True,
    ) -> None:
        super().__init__()
        full, half, quarter = num_feats
        self.enc1 = _in_block(2 * num_channels, full, 1)
        self.enc2 = _in_block(full, half, 2)
        self.enc3 = _in_block(half, quarter, 2)
        self.dec3 = nn.Sequential(
            OrderedDict(body=res_blocks(3, quarter, 5), up=upsampler(quarter, half, upsample, 4), relu=nn.ReLU())
        )
        self.dec2 = nn.Sequential(
            OrderedDict(body=res_blocks(3, half, 5), up=upsampler(half, full, upsample, 4), relu=nn.ReLU())
        )
        self.dec1 = nn.Sequential(OrderedDict(body=res_blocks(3, full, 5), tail=conv(full, num_channels, 5)))
        self.multi_scale_output = multi_scale_output

    def forward(self, x: Tensor) -> list[Tensor] | Tensor:
        """Return M_D(B) at the scales 1, 1/2, 1/4, or at 1 alone."""
        images = padded(self._deblur, x, 16)
        height, width = x.shape[-2:]
        images = [image[..., : -(-height // s), : -(-width // s)] for image, s in zip(images, (1, 2, 4), strict=True)]
        return images if self.multi_scale_output else images[0]

    def _deblur(self, x: Tensor) -> list[Tensor]:
        images: list[Tensor] = []
        for scale in (4, 2, 1):
            blurry = x if scale == 1 else _resize(x, x.shape[-2] // scale, x.shape[-1] // scale)
            # No gradient from one scale to the next, as in the original.
            previous = _resize(images[0].detach(), *blurry.shape[-2:]) if images else blurry
            images.insert(0, self._one_scale(torch.cat((blurry, previous), dim=1)))
        return images

    def _one_scale(self, x: Tensor) -> Tensor:
        full = self.enc1(x)
        half = self.enc2(full)
        features = self.dec3(self.enc3(half))
        features = self.dec2(features + half)
        return self.dec1(features + full)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)
