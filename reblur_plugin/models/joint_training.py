"""One iteration of joint training (section 3.2): which loss moves which network, in which order, by which passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin.core.objectives import (
    blur_and_reblur_loss,
    blur_loss,
    collapse_indicator,
    deblurring_module_loss,
    finest,
    frozen,
    reblur_loss,
    sharp_loss,
    sharp_reference_image,
)
from reblur_plugin.models.criteria import Criteria, ReblurTerms
from reblur_plugin.models.stored_model import StoredModel
from reblur_plugin.models.watch import CollapseWatch, FiniteWatch

Term = Callable[[], Tensor]


@dataclass
class Part:
    """A part of a batch; with `accumulate` 1 it is the batch.

    Attributes:
        blurry, sharp: B and S.
        share: this part's share of the batch, 1 / `accumulate`.
        is_last: whether the batch ends with it.
        output: M_D(B) with its graph, until M_D has been updated by it.
        deblurred: L without graph.
        l_reblur, slope: this part's share of lambda L_Reblur and its (under fp16 scaled) gradient at L, where one pass
            M_R(L) serves both networks.
    """

    blurry: Tensor
    sharp: Tensor
    share: float = 1.0
    is_last: bool = True
    output: Any = None
    deblurred: Any = None
    l_reblur: Any = None
    slope: Any = None


class JointlyTrainedModel(StoredModel):
    """M_D, M_R and, where there is L_Adv, its discriminator: each moved along its own loss, once a batch."""

    criteria: Criteria
    finite: FiniteWatch
    collapse: CollapseWatch
    frozen_g: bool
    amp_dtype: torch.dtype | None
    ema_decay: float
    net_g_ema: nn.Module
    lq: Tensor
    gt: Any
    log_dict: dict[str, Tensor]

    @property
    def terms(self) -> ReblurTerms:
        """How L_R and L_Reblur are used; where there is no M_R, nobody asks."""
        assert self.criteria.reblur is not None
        return self.criteria.reblur

    def optimize_parameters(self, current_iter: int) -> None:
        """Update M_D and M_R (and the discriminator) once, by the batch at hand.

        L = M_D(B) is computed once, unless a batch comes in parts and M_R goes first: then M_D's graphs wouldn't all
        fit, so each part's is made when M_D's turn comes. Under `amp` a network's passes between two updates share one
        cast of its weights, but where they are held (D40).
        """
        with torch.autocast(self.device.type, enabled=False):  # autocast forgets its casts with the outermost context
            self._optimize(current_iter)

    def _optimize(self, current_iter: int) -> None:
        self.iteration = current_iter
        self.log_dict = {}
        parts = self._parts()
        opponents: list[Callable[[list[Part]], None]] = []
        if self.net_r is not None:
            opponents.append(partial(self._update, "r", self._reblur_net_terms))
        if self.net_d is not None:
            opponents.append(partial(self._update, "d", self._discriminator_terms))
        own = [] if self.frozen_g else [self._update_deblur_net]
        order = self.terms.order if self.net_r is not None else "reblur_first"
        if self._moves_together():
            self._update_together(parts)
        else:
            if opponents and own and len(parts) == 1:
                self._deblur(parts[0])
            for update in [*own, *opponents] if order == "deblur_first" else [*opponents, *own]:
                update(parts)
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)

    def _moves_together(self) -> bool:
        return self.net_r is not None and self.terms.order == "simultaneous" and not self.frozen_g

    def _parts(self) -> list[Part]:
        count = self.opt["train"].get("accumulate", 1)
        images = list(zip(self.lq.chunk(count), self.gt.chunk(count), strict=True))
        return [Part(*pair, 1 / len(images), number == len(images)) for number, pair in enumerate(images, 1)]

    def _deblur(self, part: Part) -> None:
        """Compute L with M_D's graph."""
        with self._autocast():
            part.output = self.net_g(part.blurry)
        part.deblurred = finest(part.output).detach()

    def _deblurred(self, part: Part) -> Tensor:
        """Return L without graph, computed by the M_D of the moment if it isn't there yet."""
        if part.deblurred is None:
            with torch.no_grad(), self._autocast():
                part.deblurred = finest(self.get_bare_model(self.net_g)(part.blurry))
        return part.deblurred

    def _update(self, label: str, terms_of: Callable[[Part], list[Term]], parts: list[Part]) -> None:
        """Step one network's weights along the mean gradient of its loss over the parts of a batch."""
        updater = self.updaters[label]
        updater.zero_grad()
        for part in parts:
            self._add_gradient(label, terms_of(part), part)
        updater.step()

    def _add_gradient(self, label: str, terms: list[Term], part: Part) -> None:
        """Add one part's gradient, term by term: the graph of one is gone before the next one's is made."""
        updater = self.updaters[label]
        for number, term in enumerate(terms, 1):
            with updater.exchange(part.is_last and number == len(terms)):
                updater.backward(self._watched(term() * part.share))

    def _update_together(self, parts: list[Part]) -> None:
        """Step all networks along gradients at the weights that they had before the batch (D39).

        Then one pass M_R(L) serves two losses: L_Blur's gradient is taken for M_R's weights, L_Reblur's for L.
        """
        for updater in self.updaters.values():
            updater.zero_grad()
        for part in parts:
            with self.updaters["g"].exchange(part.is_last):
                self._deblur(part)
                image = finest(part.output)
                if self.net_d is not None:
                    self._add_gradient("d", self._discriminator_terms(part), part)
                self._add_gradient("r", self._reblur_net_terms(part), part)
                total = self._own_loss(part, self._bare_opponents()) * part.share
                self._watched(total + part.l_reblur)
                self.updaters["g"].backward(total, along=(image, part.slope))
        for updater in self.updaters.values():
            updater.step()

    def _watched(self, loss: Tensor) -> Tensor:
        self.finite.add(loss, self.iteration)
        return loss

    def _reblur_net_terms(self, part: Part) -> list[Term]:
        """Return the terms of L_R = L_Blur + L_Sharp (Eq. 4) of theta_R; nothing of it reaches theta_D."""
        weight = self.terms.sharp_weight(self.iteration)
        terms: list[Term] = [partial(self._blur_term, part)]
        if weight > 0 and self.terms.sharp_reference != "none":
            terms.append(partial(self._sharp_term, part, weight))
        return terms

    def _blur_term(self, part: Part) -> Tensor:
        deblurred = self._deblurred(part)
        if self._moves_together():
            l_blur = self._share_reblurring(part)
        else:
            with self._autocast():
                l_blur = blur_loss(self.net_r, deblurred, part.blurry)
        rho = collapse_indicator(l_blur, deblurred, part.blurry)
        self.collapse.add(rho, part.share)
        self._log(part, l_r_blur=l_blur, rho=rho)
        return l_blur

    def _share_reblurring(self, part: Part) -> Tensor:
        """Return L_Blur; leave L_Reblur, from the same pass M_R(L), and its gradient at L for M_D's turn."""
        deblurred = part.deblurred.detach().requires_grad_()
        with self._autocast():
            l_blur, l_reblur = blur_and_reblur_loss(self.net_r, deblurred, part.blurry, part.sharp)
        self._log(part, l_g_reblur=l_reblur)
        weighted = self.terms.loss_weight * part.share * l_reblur
        (part.slope,) = torch.autograd.grad(self.updaters["g"].scaler.scale(weighted), deblurred, retain_graph=True)
        part.l_reblur = weighted.detach()
        return l_blur

    def _sharp_term(self, part: Part, weight: float) -> Tensor:
        with self._autocast():
            preserved = sharp_reference_image(self.get_bare_model(self.net_g), part.sharp, self.terms.sharp_reference)
            assert preserved is not None  # "none" has no such term
            l_sharp = sharp_loss(self.net_r, preserved)
        self._log(part, l_r_sharp=l_sharp)
        return weight * l_sharp

    def _bare_opponents(self) -> dict[str, nn.Module]:
        networks = {"r": self.net_r, "d": self.net_d}
        return {label: self.get_bare_model(network) for label, network in networks.items() if network is not None}

    def _update_deblur_net(self, parts: list[Part]) -> None:
        """Step theta_D along L_D = L_1 + lambda L_Reblur (Eq. 6) + L_VGG + L_Adv; its opponents are held."""
        bare = self._bare_opponents()
        with ExitStack() as held:
            for network in bare.values():
                held.enter_context(frozen(network))
            self._update("g", lambda part: [partial(self._deblur_net_loss, part, bare)], parts)

    def _deblur_net_loss(self, part: Part, bare: Mapping[str, nn.Module]) -> Tensor:
        if part.output is None:
            self._deblur(part)
        deblurred = finest(part.output)
        total = self._own_loss(part, bare)
        if "r" in bare:
            with self._autocast():
                l_reblur = reblur_loss(bare["r"], deblurred, part.sharp)
            self._log(part, l_g_reblur=l_reblur)
            total = deblurring_module_loss(total, l_reblur, self.terms.loss_weight)
        return total

    def _own_loss(self, part: Part, bare: Mapping[str, nn.Module]) -> Tensor:
        """Return L_1 + L_VGG + L_Adv, 0 without any, and let go of M_D's graph with the end of their gradient."""
        output, part.output = part.output, None
        deblurred = finest(output)
        losses: dict[str, Tensor | None] = {}
        with self._autocast():
            if self.criteria.pixel:
                losses["l_g_pix"] = self.criteria.pixel(output, part.sharp)
            if self.criteria.perceptual:
                found = self.criteria.perceptual(deblurred, part.sharp)  # BasicSR's: a pair, perceptual and style
                losses["l_g_percep"], losses["l_g_style"] = found if isinstance(found, tuple) else (found, None)
            if "d" in bare:
                losses["l_g_gan"] = self.criteria.gan(bare["d"](deblurred), True, is_disc=False)
            others = [loss for loss in losses.values() if loss is not None]
            total = sum(others, start=deblurred.new_zeros((), dtype=torch.float32))
        self._log(part, **losses)
        return total

    def _discriminator_terms(self, part: Part) -> list[Term]:
        """Return the discriminator's cross-entropy on S (real) and on L (fake)."""

        def verdict(name: str, is_real: bool) -> Tensor:
            image = part.sharp if is_real else self._deblurred(part)
            with self._autocast():
                loss = self.criteria.gan(self.net_d(image), is_real, is_disc=True)
            self._log(part, **{name: loss})
            return loss

        return [partial(verdict, "l_d_real", True), partial(verdict, "l_d_fake", False)]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged M_D towards M_D; buffers are copied."""
        network = self.get_bare_model(self.net_g)
        torch._foreach_lerp_(list(self.net_g_ema.parameters()), list(network.parameters()), 1 - decay)
        for averaged, buffer in zip(self.net_g_ema.buffers(), network.buffers(), strict=True):
            averaged.copy_(buffer)

    def _log(self, part: Part, **values: Tensor | None) -> None:
        """Add one part's share to the means over a batch."""
        for name, value in values.items():
            if value is not None:
                self.log_dict[name] = self.log_dict.get(name, 0) + value.detach() * part.share
