"""A network with the optimiser that moves its weights along the gradient of its own loss, and of no other."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Sequence
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
            "type": type(self.optimizer).__name__,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped": [int(self.skipped), int(self.skipped_in_a_row)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Take a saved state, but keep this optimiser's kind and its own numbers (lr, betas, weight decay, ...).

        Moments that don't fit the kind, its numbers or the weights are left out: the optimiser then begins anew.

        Returns:
            What differs: this optimiser's and the saved one. Of learning rates the first ones count.

        Raises:
            ReblurError: if it isn't the state of an Updater.
        """
        assert self.optimizer is not None
        try:
            saved, groups = state["optimizer"]["state"], state["optimizer"]["param_groups"]
            numbers = groups[0]
            names = {name for slots in saved.values() for name in slots}
            weights = [number for group in groups for number in group["params"]]
            skipped, in_a_row = (int(count) for count in state.get("skipped", (0, 0)))
            if state.get("scaler") and self.scaler.is_enabled():
                self.scaler.load_state_dict(state["scaler"])
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise ReblurError(
                f"{self.name}: expected the saved state of an optimiser, got another one ({error}); "
                "resume from another training state"
            ) from error
        differing = self._differing(state.get("type"), numbers)
        needed = self._slots()
        if needed <= names and self._fits(saved, weights):
            self._take(saved, weights)
        else:
            differing["moments"] = (_listed(needed), _listed(names))
        self.skipped.fill_(skipped)
        self.skipped_in_a_row.fill_(in_a_row)
        return differing

    def _differing(self, kind: str | None, saved: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        assert self.optimizer is not None
        own_kind, own = type(self.optimizer).__name__, self.optimizer.param_groups[0]
        found: dict[str, tuple[Any, Any]] = {} if kind in (None, own_kind) else {"type": (own_kind, kind)}
        for key in own.keys() - {"params", "lr"}:  # lr, which a schedule has moved
            if key not in saved and found:
                continue  # another kind's
            if own[key] != saved.get(key):
                found["lr" if key == "initial_lr" else key] = (own[key], saved.get(key))
        return found

    def _slots(self) -> set[str]:
        """Return what the optimiser keeps for a weight, by a step of a copy on weights of its own."""
        assert self.optimizer is not None
        by_dimension = {weight.ndim: weight for weight in self.weights}
        trial = copy.copy(self.optimizer)
        trial.state = defaultdict(dict)
        dummies = [nn.Parameter(torch.zeros_like(weight)) for weight in by_dimension.values()]
        for dummy in dummies:
            dummy.grad = torch.zeros_like(dummy)
        trial.param_groups = [{**self.optimizer.param_groups[0], "params": dummies}]
        trial.step()
        return {name for slots in trial.state.values() for name, value in slots.items() if value is not None}

    def _fits(self, saved: dict[Any, Any], weights: Sequence[Any]) -> bool:
        """Return whether saved slots belong to weights of these shapes; numbers and small factors fit any."""
        if len(weights) != len(self.weights):
            return False
        pairs = zip((saved.get(number, {}) for number in weights), self.weights, strict=True)
        moments = ((value, weight) for slots, weight in pairs for value in slots.values() if isinstance(value, Tensor))
        return all(value.shape in ((), weight.shape) or value.numel() < weight.numel() for value, weight in moments)

    def _take(self, saved: dict[Any, Any], weights: Sequence[Any]) -> None:
        """Load saved slots as this optimiser's own flags (fused, capturable) want them, in the weights' layout."""
        assert self.optimizer is not None
        own = self.optimizer.state_dict()["param_groups"]
        order = iter(weights)
        groups = [group | {"params": [next(order) for _ in group["params"]]} for group in own]
        self.optimizer.load_state_dict({"state": saved, "param_groups": groups})
        for weight, slots in self.optimizer.state.items():
            for key, value in slots.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    slots[key] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"
