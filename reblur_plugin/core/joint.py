"""Section 3.2: one iteration trains M_R by L_R (Eq. 4) and M_D by L_D (Eq. 6), alternately on a batch.

    deblur = Updater(deblur_net, Adam(deblur_net.parameters(), lr=1e-4))
    reblur = Updater(reblur_net, Adam(reblur_net.parameters(), lr=1e-4))
    step = JointStep(deblur, reblur)
    for blurry, sharp in batches:
        losses = step(blurry, sharp)  # l_blur, rho, l_sharp, l_1, l_reblur

Plain PyTorch: this file needs no option file and no BasicSR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from reblur_plugin.core.boundary import check_range, finest, image_from, output_from
from reblur_plugin.core.objectives import (
    SharpReference,
    blur_loss,
    collapse_indicator,
    deblurring_module_loss,
    frozen,
    multi_scale_l1,
    reblur_loss,
    sharp_loss,
    sharp_reference_image,
)
from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import ReblurError

Output = Tensor | Sequence[Tensor]
OwnLosses = Callable[[Output, Tensor], Mapping[str, Tensor]]


def l_1(output: Output, sharp: Tensor) -> dict[str, Tensor]:
    """Return the L_1 of Eq. 6, summed over the scales of `output` (D6)."""
    return {"l_1": multi_scale_l1(output, sharp)}


@dataclass
class MicroBatch:
    """A part of a batch: B, S, its share of the batch, and L = M_D(B) once it is computed."""

    blurry: Tensor
    sharp: Tensor
    share: float
    is_last: bool
    output: Any = None  # M_D(B) with its graph, until theta_D has moved
    deblurred: Tensor | None = None  # L without a graph


@dataclass
class JointStep:
    """M_R by L_R, then M_D by L_D, each once on a batch: `step(blurry, sharp)` returns the losses.

    Attributes:
        deblur: M_D; without an optimiser it is held, and M_R alone is trained (Table 1).
        reblur: M_R; None trains M_D by its own losses alone (the L1 rows of Table 2).
        own_losses: what M_D is trained by besides L_Reblur, from its output and S, by name: L_1, also L_VGG and L_Adv.
        loss_weight: lambda of Eq. 6.
        sharp_weight: of L_Sharp in Eq. 4 (1), or a schedule: weight by iteration (D10).
        sharp_reference: what L_Sharp preserves (Table 4).
        deblur_first: the other reading of "alternately" (D9); L in L_Blur is then from before M_D's update.
        discriminator: L_Adv's; it is updated where M_R is (D7).
        judge: the discriminator's cross-entropy on images, real or not.
        accumulate: micro-batches that a batch is computed in; their mean gradient is that of the batch.
        iteration: of the last call; set it when a training is resumed.
    """

    deblur: Updater
    reblur: Updater | None
    own_losses: OwnLosses = l_1
    loss_weight: float = 1.0
    sharp_weight: float | Callable[[int], float] = 1.0
    sharp_reference: SharpReference = "pseudo"
    deblur_first: bool = False
    discriminator: Updater | None = None
    judge: Callable[[Tensor, bool], Tensor] | None = None
    accumulate: int = 1
    iteration: int = 0
    losses: dict[str, Tensor] = field(default_factory=dict, init=False)
    _checked: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.reblur and not self.reblur.optimizer:
            raise ReblurError("JointStep: reblur: expected an Updater with an optimiser, since M_R is trained")
        if self.discriminator and not (self.judge and self.discriminator.optimizer):
            raise ReblurError("JointStep: discriminator: expected an Updater with an optimiser, and its loss, `judge`")
        if self.accumulate < 1:
            raise ReblurError(f"JointStep: accumulate: expected a whole number > 0, got {self.accumulate}")

    def __call__(self, blurry: Tensor, sharp: Tensor) -> dict[str, Tensor]:
        """Update every network once by B and S, `(B, C, H, W)` in [0, 1]; return the losses' means over the batch.

        They are detached scalars: `l_blur`, `rho` (D10), `l_sharp`, those of `own_losses`, `l_reblur` (before its
        weight), and `l_real`, `l_fake` of the discriminator.
        """
        if not self._checked:  # once: reading values makes a GPU wait
            for name, image in (("blurry", blurry), ("sharp", sharp)):
                check_range(f"JointStep: {name}", image)
            self._checked = True
        self.iteration += 1
        self.losses = {}
        batch = self._micro_batches(blurry, sharp)
        with torch.autocast(blurry.device.type, enabled=False):  # outermost: passes between two updates share casts
            opponents = [self._update_reblur_net] if self.reblur else []
            opponents += [self._update_discriminator] if self.discriminator else []
            own = [self._update_deblur_net] if self.deblur.optimizer else []
            if len(batch) == 1 and own and opponents:
                self._deblur(batch[0])  # once: its graph waits for M_D's turn
            for update in [*own, *opponents] if self.deblur_first else [*opponents, *own]:
                update(batch)
        return self.losses

    def _micro_batches(self, blurry: Tensor, sharp: Tensor) -> list[MicroBatch]:
        pairs = list(zip(blurry.chunk(self.accumulate), sharp.chunk(self.accumulate), strict=True))
        shares = [len(part) / len(blurry) for part, _ in pairs]
        return [MicroBatch(*pair, share, pair is pairs[-1]) for pair, share in zip(pairs, shares, strict=True)]

    def _update_reblur_net(self, batch: Sequence[MicroBatch]) -> None:
        """Move theta_R along L_R = L_Blur + L_Sharp (Eq. 4), term by term: one graph of M_R lives at a time."""
        assert self.reblur is not None
        sharp_weight = self._sharp_weight()
        with self.reblur.update():
            for part in batch:
                deblurred = self._deblurred(part)
                with self.reblur.forward(exchange=part.is_last and not sharp_weight):
                    l_blur = blur_loss(self.reblur.network, deblurred, part.blurry)
                self.reblur.backward(l_blur * part.share)
                self._note(part, l_blur=l_blur, rho=collapse_indicator(l_blur, deblurred, part.blurry))
                if sharp_weight:
                    with self.reblur.forward(exchange=part.is_last):
                        preserved = sharp_reference_image(self.deblur.bare, part.sharp, self.sharp_reference)
                        assert preserved is not None  # "none" has no such term
                        l_sharp = sharp_loss(self.reblur.network, preserved)
                    self.reblur.backward(sharp_weight * l_sharp * part.share)
                    self._note(part, l_sharp=l_sharp)

    def _update_deblur_net(self, batch: Sequence[MicroBatch]) -> None:
        """Move theta_D along L_D = L_1 + lambda L_Reblur (Eq. 6), and its further losses; its opponents are held."""
        with ExitStack() as held, self.deblur.update():
            for opponent in filter(None, (self.reblur, self.discriminator)):
                held.enter_context(frozen(opponent.bare))
            for part in batch:
                with self.deblur.forward(exchange=part.is_last):
                    if part.output is None:
                        self._deblur(part)
                    output, part.output = part.output, None  # its graph goes with its gradient
                    own = self.own_losses(output, part.sharp)
                    l_d = sum(own.values(), start=part.sharp.new_zeros(()))
                    self._note(part, **own)
                    if self.reblur:
                        l_reblur = reblur_loss(self.reblur.bare, finest(output), part.sharp)
                        l_d = deblurring_module_loss(l_d, l_reblur, self.loss_weight)
                        self._note(part, l_reblur=l_reblur)
                self.deblur.backward(l_d * part.share)

    def _update_discriminator(self, batch: Sequence[MicroBatch]) -> None:
        """Move the discriminator along its cross-entropy on S (real) and on L (fake)."""
        assert self.discriminator is not None
        assert self.judge is not None
        with self.discriminator.update():
            for part in batch:
                for name, is_real in (("l_real", True), ("l_fake", False)):
                    image = part.sharp if is_real else self._deblurred(part)
                    with self.discriminator.forward(exchange=part.is_last and not is_real):
                        loss = self.judge(image, is_real)
                    self.discriminator.backward(loss * part.share)
                    self._note(part, **{name: loss})

    def _deblur(self, part: MicroBatch) -> None:
        """Compute L = M_D(B) with M_D's graph."""
        with self.deblur.forward(exchange=part.is_last):
            part.output = output_from(self.deblur.network, part.blurry)
        part.deblurred = finest(part.output).detach()

    def _deblurred(self, part: MicroBatch) -> Tensor:
        """Return L without a graph: those of several micro-batches would all be in memory until M_D's turn."""
        if part.deblurred is None:
            with torch.no_grad(), self.deblur.forward():
                part.deblurred = image_from(self.deblur.bare, part.blurry)
        return part.deblurred

    def _sharp_weight(self) -> float:
        if self.sharp_reference == "none":
            return 0.0
        return self.sharp_weight(self.iteration) if callable(self.sharp_weight) else self.sharp_weight

    def _note(self, part: MicroBatch, **losses: Tensor) -> None:
        for name, loss in losses.items():
            self.losses[name] = self.losses.get(name, 0) + loss.detach() * part.share
