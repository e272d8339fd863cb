"""Eq. 2-7 of "Clean Images are Hard to Reblur" as functions of the two networks and the images.

| paper          | here                                        |
|----------------|---------------------------------------------|
| B, S           | `blurry`, `sharp`: the pair of the data set |
| L = M_D(B)     | `deblurred`                                 |
| S_hat = M_D(S) | `pseudo_sharp`                              |
| M_D, M_R       | `deblur_net`, `reblur_net`                  |
| ||.||          | `l1`: mean absolute difference (section S1) |

Images are `(B, C, H, W)` floats in [0, 1]; the paper's weights (lambda = 1, 0.3 VGG, 0.001 Adv) mean that range (D8).
Where gradient must not flow the function itself detaches, so that no caller can get it wrong. Weights of a network are
never detached here: hold M_R fixed with `frozen(reblur_net)` while M_D is updated. Networks are called by `image_from`:
they may work in place, and of several scales the finest is the image (D6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reblur_plugin.core.boundary import Network, finest, image_from
from reblur_plugin.core.choices import SHARP_REFERENCES, SharpReference
from reblur_plugin.errors import ReblurError


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference, the paper's ||.|| ("always p = 1", section S1).

    Raises:
        ReblurError: if the shapes differ; PyTorch would broadcast or only warn.
    """
    if prediction.shape != target.shape:
        raise ReblurError(
            f"L1 distance: expected two tensors of one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}; "
            "crop or resize one of them"
        )
    return F.l1_loss(prediction, target)


def multi_scale_l1(output: Tensor | Sequence[Tensor], sharp: Tensor) -> Tensor:
    """Return the L1 term of Eq. 6, summed over the scales of `output` with `sharp` resized to each (bilinear).

    `sharp` is `(B, C, H, W)`; each scale of `output` is `(B, C, h, w)`. Gradient flows into every scale.
    """
    scales = [finest(output)] if isinstance(output, Tensor) or not output else list(output)
    total = sharp.new_zeros(())
    for prediction in scales:
        target = sharp
        if prediction.shape[-2:] != sharp.shape[-2:]:
            target = F.interpolate(sharp, size=prediction.shape[-2:], mode="bilinear", align_corners=False)
        total = total + l1(prediction, target)
    return total


def blur_loss(reblur_net: Network, deblurred: Tensor, blurry: Tensor) -> Tensor:
    """Return L_Blur = ||M_R(L) - B||, Eq. 2. Gradient reaches M_R alone: L is detached."""
    return l1(image_from(reblur_net, deblurred.detach()), blurry)


def sharp_loss(reblur_net: Network, sharp_image: Tensor) -> Tensor:
    """Return L_Sharp = ||M_R(S_hat) - S_hat||, Eq. 3. Gradient reaches M_R alone: the image is detached on both sides.

    `sharp_image` is S_hat = M_D(S) in the paper's default and S itself in row 2 of Table 4.
    """
    sharp_image = sharp_image.detach()
    return l1(image_from(reblur_net, sharp_image), sharp_image)


@torch.no_grad()
def sharp_reference_image(deblur_net: Network, sharp: Tensor, reference: SharpReference) -> Tensor | None:
    """Return the image that L_Sharp preserves: S_hat = M_D(S) ("pseudo"), S ("real"), or None ("none"). Table 4.

    No graph is built: Eq. 3 trains M_R only, so M_D need not remember this forward pass.

    Raises:
        ReblurError: for any other `reference`.
    """
    if reference == "pseudo":
        return image_from(deblur_net, sharp)
    if reference == "real":
        return sharp
    if reference == "none":
        return None
    raise ReblurError(f"sharp_reference: expected one of {', '.join(SHARP_REFERENCES)}, got {reference!r}")


def reblur_loss(reblur_net: Network, deblurred: Tensor, sharp: Tensor) -> Tensor:
    """Return L_Reblur = ||M_R(L) - M_R(S)||, Eq. 5, with the real S. Gradient reaches M_D through M_R's input.

    M_R(S) doesn't depend on M_D and carries no graph. M_R's weights get gradient through M_R(L) unless `frozen`.
    """
    with torch.no_grad():
        reblurred_sharp = image_from(reblur_net, sharp)
    return l1(image_from(reblur_net, deblurred), reblurred_sharp)


def deblurring_module_loss(pixel: Tensor, reblur: Tensor, reblur_weight: float = 1.0) -> Tensor:
    """Return L_D = L_1 + lambda * L_Reblur, Eq. 6 (lambda = 1)."""
    return pixel + reblur_weight * reblur


def self_reblur_loss(
    reblur_net: Network,
    deblurred: Tensor,
    target: Tensor | None = None,
    counted: Callable[[Tensor], Tensor] = lambda image: image,
) -> Tensor:
    """Return L_self = ||M_R(L) - L*||, Eq. 7. L* has L's values and no gradient; `target` may take its place.

    `counted` takes the pixels that count from both images, such as a tile's own; all, if it isn't given.
    """
    target = (deblurred if target is None else target).detach()
    return l1(counted(image_from(reblur_net, deblurred)), counted(target))


def collapse_indicator(blur: Tensor, deblurred: Tensor, blurry: Tensor) -> Tensor:
    """Return rho = L_Blur / ||L - B||: 1 says that M_R is the identity, less that it brings back blur (D10).

    Without gradient. Where L equals B exactly there is nothing to reblur, and rho is 1.
    """
    with torch.no_grad():
        unchanged = l1(deblurred.detach(), blurry)
        return torch.where(unchanged > 0, blur.detach() / unchanged, torch.ones_like(unchanged))


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Hold the parameters of `network` fixed: gradient passes through to its input, none is made for its weights.

    Every parameter's own `requires_grad` is restored afterwards, also after an exception.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
