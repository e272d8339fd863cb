"""The losses that an option block `train` asks for: L_D's terms (Eq. 6) and how L_R (Eq. 4) is to be used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import call, finest
from reblur_plugin.core.choices import ORDERS, SHARP_REFERENCES, Order, SharpReference
from reblur_plugin.core.joint import JointStep, Output
from reblur_plugin.core.schedule import PiecewiseLinear
from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import ReblurError, building
from reblur_plugin.host import build_loss

_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
Built = TypeVar("Built")


class ReblurModelError(ReblurError):
    """Options that ReblurModel can't follow, or training that went wrong; the message names the key."""


@dataclass(frozen=True)
class ReblurTerms:
    """The block `train: reblur_opt`; an empty one is the paper's choice.

    Attributes:
        loss_weight: lambda of Eq. 6.
        sharp_weight: weight of L_Sharp in Eq. 4 by iteration (D10).
        sharp_reference: what L_Sharp preserves (Table 4).
        order: which network is updated first on a batch (D9).
    """

    loss_weight: float = 1.0
    sharp_weight: PiecewiseLinear = PiecewiseLinear(((0.0, 1.0),))  # noqa: RUF009 - frozen
    sharp_reference: SharpReference = "pseudo"
    order: Order = ORDERS[0]

    @classmethod
    def parse(cls, block: dict[str, Any]) -> ReblurTerms:
        """Return the terms that a block names.

        Raises:
            ReblurModelError: for unknown keys and values.
        """
        unknown = block.keys() - cls.__dataclass_fields__.keys()
        if unknown:
            raise ReblurModelError(
                f"train: reblur_opt: unknown key {', '.join(sorted(unknown))}; "
                f"expected {', '.join(cls.__dataclass_fields__)}"
            )
        for key, choices in (("order", ORDERS), ("sharp_reference", SHARP_REFERENCES)):
            if block.get(key, choices[0]) not in choices:
                raise ReblurModelError(
                    f"train: reblur_opt: {key}: expected one of {', '.join(choices)}, got {block[key]!r}"
                )
        try:
            schedule = PiecewiseLinear.parse(block.get("sharp_weight", 1.0))
        except ValueError as error:
            raise ReblurModelError(f"train: reblur_opt: sharp_weight: {error}") from error
        return cls(**{**block, "sharp_weight": schedule})


@dataclass(frozen=True)
class Criteria:
    """L_1, 0.3 L_VGG and 0.001 L_Adv as BasicSR builds them, and lambda L_Reblur; None where it isn't asked for."""

    pixel: Any
    perceptual: Any
    gan: Any
    reblur: ReblurTerms | None

    @classmethod
    def build(cls, train: dict[str, Any], device: torch.device) -> Criteria:
        """Return the losses of a block `train`.

        Raises:
            ReblurModelError: if one can't be built or can't stand where it does, or M_D has none.
        """
        block = train.get("reblur_opt")
        reblur = None if block is None else ReblurTerms.parse(block)
        pixel, perceptual, gan = (_loss(train, key, device) for key in ("pixel_opt", "perceptual_opt", "gan_opt"))
        if pixel is None and perceptual is None and reblur is None:
            raise ReblurModelError("train: no loss for M_D; give pixel_opt (L1), reblur_opt or perceptual_opt")
        return cls(pixel, perceptual, gan, reblur)

    def check(self, has_reblur_net: bool, has_discriminator: bool) -> None:
        """Refuse losses without their network, and the other way round.

        Raises:
            ReblurModelError: in these cases.
        """
        if (self.gan is None) == has_discriminator:
            raise ReblurModelError("train: gan_opt and network_d belong together; give both or none")
        if (self.reblur is None) == has_reblur_net:
            raise ReblurModelError("train: reblur_opt and network_r belong together; give both or none")

    def step(
        self, deblur: Updater, reblur: Updater | None, discriminator: Updater | None, accumulate: int
    ) -> JointStep:
        """Return the step that trains the networks by these losses."""
        terms = self.reblur or ReblurTerms()
        return JointStep(
            deblur,
            reblur,
            own_losses=partial(self.own_losses, discriminator=discriminator.bare if discriminator else None),
            loss_weight=terms.loss_weight,
            sharp_weight=terms.sharp_weight,
            sharp_reference=terms.sharp_reference,
            deblur_first=reblur is not None and terms.order == "deblur_first",
            discriminator=discriminator,
            judge=partial(self.judged, discriminator.network) if discriminator else None,
            accumulate=accumulate,
        )

    def judged(self, discriminator: nn.Module, images: Tensor, is_real: bool) -> Tensor:
        """Return the discriminator's own loss on images that are real or not."""
        loss: Tensor = self.gan(call(discriminator, images), is_real, is_disc=True)
        return loss

    def own_losses(self, output: Output, sharp: Tensor, discriminator: nn.Module | None) -> dict[str, Tensor]:
        """Return what M_D is trained by besides L_Reblur, in BasicSR's names: L_1, L_VGG (and style), L_Adv."""
        deblurred = finest(output)
        losses: dict[str, Tensor | None] = {}
        if self.pixel:
            losses["l_g_pix"] = self.pixel(output, sharp)
        if self.perceptual:
            found = self.perceptual(deblurred, sharp)  # BasicSR's: a pair, perceptual and style
            losses["l_g_percep"], losses["l_g_style"] = found if isinstance(found, tuple) else (found, None)
        if discriminator is not None:
            losses["l_g_gan"] = self.gan(call(discriminator, deblurred), True, is_disc=False)
        return {name: loss for name, loss in losses.items() if loss is not None}


def _loss(train: dict[str, Any], key: str, device: torch.device) -> Any:
    if train.get(key) is None:
        return None
    loss = built(f"train: {key}", build_loss, train[key]).to(device)
    wanted = ("input", "target_is_real", "is_disc") if key == "gan_opt" else ("output", "sharp")
    parameters = inspect.signature(loss.forward).parameters
    needed = [item for item in parameters.values() if item.default is item.empty and item.kind not in _VARIABLE]
    takes_network = "reblur_net" in parameters  # Eq. 2-5 and 7 are for model classes, not for an option block
    judges = "is_disc" in parameters or "target_is_real" in parameters
    if len(needed) > len(wanted) or takes_network or judges != (key == "gan_opt"):
        raise ReblurModelError(
            f"train: {key}: type: expected a loss of ({', '.join(wanted)}), got {train[key].get('type')}"
        )
    return loss


def built(where: str, build: Callable[[dict[str, Any]], Built], options: dict[str, Any]) -> Built:
    """Return what BasicSR builds from a block; values that its class can't take become a sentence."""
    with building(where, options.get("type"), ReblurModelError):
        return build(options)
