"""The passes of Algorithm 1 on one photograph: lines 6, 7 and 9, tile by tile where memory is short.

The loss is a mean over pixels, so its gradient is the sum of what the tiles' own pixels give: one update follows all of
them, as on the whole image.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reblur_plugin.core.choices import AdaptError
from reblur_plugin.core.objectives import finest, l1, self_reblur_loss
from reblur_plugin.core.tiles import Mosaic, Tile


@dataclass(frozen=True)
class Passes:
    """M_D and M_R on one photograph.

    Attributes:
        blurry: B, `(1, C, H, W)`.
        tiles: of the photograph; a single one is the whole.
        dtype: of autocast; None leaves precision to the networks.
        tick: called after each pass over a tile.
    """

    deblur_net: nn.Module
    reblur_net: nn.Module
    blurry: Tensor
    tiles: list[Tile]
    dtype: torch.dtype | None
    tick: Callable[[], None]

    def gradient(self, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return L^i and L_self at it, whose gradient is added to theta_D's: lines 6 and 7.

        `target` is L* as a whole image; None takes L^i itself.
        """
        image, total = Mosaic(self.tiles), self.blurry.new_zeros(())
        for tile in self.tiles:
            with self._precision():
                deblurred = self._deblur(tile)
                image.put(tile, deblurred.detach())
                loss = self._self_loss(tile, deblurred, target)
            loss.backward()
            total = total + loss.detach()
            del deblurred, loss  # what the graph still holds goes before the next tile
            self.tick()
        return image.image(), total

    @torch.no_grad()
    def deblur(self) -> Tensor:
        """Return M_D(B), line 9."""
        image = Mosaic(self.tiles)
        for tile in self.tiles:
            with self._precision():
                image.put(tile, self._deblur(tile))
            self.tick()
        return image.image()

    def _precision(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dtype is None else torch.autocast(self.blurry.device.type, self.dtype)

    def _deblur(self, tile: Tile) -> Tensor:
        blurry = tile.crop(self.blurry)
        deblurred = finest(self.deblur_net(blurry.clone()))  # a copy, for networks that work in place
        if deblurred.shape != blurry.shape:
            raise AdaptError(
                f"deblur_net: expected an image of the input's shape {tuple(blurry.shape)}, "
                f"got {tuple(deblurred.shape)}"
            )
        return deblurred

    def _self_loss(self, tile: Tile, deblurred: Tensor, target: Tensor | None) -> Tensor:
        """Return the tile's part of Eq. 7: the mean over its own pixels, by its share of the photograph."""
        if not deblurred.requires_grad:
            raise AdaptError("deblur_net: its output carries no gradient; its forward pass must not run under no_grad")

        def reblur(image: Tensor) -> Tensor:
            reblurred = self.reblur_net(image)
            if reblurred.shape != image.shape:
                raise AdaptError(
                    f"reblur_net: expected an image of its input's shape, got {tuple(reblurred.shape)} "
                    f"and {tuple(image.shape)}"
                )
            return at_least_float(tile.own(reblurred))

        aim = tile.own(deblurred if target is None else tile.crop(target))
        loss = self_reblur_loss(reblur, deblurred, at_least_float(aim)) * tile.share
        if not loss.requires_grad:
            raise AdaptError("reblur_net: its output carries no gradient to its input; it must not detach it")
        return loss


def change(image: Tensor, initial: Tensor) -> Tensor:
    """Return mean |L^i - L^0|; not finite, if the image isn't."""
    return l1(at_least_float(image), at_least_float(initial))


def at_least_float(image: Tensor) -> Tensor:
    """Return a half-precision image as float32: means of small differences need it."""
    return image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
