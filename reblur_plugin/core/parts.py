"""A photograph in parts that fit into memory: tiles with halo, and parts of a network that compute twice.

Along each axis a tile computes the pixels `start ... stop`, of which `own_start ... own_stop` are its own: those of all
tiles cover the image once. The rest is halo, which gives the own pixels the surroundings that a network looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reblur_plugin.core.device import give_back
from reblur_plugin.errors import ReblurError

ALIGN = 16  # tiles begin at multiples of it: networks with strides that divide it have the phase of the whole image
FEATHER = 8  # pixels on each side of a border between tiles in which their images are blended
REACH = 160  # the largest halo that is looked for
_ACROSS = 4 * ALIGN  # pixels across the strips on which networks are measured
_LONGEST = 2 * (REACH + 6 * ALIGN)
STRIP = _ACROSS * _LONGEST  # pixels of the largest one
VISIBLE = 0.5 / 255  # what tiles may change at most: less than rounding to 8 bits does
_UNCHANGED = 1e-5  # of the unit range: what surroundings may change and count as out of reach; an 8-bit step is 4e-3


@dataclass(frozen=True)
class Tiling:
    """How a photograph is cut: rows and columns of tiles, pixels of halo around each tile's own."""

    rows: int = 1
    columns: int = 1
    halo: int = ALIGN

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ReblurError(f"tiling: expected at least one row and column, got {self.rows} and {self.columns}")
        if self.halo < ALIGN or self.halo % ALIGN:
            raise ReblurError(f"tiling: expected a halo that is a multiple of {ALIGN} pixels, got {self.halo}")


@dataclass(frozen=True)
class Span:
    """A tile along one axis of `length` pixels."""

    start: int
    own_start: int
    own_stop: int
    stop: int
    length: int

    @property
    def own(self) -> slice:
        """Return the own pixels, counted from `start`."""
        return slice(self.own_start - self.start, self.own_stop - self.start)

    def weights(self) -> Tensor:
        """Return each pixel's weight in the blended image, `(stop - start,)`: those of all tiles add up to 1."""
        position = torch.arange(self.start, self.stop) + 0.5
        weights = torch.ones(self.stop - self.start)
        if self.own_start > 0:
            weights *= ((position - self.own_start) / (2 * FEATHER) + 0.5).clamp(0, 1)
        if self.own_stop < self.length:
            weights *= ((self.own_stop - position) / (2 * FEATHER) + 0.5).clamp(0, 1)
        return weights


@dataclass(frozen=True)
class Tile:
    """A rectangle of a photograph with its halo."""

    rows: Span
    columns: Span

    def crop(self, image: Tensor) -> Tensor:
        """Return the tile of an image `(..., H, W)`, halo included."""
        return image[..., self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]

    def own(self, cropped: Tensor) -> Tensor:
        """Return the own pixels of what was computed on `crop`."""
        return cropped[..., self.rows.own, self.columns.own]

    @property
    def share(self) -> float:
        """Return the own pixels' share of the photograph."""
        height, width = (span.own_stop - span.own_start for span in (self.rows, self.columns))
        return height * width / (self.rows.length * self.columns.length)

    @property
    def weights(self) -> Tensor:
        """Return each pixel's weight in the blended image, `(h, w)`."""
        return self.rows.weights()[:, None] * self.columns.weights()


def cut(height: int, width: int, tiling: Tiling) -> list[Tile]:
    """Return the tiles of a photograph, row by row; no more of them than there are multiples of `ALIGN`."""
    rows, columns = _spans(height, tiling.rows, tiling.halo), _spans(width, tiling.columns, tiling.halo)
    return [Tile(row, column) for row in rows for column in columns]


def pixels(height: int, width: int, tiling: Tiling) -> tuple[int, int]:
    """Return how many pixels the largest tile has, and all tiles together."""
    rows, columns = _spans(height, tiling.rows, tiling.halo), _spans(width, tiling.columns, tiling.halo)
    heights, widths = ([span.stop - span.start for span in spans] for spans in (rows, columns))
    return max(heights) * max(widths), sum(heights) * sum(widths)


