"""Makes this package's classes known to BasicSR. The only code that is called for its effect."""

from __future__ import annotations

from typing import Any

from reblur_plugin.errors import ReblurError


def register() -> None:
    """Put our networks, losses, metrics, data set and model into BasicSR's registries. Idempotent.

    Afterwards option files can name them, in our entry points and in BasicSR's own.

    Raises:
        HostError: if BasicSR can't be imported.
        RegistrationError: if another package has taken one of the names.
    """
    from reblur_plugin.archs.discriminator_arch import ReblurDiscriminator
    from reblur_plugin.archs.dmphn_arch import DHN, DMPHN
    from reblur_plugin.archs.reblur_arch import ReblurNet
    from reblur_plugin.archs.resunet_arch import ResUNet
    from reblur_plugin.archs.spandrel_arch import SpandrelNet
    from reblur_plugin.archs.srn_arch import SRN
    from reblur_plugin.data.pair_dataset import DeblurPairDataset
    from reblur_plugin.host import registry
    from reblur_plugin.losses import reblur_loss as losses
    from reblur_plugin.metrics.brightness_metric import reblur_brightness
    from reblur_plugin.metrics.lpips_metric import reblur_lpips
    from reblur_plugin.metrics.niqe_metric import reblur_niqe
    from reblur_plugin.metrics.reblurability_metric import reblurability
    from reblur_plugin.metrics.sharpness_metric import reblur_sharpness
    from reblur_plugin.metrics.ssim_metric import reblur_ssim
    from reblur_plugin.models.reblur_model import ReblurModel

    ours: dict[Any, tuple[Any, ...]] = {
        registry.ARCH_REGISTRY: (ResUNet, SRN, DHN, DMPHN, SpandrelNet, ReblurNet, ReblurDiscriminator),
        registry.LOSS_REGISTRY: (
            losses.MultiScaleL1Loss,
            losses.ReblurLoss,
            losses.BlurLoss,
            losses.SharpLoss,
            losses.SelfReblurLoss,
            losses.FrozenReblurLoss,
        ),
        registry.METRIC_REGISTRY: (
            reblur_lpips,
            reblur_ssim,
            reblur_niqe,
            reblurability,
            reblur_sharpness,
            reblur_brightness,
        ),
        registry.DATASET_REGISTRY: (DeblurPairDataset,),
        registry.MODEL_REGISTRY: (ReblurModel,),
    }
    for table, objects in ours.items():
        for item in objects:
            _add(table, item)


class RegistrationError(ReblurError):
    """A name of ours that another package has registered."""


def _add(table: Any, item: Any) -> None:
    name = item.__name__
    if name not in table:
        table.register(item)
    elif table.get(name) is not item:
        raise RegistrationError(
            f"register: {name} is taken by {table.get(name).__module__} already; rename that class, or load one of the "
            "two packages only"
        )
