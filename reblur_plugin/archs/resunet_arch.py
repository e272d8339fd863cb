"""The baseline residual U-Net (Fig. S1, Table S1); with 4, 8, 16 or 32 blocks it is M_D of Table 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from reblur_plugin.archs.layers import Upsample, conv, padded, res_blocks, upsampler, zero_


class ResUNet(nn.Module):
    """Residual U-Net of Table S1: `(B, C, H, W)` in [0, 1] to the deblurred `(B, C, H, W)`, any H and W.

    6,796,803 parameters with the defaults; 463.25 G multiply-adds for 1280x720.

    Args:
        num_blocks: ResBlocks at H/4 (rows 4-19: 8).
        num_feats: channels at H, H/2, H/4.
        num_channels: image channels C.
        upsample: rows 20 and 21 as conv 3x3 + "pixelshuffle", or as a 3x3 "deconv" (D1).
        skips: add the outputs of rows 2 and 1 behind rows 20 and 21 (D2).
        global_skip: add the input to the output and start as the identity: for short runs, not in the paper (D12).
    """

    def __init__(
        self,
        num_blocks: int = 8,
        num_feats: Sequence[int] = (64, 128, 192),
        num_channels: int = 3,
        upsample: Upsample = "pixelshuffle",
        skips: bool = True,
        global_skip: bool = False,
    ) -> None:
        super().__init__()
        full, half, quarter = num_feats
        self.head = conv(num_channels, full, 5)  # Table S1, row 1
        self.down1 = conv(full, half, 3, stride=2)  # row 2
        self.down2 = conv(half, quarter, 3, stride=2)  # row 3
        self.body = res_blocks(num_blocks, quarter, 3)  # rows 4-19
        self.up2 = upsampler(quarter, half, upsample, deconv_kernel=3)  # row 20
        self.up1 = upsampler(half, full, upsample, deconv_kernel=3)  # row 21
        self.tail = conv(full, num_channels, 5)  # row 22
        self.skips = skips
        self.global_skip = global_skip
        if global_skip:
            zero_(self.tail)

    def forward(self, x: Tensor) -> Tensor:
        """Return M_D(B)."""
        return padded(self._deblur, x, 4)[..., : x.shape[-2], : x.shape[-1]]

    def _deblur(self, x: Tensor) -> Tensor:
        full = self.head(x - 0.5)  # mean shift
        half = self.down1(full)
        features = self.body(self.down2(half))
        features = self.up2(features)
        if self.skips:
            features = features + half
        features = self.up1(features)
        if self.skips:
            features = features + full
        image = self.tail(features)
        return x + image if self.global_skip else image + 0.5