@lru_cache(maxsize=1024)  # planning asks for every number of rows with every number of columns
def _spans(length: int, count: int, halo: int) -> list[Span]:
    blocks = -(-length // ALIGN)
    count = min(count, blocks)
    borders = [min(length, ALIGN * (index * blocks // count)) for index in range(count + 1)]
    return [
        Span(max(0, start - halo), start, stop, min(length, stop + halo), length) for start, stop in pairwise(borders)
    ]


class Mosaic:
    """The image that tiles make together. A single tile is the image; several are blended, so that no seam shows."""

    def __init__(self, tiles: list[Tile]) -> None:
        self._single = len(tiles) == 1
        self._size = tiles[0].rows.length, tiles[0].columns.length
        self._image: Tensor | None = None

    def put(self, tile: Tile, deblurred: Tensor) -> None:
        """Add what was computed on a tile, `(1, C, h, w)`."""
        if self._single:
            self._image = deblurred
            return
        if deblurred.dtype in (torch.float16, torch.bfloat16):
            deblurred = deblurred.float()
        if self._image is None:
            self._image = deblurred.new_zeros(*deblurred.shape[:2], *self._size)
        tile.crop(self._image).add_(deblurred * tile.weights.to(deblurred))

    def image(self) -> Tensor:
        """Return the whole image; every tile must have been put."""
        if self._image is None:
            raise RuntimeError("mosaic: no tile was put")
        return self._image


@torch.no_grad()
def halo(chain: Callable[[Tensor], Tensor], channels: int, like: Tensor) -> int:
    """Return the pixels of halo that a network needs: as far as it looks, and the blended pixels behind that.

    Measured on strips of noise, along and across: from how close the image may be cut off before a pixel in the middle
    changes. That also sees what gradient doesn't show (SRN detaches its coarse scales). Up to `REACH` is looked for;
    what a network sees beyond it is missing at the borders of its tiles (`seam`).

    Args:
        chain: all that is computed on a tile, such as x -> M_R(M_D(x)).
        channels: of the image.
        like: a tensor of the device and dtype to use.
    """
    noise = _noise(channels, 2 * REACH + ALIGN).to(like)
    return max(_reach(along, noise) for along in (chain, _across(chain))) + ALIGN


def _reach(chain: Callable[[Tensor], Tensor], noise: Tensor) -> int:
    """Return how far a network looks along the columns of `noise`, `(1, C, H, 2 REACH + ALIGN)`."""
    expected = chain(noise)[..., REACH:-REACH]

    def unchanged(reach: int) -> bool:
        margin = REACH - reach
        found = chain(noise[..., margin : noise.shape[-1] - margin])
        return bool((found[..., reach:-reach] - expected).abs().max() <= _UNCHANGED)

    low, high = ALIGN, REACH  # a bisection in steps of ALIGN
    while low < high:
        middle = (low + high) // (2 * ALIGN) * ALIGN
        low, high = (low, middle) if unchanged(middle) else (middle + ALIGN, high)
    return low


@torch.no_grad()
def seam(chain: Callable[[Tensor], Tensor], channels: int, like: Tensor, halo: int) -> float:
    """Return how much two tiles with that halo differ from the whole image at most, as a part of the unit range.

    It is 0 but for rounding where the networks see no farther than the halo. Of networks that look at the whole image
    (global pooling, statistics or attention over all pixels, patches that are parts of the image), that see farther
    than tiles have halo or that have strides beyond `ALIGN` it isn't. Measured on noise that brightens from one tile to
    the other, along and across, on a short strip (means differ most) and a long one (512 pixels: how far is seen);
    arguments as for `halo`.
    """
    short = 2 * (halo + 5 * ALIGN)  # the second tile begins at an odd multiple of ALIGN
    strips = [_brightening(channels, length).to(like) for length in {short, max(short, _LONGEST)}]
    return max(_change(along, strip, halo) for along in (chain, _across(chain)) for strip in strips)


def _brightening(channels: int, length: int) -> Tensor:
    return 0.8 * torch.linspace(0, 1, length) + 0.2 * _noise(channels, length)


def _change(chain: Callable[[Tensor], Tensor], image: Tensor, halo: int) -> float:
    """Return the largest difference between two tiles and the whole of a strip."""
    tiles = cut(image.shape[-2], image.shape[-1], Tiling(1, 2, halo))
    mosaic = Mosaic(tiles)
    for tile in tiles:
        give_back()
        mosaic.put(tile, chain(tile.crop(image)))
    give_back()
    return float((mosaic.image() - chain(image)).abs().max())


def _across(chain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return what `chain` makes of the transposed image, transposed back."""
    return lambda image: chain(image.mT.contiguous()).mT


def _noise(channels: int, length: int) -> Tensor:
    return torch.rand(1, channels, _ACROSS, length, generator=torch.Generator().manual_seed(0))


@contextmanager
def checkpointed(network: nn.Module, depth: int | None) -> Iterator[None]:
    """Checkpoint the parts of `network` that lie `depth` levels below it: 0 is the network as a whole, None nothing.

    Gradients stay the same. Single layers are left alone: they have nothing inside to forget.

    Raises:
        ReblurError: (in the forward pass) if a part changes its input in place, which its second run would see.
    """
    parts = [] if depth is None else list(dict.fromkeys(_parts(network, depth)))
    own = {part: part.__dict__.get("forward") for part in parts}
    try:
        for part in parts:
            part.forward = partial(_recomputed, type(part).__name__, part.forward)
        yield
    finally:
        for part, forward in own.items():
            del part.forward
            if forward is not None:
                part.forward = forward


def _parts(module: nn.Module, depth: int) -> Iterator[nn.Module]:
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)):  # never called themselves
        for child in module.children():
            yield from _parts(child, depth)
    elif depth == 0:
        if any(True for _ in module.children()):
            yield module
    else:
        for child in module.children():
            yield from _parts(child, depth - 1)


def _recomputed(name: str, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    tensors = [value for value in (*inputs, *options.values()) if isinstance(value, Tensor)]
    versions = [tensor._version for tensor in tensors]
    output = checkpoint(forward, *inputs, use_reentrant=False, **options)
    if versions != [tensor._version for tensor in tensors]:
        raise ReblurError(f"checkpointing: {name} changes its input in place and can't be computed twice; leave it out")
    return output


@dataclass(frozen=True)
class Plan:
    """The form of the computation; Algorithm 1 stays the same. The default is the whole photograph, all remembered.

    Attributes:
        deblur_depth, reblur_depth: which parts of M_D and M_R are checkpointed (`checkpointed`).
        tiling: how the photograph is cut; None: not at all.
        memory: bytes that the process will hold at most, and
        seconds: that it will take, by estimate; 0, if nobody has made one.
    """

    deblur_depth: int | None = None
    reblur_depth: int | None = None
    tiling: Tiling | None = None
    memory: int = 0
    seconds: float = 0.0

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of a photograph of that size."""
        return cut(height, width, self.tiling or Tiling())


WHOLE = Plan()  # the whole photograph at once
