"""How much blur an image still holds, by how much M_R changes it: clean images are hard to reblur (D37)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import check_range, eval_mode, image_from
from reblur_plugin.core.device import full_precision
from reblur_plugin.core.parts import VISIBLE, Tiling, cut, halo, seam

_PIXELS = 2**20  # of a strip: what M_R's 64 channels at full size are kept for


def reblurability_map(reblur_net: nn.Module, image: Tensor) -> Tensor:
    """Return |M_R(L) - L| for each pixel, the mean over its channels: the residual of Eq. 7.

    Large images go through M_R in strips of rows; the result is that of the whole image. An M_R that sees the whole
    image gets it as a whole.

    Args:
        reblur_net: M_R; runs in eval mode.
        image: L, float `(B, C, H, W)` in [0, 1] on the network's device.

    Returns:
        Float `(B, 1, H, W)`, 0 where M_R finds nothing to reblur; without gradient.

    Raises:
        ReblurError: if values aren't in [0, 1].
        NetworkError: if M_R doesn't give an image of its input's shape.
    """
    check_range("image", image)
    with torch.no_grad(), eval_mode(reblur_net):
        tiling = _strips(reblur_net, image)
        if tiling is None:
            return _change(reblur_net, image)
        height, width = image.shape[-2:]
        strips = cut(height, width, tiling)
        return torch.cat([strip.own(_change(reblur_net, strip.crop(image))) for strip in strips], dim=-2)


def _strips(reblur_net: nn.Module, image: Tensor) -> Tiling | None:
    """Return how the image is cut, with as many rows around each strip as M_R sees; None: not at all."""
    count = -(-image.shape[-2] * image.shape[-1] // _PIXELS)
    if count == 1:
        return None

    def reblur(strip: Tensor) -> Tensor:
        return image_from(reblur_net, strip, "reblur_net")

    with full_precision():
        found = halo(reblur, image.shape[1], image)
        is_local = seam(reblur, image.shape[1], image, found) <= VISIBLE
    return Tiling(count, 1, found) if is_local else None


def _change(reblur_net: nn.Module, image: Tensor) -> Tensor:
    return (image_from(reblur_net, image, "reblur_net") - image).abs().mean(dim=1, keepdim=True)


def reblurability(reblur_net: nn.Module, image: Tensor) -> Tensor:
    """Return mean |M_R(L) - L| of each image, `(B,)`, in the unit of L; arguments and errors as `reblurability_map`."""
    return reblurability_map(reblur_net, image).mean(dim=(1, 2, 3))
