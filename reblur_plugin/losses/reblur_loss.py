"""Eq. 2, 3, 5, 7 and the multi-scale L1 as BasicSR losses: `core.objectives` times `loss_weight`.

`MultiScaleL1Loss` is for ReblurModel's `pixel_opt`; `FrozenReblurLoss` carries a trained M_R with it and serves
BasicSR's own models. The others take M_R as an argument: they are for model classes of your own (`build_loss`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from reblur_plugin.core import objectives
from reblur_plugin.core.boundary import Network, finest, images_of
from reblur_plugin.errors import ReblurError


class _Weighted(nn.Module):
    """A loss times `loss_weight`: lambda for L_Reblur (Eq. 6); the others have none in the paper."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight


class MultiScaleL1Loss(_Weighted):
    """L1 distance to the sharp image, summed over the scales of the output (the L_1 of Eq. 6; D6)."""

    def forward(self, output: Tensor | Sequence[Tensor], sharp: Tensor) -> Tensor:
        """Return the loss of `(B, C, H, W)`, or of several scales of it, against `sharp` `(B, C, H, W)`."""
        return self.loss_weight * objectives.multi_scale_l1(output, sharp)


class ReblurLoss(_Weighted):
    """L_Reblur, Eq. 5."""

    def forward(self, reblur_net: Network, deblurred: Tensor, sharp: Tensor) -> Tensor:
        """Return lambda * ||M_R(L) - M_R(S)||; hold M_R fixed with `frozen`."""
        return self.loss_weight * objectives.reblur_loss(reblur_net, deblurred, sharp)


class BlurLoss(_Weighted):
    """L_Blur, Eq. 2."""

    def forward(self, reblur_net: Network, deblurred: Tensor, blurry: Tensor) -> Tensor:
        """Return ||M_R(sg L) - B||."""
        return self.loss_weight * objectives.blur_loss(reblur_net, deblurred, blurry)


class SharpLoss(_Weighted):
    """L_Sharp, Eq. 3."""

    def forward(self, reblur_net: Network, sharp_image: Tensor) -> Tensor:
        """Return ||M_R(sg S_hat) - sg S_hat||."""
        return self.loss_weight * objectives.sharp_loss(reblur_net, sharp_image)


class SelfReblurLoss(_Weighted):
    """L_self, Eq. 7."""

    def forward(self, reblur_net: Network, deblurred: Tensor) -> Tensor:
        """Return ||M_R(L) - sg L||; hold M_R fixed with `frozen`."""
        return self.loss_weight * objectives.self_reblur_loss(reblur_net, deblurred)


class FrozenReblurLoss(nn.Module):
    """L_Reblur (Eq. 5) with a trained M_R that stays as it is: a plain loss for any BasicSR model.

    In SRModel it takes PerceptualLoss's place (`perceptual_opt`), in addition to `pixel_opt`:

        perceptual_opt: {type: FrozenReblurLoss, weights: net_r.pth, num_blocks: 2, loss_weight: 1.0}

    Args:
        weights: checkpoint of ReblurNet (`net_r_*.pth`).
        loss_weight: lambda of Eq. 6.
        slot: "perceptual" returns (loss, None) as SRModel expects there; "pixel" returns the loss alone.
        image_output: which output of M_D is L, where several could be meant: "first", "last", an index or a key.
        network: ReblurNet's arguments (`num_blocks`, `num_feat`, `global_skip`).

    Raises:
        CheckpointError: if the checkpoint is missing, damaged or doesn't fit.
    """

    def __init__(
        self,
        weights: str,
        loss_weight: float = 1.0,
        slot: Literal["perceptual", "pixel"] = "perceptual",
        image_output: str | int | None = None,
        **network: Any,
    ) -> None:
        from reblur_plugin.archs.reblur_arch import ReblurNet
        from reblur_plugin.checkpoints import load_weights

        super().__init__()
        if slot not in ("perceptual", "pixel"):
            raise ReblurError(f"slot: expected perceptual or pixel, got {slot!r}")
        self.loss_weight, self.slot, self.image_output = loss_weight, slot, image_output
        self.reblur_net = ReblurNet(**network).eval().requires_grad_(False)
        load_weights(self.reblur_net, weights)

    def forward(self, output: Tensor | Sequence[Tensor], sharp: Tensor) -> Tensor | tuple[Tensor, None]:
        """Return lambda * ||M_R(L) - M_R(S)|| for the finest scale of `output`."""
        deblurred = finest(images_of(output, sharp, self.image_output, "output of M_D"))
        loss = self.loss_weight * objectives.reblur_loss(self.reblur_net, deblurred, sharp)
        return loss if self.slot == "pixel" else (loss, None)
