"""The joint training step as section 3.2 reads, with nothing saved: what `step` compares with.

Independent of this package's own step: no weight is held and no pass serves twice. M_D runs three times (L for each of
the two losses, and S_hat), M_R four times with a graph, and L_D's gradient is made for M_R's weights too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Output = Tensor | Sequence[Tensor]


class PlainStep:
    """One iteration on one batch: L_D moves M_D, L_R moves M_R, each by an Adam of its own.

    Args:
        deblur_net, reblur_net: M_D, whose finest image comes first, and M_R.
        blurry, sharp: B and S, `(B, 3, H, W)` in [0, 1].
        order: "reblur_first" or "deblur_first".
        dtype: of autocast; None computes in float32, float16 scales the losses.

    `saves` takes single savings into it, to see what each is worth: "held" makes no gradient of L_D for M_R's weights,
    "idle" builds no graph for M_R(S), nor for the passes of M_D in L_R.
    """

    saves: Collection[str] = ()

    def __init__(
        self,
        deblur_net: nn.Module,
        reblur_net: nn.Module,
        blurry: Tensor,
        sharp: Tensor,
        order: str,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.deblur_net, self.reblur_net = deblur_net, reblur_net
        self.blurry, self.sharp, self.order, self.dtype = blurry, sharp, order, dtype
        self.deblur_adam = torch.optim.Adam(deblur_net.parameters(), lr=1e-4)
        self.reblur_adam = torch.optim.Adam(reblur_net.parameters(), lr=1e-4)
        self.deblur_scaler, self.reblur_scaler = (
            torch.amp.GradScaler(blurry.device.type, init_scale=1024.0, enabled=dtype is torch.float16)
            for _ in range(2)
        )
        self.keep_gradients = False
        self.gradients: dict[str, list[Tensor]] = {}

    def __call__(self) -> None:
        """Update both networks; with `keep_gradients` remember what moved "deblur" and "reblur"."""
        if self.order == "reblur_first":
            self._reblur_gradient()
            self._step(self.reblur_adam, self.reblur_scaler)
        self._deblur_gradient()
        self._step(self.deblur_adam, self.deblur_scaler)
        if self.order == "deblur_first":
            self._reblur_gradient()
            self._step(self.reblur_adam, self.reblur_scaler)

    def _step(self, adam: torch.optim.Adam, scaler: torch.amp.GradScaler) -> None:
        scaler.step(adam)
        scaler.update()

    def _deblur_gradient(self) -> None:
        """L_D = L_1 + L_Reblur (Eq. 5, 6)."""
        self.deblur_adam.zero_grad()
        self.reblur_net.requires_grad_("held" not in self.saves)
        with self._autocast():
            output = self.deblur_net(self.blurry)
            deblurred = output if isinstance(output, Tensor) else output[0]
            with self._idle():
                reblurred_sharp = self.reblur_net(self.sharp)
            loss = self._l1(output) + F.l1_loss(self.reblur_net(deblurred), reblurred_sharp)
        self.deblur_scaler.scale(loss).backward()
        self.reblur_net.requires_grad_(True)
        self._keep("deblur", self.deblur_net, self.deblur_scaler)

    def _reblur_gradient(self) -> None:
        """L_R = L_Blur + L_Sharp (Eq. 2-4)."""
        self.reblur_adam.zero_grad()
        with self._autocast():
            with self._idle():
                deblurred, pseudo_sharp = self._finest(self.blurry), self._finest(self.sharp)
            loss = F.l1_loss(self.reblur_net(deblurred), self.blurry)
            loss = loss + F.l1_loss(self.reblur_net(pseudo_sharp), pseudo_sharp)
        self.reblur_scaler.scale(loss).backward()
        self._keep("reblur", self.reblur_net, self.reblur_scaler)

    def _finest(self, image: Tensor) -> Tensor:
        output = self.deblur_net(image)
        return (output if isinstance(output, Tensor) else output[0]).detach()

    def _l1(self, output: Output) -> Tensor:
        total = torch.zeros((), device=self.sharp.device)
        for image in [output] if isinstance(output, Tensor) else output:
            size = image.shape[-2:]
            sharp = self.sharp
            if sharp.shape[-2:] != size:
                sharp = F.interpolate(sharp, size=size, mode="bilinear", align_corners=False)
            total = total + F.l1_loss(image, sharp)
        return total

    def _keep(self, name: str, network: nn.Module, scaler: torch.amp.GradScaler) -> None:
        if self.keep_gradients:
            gradients = [parameter.grad for parameter in network.parameters()]
            self.gradients[name] = [gradient / scaler.get_scale() for gradient in gradients if gradient is not None]

    def _idle(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled("idle" not in self.saves)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.blurry.device.type, dtype=self.dtype, enabled=self.dtype is not None)
