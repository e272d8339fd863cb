"""How much blur an image still holds, by how much M_R changes it: clean images are hard to reblur (D37)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import check_range, eval_mode, image_from

_REACH = 64  # rows beside a strip that M_R sees too; ReblurNet with n blocks looks 4n + 4 pixels far
_PIXELS = 2**20  # of a strip: what M_R's 64 channels at full size are kept for


def reblurability_map(reblur_net: nn.Module, image: Tensor) -> Tensor:
    """Return |M_R(L) - L| for each pixel, the mean over its channels: the residual of Eq. 7.

    Large images go through M_R in strips of rows; the result is that of the whole image.

    Args:
        reblur_net: M_R; runs in eval mode.
        image: L, float `(B, C, H, W)` in [0, 1] on the network's device.

    Returns:
        Float `(B, 1, H, W)`, 0 where M_R finds nothing to reblur; without gradient.

    Raises:
        ReblurError: if values aren't in [0, 1].
        NetworkError: if M_R doesn't give an image of its input's shape.
    """
    height, width = image.shape[-2:]
    rows = max(_REACH, _PIXELS // width)
    check_range("image", image)
    with torch.no_grad(), eval_mode(reblur_net):
        strips = [_strip(reblur_net, image, top, min(top + rows, height)) for top in range(0, height, rows)]
    return torch.cat(strips, dim=-2)


def _strip(reblur_net: nn.Module, image: Tensor, top: int, bottom: int) -> Tensor:
    """Return rows `top ... bottom` of the map."""
    start = max(0, top - _REACH)
    part = image[..., start : bottom + _REACH, :]
    change = image_from(reblur_net, part, "reblur_net") - part
    return change.abs().mean(dim=1, keepdim=True)[..., top - start : bottom - start, :]


def reblurability(reblur_net: nn.Module, image: Tensor) -> Tensor:
    """Return mean |M_R(L) - L| of each image, `(B,)`, in the unit of L; arguments and errors as `reblurability_map`."""
    return reblurability_map(reblur_net, image).mean(dim=(1, 2, 3))
