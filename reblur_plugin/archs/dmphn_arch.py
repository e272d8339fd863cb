"""DMPHN(1-2-4-8) of Zhang et al. (CVPR 2019) and DHN, the paper's version of it without patches (section S1).

The layers keep the published names (layer1 ... layer24), so that the official checkpoints load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from reblur_plugin.archs.layers import Upsample, conv, padded, upsampler

Grid = tuple[int, int]


class _Residual(nn.Sequential):
    """x + conv(ReLU(conv(x))) with the published parameter names `0` and `2`."""

    def __init__(self, channels: int) -> None:
        super().__init__(conv(channels, channels, 3), nn.ReLU(), conv(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _Encoder(nn.Sequential):
    """`(B, C, H, W)` to features `(B, 128, H/4, W/4)`; no activation outside the residual blocks."""

    def __init__(self, num_channels: int, num_feats: Sequence[int]) -> None:
        super().__init__()
        full, half, quarter = num_feats
        self.layer1 = conv(num_channels, full, 3)
        self.layer2, self.layer3 = _Residual(full), _Residual(full)
        self.layer5 = conv(full, half, 3, stride=2)
        self.layer6, self.layer7 = _Residual(half), _Residual(half)
        self.layer9 = conv(half, quarter, 3, stride=2)
        self.layer10, self.layer11 = _Residual(quarter), _Residual(quarter)


class _Decoder(nn.Sequential):
    """Features `(B, 128, H/4, W/4)` to `(B, C, H, W)`; no activation outside the residual blocks."""

    def __init__(self, num_channels: int, num_feats: Sequence[int], upsample: Upsample) -> None:
        super().__init__()
        full, half, quarter = num_feats
        self.layer13, self.layer14 = _Residual(quarter), _Residual(quarter)
        self.layer16 = upsampler(quarter, half, upsample, deconv_kernel=4)
        self.layer17, self.layer18 = _Residual(half), _Residual(half)
        self.layer20 = upsampler(half, full, upsample, deconv_kernel=4)
        self.layer21, self.layer22 = _Residual(full), _Residual(full)
        self.layer24 = conv(full, num_channels, 3)


class DHN(nn.Module):
    """Four levels of encoder and decoder, coarse to fine, each on the whole image: `(B, C, H, W)` to `(B, C, H, W)`.

    Level i sees the blurry image plus the residual that level i + 1 found, and its features are added to those of
    that level; level 1 gives the image. 7,232,524 parameters with the original's transposed convolutions (which the
    official checkpoints need), 8,052,876 with PixelShuffle; 916.1 and 991.6 G multiply-adds for 1280x720.

    Args:
        upsample: "deconv" with 4x4 kernels, or "pixelshuffle" (D1).
        num_feats: channels at H, H/2, H/4.
        num_channels: image channels C.
    """

    # Patches (rows, columns) that levels 1-4 encode; a level's features are decoded on the grid of the level above it.
    grids: tuple[Grid, Grid, Grid, Grid] = ((1, 1), (1, 1), (1, 1), (1, 1))

    def __init__(
        self, upsample: Upsample = "deconv", num_feats: Sequence[int] = (32, 64, 128), num_channels: int = 3
    ) -> None:
        super().__init__()
        for level in (1, 2, 3, 4):
            self.add_module(f"encoder_lv{level}", _Encoder(num_channels, num_feats))
            self.add_module(f"decoder_lv{level}", _Decoder(num_channels, num_feats, upsample))

    def forward(self, x: Tensor) -> Tensor:
        """Return M_D(B)."""
        rows, columns = self.grids[3]
        return padded(self._deblur, x, 4 * rows, 4 * columns)[..., : x.shape[-2], : x.shape[-1]]

    def _deblur(self, x: Tensor) -> Tensor:
        blurry = x - 0.5  # mean shift
        features = self._encode(4, blurry)
        for level in (3, 2, 1):
            residual = self._decode(level + 1, features)
            features = self._encode(level, blurry + residual) + features
        return self._decode(1, features) + 0.5

    def _encode(self, level: int, image: Tensor) -> Tensor:
        return _patchwise(self.get_submodule(f"encoder_lv{level}"), image, self.grids[level - 1])

    def _decode(self, level: int, features: Tensor) -> Tensor:
        return _patchwise(self.get_submodule(f"decoder_lv{level}"), features, self.grids[max(level - 2, 0)])


class DMPHN(DHN):
    """DHN as first published: levels 1-4 see the image in 1, 2, 4 and 8 patches (Table S2, first row)."""

    grids = ((1, 1), (2, 1), (2, 2), (4, 2))


def _patchwise(network: Callable[[Tensor], Tensor], x: Tensor, grid: Grid) -> Tensor:
    """Apply `network` to each patch of a grid by itself and put the results together again."""
    rows, columns = grid
    if rows == columns == 1:
        return network(x)
    patches = _merge_into_batch(x, rows, columns)
    return _split_from_batch(network(patches), rows, columns)


def _merge_into_batch(x: Tensor, rows: int, columns: int) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, rows, height // rows, columns, width // columns)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, height // rows, width // columns)


def _split_from_batch(patches: Tensor, rows: int, columns: int) -> Tensor:
    _, channels, height, width = patches.shape
    x = patches.reshape(-1, rows, columns, channels, height, width)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, rows * height, columns * width)
