"""A network with the optimiser that moves its weights along the gradient of its own loss, and of no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin.core.boundary import bare
from reblur_plugin.errors import ReblurError

_SCALE = 1024.0  # first loss scale under float16, as in the first author's code
_PATIENCE = 20  # bad float16 updates in a row that are left out before the training stops


class Updater:
    """One network's side of the training.

    Args:
        network: M_D, M_R or a discriminator, in the mode and on the device that it trains in. Inside
            DistributedDataParallel its gradients are averaged over the processes, once an update.
        optimizer: of the network's weights; None holds them fixed.
        precision: of autocast: bfloat16, float16 (losses are scaled; an update whose gradient isn't finite is left out
            and counted) or None.
        max_norm: the gradient's norm is clipped to it; 0: never.
        name: of the network in messages.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        precision: torch.dtype | None = None,
        max_norm: float = 0.0,
        name: str = "network",
    ) -> None:
        self.network, self.optimizer, self.name = network, optimizer, name
        self.precision, self.max_norm = precision, max_norm
        for group in optimizer.param_groups if optimizer else ():
            group.setdefault("initial_lr", group["lr"])  # PyTorch's word for the rate before any schedule
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=_SCALE, enabled=precision is torch.float16 and optimizer is not None
        )
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.device)
        self.skipped_in_a_row = self.skipped.clone()

    @property
    def bare(self) -> nn.Module:
        """Return the network without its data-parallel wrapper, for passes that train another one."""
        return bare(self.network)

    @contextmanager
    def update(self) -> Iterator[None]:
        """Move the weights, at the end of the block, along the gradient that `backward` has collected in it."""
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)  # also what other losses left
        yield
        if self.max_norm or self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self.weights, self.max_norm or float("inf"))
            if self.scaler.is_enabled():
                bad = ~norm.isfinite()
                self.skipped += bad
                self.skipped_in_a_row = torch.where(bad, self.skipped_in_a_row + 1, 0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        torch.clear_autocast_cache()  # casts of the old weights, which the next pass would use

    @contextmanager
    def forward(self, exchange: bool = True) -> Iterator[None]:
        """Compute in the network's precision; processes exchange the gradient of these passes only if `exchange`."""
        is_parallel = isinstance(self.network, nn.parallel.DistributedDataParallel)
        alone = self.network.no_sync() if is_parallel and not exchange else nullcontext()  # type: ignore[operator]
        with alone, torch.autocast(self.device.type, dtype=self.precision, enabled=self.precision is not None):
            yield

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` for this network's weights, and for no other leaf of its graph."""
        torch.autograd.backward(self.scaler.scale(loss), inputs=self.weights)

    @property
    def lr(self) -> float:
        """The learning rate mu of the next update."""
        assert self.optimizer is not None
        return self.optimizer.param_groups[0]["lr"]

    @lr.setter
    def lr(self, rate: float) -> None:
        assert self.optimizer is not None
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    @property
    def first_lr(self) -> float:
        """The learning rate before any schedule has moved it."""
        assert self.optimizer is not None
        return self.optimizer.param_groups[0]["initial_lr"]

    def check(self) -> None:
        """Read the device once and stop if float16 has failed for good or weights aren't finite.

        Raises:
            ReblurError: in these cases.
        """
        if int(self.skipped_in_a_row) >= _PATIENCE:
            raise ReblurError(
                f"{self.name}: {_PATIENCE} fp16 steps in a row without finite gradient; use bf16 or a smaller lr"
            )
        if not all(bool(weight.isfinite().all()) for weight in self.weights):
            raise ReblurError(f"{self.name}: weights aren't finite any more; use grad_clip or a smaller lr")

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed training needs in addition to the weights."""
        assert self.optimizer is not None
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": [int(self.skipped), int(self.skipped_in_a_row)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Take a saved state, but keep this optimiser's own numbers (lr, betas, weight decay, ...).

        Returns:
            Each number that differs: this optimiser's and the saved one. Of learning rates the first ones count.
        """
        assert self.optimizer is not None
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, slots in self.optimizer.state.items():
            for key, value in slots.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    slots[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)  # in the weight's layout
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        skipped, in_a_row = state.get("skipped", (0, 0))
        self.skipped.fill_(skipped)
        self.skipped_in_a_row.fill_(in_a_row)
        differing: dict[str, tuple[Any, Any]] = {}
        for group, numbers in zip(self.optimizer.param_groups, own, strict=True):
            own_numbers = {key: value for key, value in numbers.items() if key != "lr"}  # which a schedule has moved
            differing |= {
                "lr" if key == "initial_lr" else key: (value, group.get(key))
                for key, value in own_numbers.items()
                if group.get(key) != value
            }
            group.update(numbers)
        return differing
