"""The pieces that all networks of the paper share: convolution, ResBlock, upsampler, padding to a multiple."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from reblur_plugin.errors import ReblurError

Upsample = Literal["pixelshuffle", "deconv"]
Output = TypeVar("Output")


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with bias that keeps H x W, or divides it by `stride`."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)


class ResBlock(nn.Module):
    """x + conv(ReLU(conv(x))): no normalisation, no activation behind the sum (Fig. S1)."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels, kernel_size), nn.ReLU(), conv(channels, channels, kernel_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `(B, C, H, W)` for `(B, C, H, W)`."""
        return x + self.body(x)


def res_blocks(count: int, channels: int, kernel_size: int) -> nn.Sequential:
    """Return `count` separate ResBlocks in a row."""
    return nn.Sequential(*(ResBlock(channels, kernel_size) for _ in range(count)))


def upsampler(in_channels: int, out_channels: int, upsample: Upsample, deconv_kernel: int) -> nn.Module:
    """Return a layer that doubles H and W (D1): conv 3x3 + PixelShuffle, or a transposed convolution.

    Raises:
        ReblurError: for another `upsample`.
    """
    if upsample == "pixelshuffle":
        return nn.Sequential(conv(in_channels, 4 * out_channels, 3), nn.PixelShuffle(2))
    if upsample == "deconv":
        odd = deconv_kernel % 2
        return nn.ConvTranspose2d(in_channels, out_channels, deconv_kernel, stride=2, padding=1, output_padding=odd)
    raise ReblurError(f"upsample: expected one of {', '.join(get_args(Upsample))}, got {upsample!r}")


def padded(network: Callable[[Tensor], Output], x: Tensor, rows: int, columns: int | None = None) -> Output:
    """Return `network(x)` with H padded to a multiple of `rows` and W of `columns`, by repeating the edge (D3).

    The caller crops the result.
    """
    height, width = x.shape[-2:]
    bottom, right = -height % rows, -width % (columns or rows)
    if bottom or right:
        x = F.pad(x, (0, right, 0, bottom), mode="replicate")
    return network(x)


def zero_(layer: nn.Conv2d) -> None:
    """Set a layer to zero, so that a network with a global skip starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
