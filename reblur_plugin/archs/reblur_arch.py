"""The reblurring module M_R (Fig. S1, Table S3)."""

from __future__ import annotations

from torch import Tensor, nn

from reblur_plugin.archs.layers import conv, res_blocks, zero_


class ReblurNet(nn.Module):
    """Reblurring module M_R of Table S3: `(B, C, H, W)` in [0, 1] to the reblurred `(B, C, H, W)`, no strides.

    `num_blocks` is the n of L_Reblur,n: 214,595 parameters for n1, 419,523 for n2; receptive field 17 and 25 pixels.

    Args:
        num_blocks: ResBlocks with 5x5 kernels at full resolution (rows 2-5: 2).
        num_feat: channels inside (64).
        num_channels: image channels C.
        global_skip: add the input to the output and start as the identity: for short runs, not in the paper (D12).
    """

    def __init__(
        self, num_blocks: int = 2, num_feat: int = 64, num_channels: int = 3, global_skip: bool = False
    ) -> None:
        super().__init__()
        self.head = conv(num_channels, num_feat, 5)  # Table S3, row 1
        self.body = res_blocks(num_blocks, num_feat, 5)  # rows 2-5, at H x W (D4)
        self.tail = conv(num_feat, num_channels, 5)  # row 6
        self.global_skip = global_skip
        if global_skip:
            zero_(self.tail)

    def forward(self, x: Tensor) -> Tensor:
        """Return M_R(x)."""
        image = self.tail(self.body(self.head(x - 0.5)))  # mean shift
        return x + image if self.global_skip else image + 0.5
