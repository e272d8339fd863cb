"""One network's training: its optimiser, learning-rate schedule, gradient scaler and clipping."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin.core.fused import FusedAdam
from reblur_plugin.core.schedule import MultiStepDecay
from reblur_plugin.errors import ReblurError

_SCALE = 1024.0  # first loss scale under fp16, as in the first author's code
_UNUSABLE = ("LBFGS", "Optimizer", "SparseAdam")  # needs a closure, is no algorithm, needs sparse gradients
_PATIENCE = 20  # bad fp16 steps in a row that are skipped before the run stops


class ReblurModelError(ReblurError):
    """Options that ReblurModel can't follow, or training that went wrong; the message names the key."""


class Updater:
    """Moves the weights of one network along the gradient of its own loss.

    Args:
        label: "g", "r" or "d", as in `optim_g`.
        network: the network, data-parallel or not.
        train: the option block `train`: `optim_<label>`, `scheduler_<label>` or `scheduler`, `grad_clip`.
        scaled: scale losses as fp16 needs it; a step with non-finite gradient is then left out and counted.

    Raises:
        ReblurModelError: if a block is missing or can't be followed.
    """

    def __init__(self, label: str, network: nn.Module, train: dict[str, Any], scaled: bool) -> None:
        self.label, self.network = label, network
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(label, self.parameters, train)
        self.scheduler = _scheduler(label, self.optimizer, train)
        self.scaler = torch.amp.GradScaler(self.parameters[0].device.type, init_scale=_SCALE, enabled=scaled)
        self.clip: float = train.get("grad_clip") or 0.0
        self.skipped = torch.zeros((), dtype=torch.int64, device=self.parameters[0].device)
        self.skipped_in_a_row = self.skipped.clone()

    def zero_grad(self) -> None:
        """Forget the last gradient, also what other losses left."""
        self.optimizer.zero_grad(set_to_none=True)

    def exchange(self, is_last: bool) -> AbstractContextManager[None]:
        """Return the context of one part of a batch: processes exchange gradients once, at the last part.

        Forward passes belong inside too: it is there that PyTorch decides whether this part's backward exchanges.
        """
        later = isinstance(self.network, nn.parallel.DistributedDataParallel) and not is_last
        return self.network.no_sync() if later else nullcontext()  # type: ignore[operator]

    def backward(self, loss: Tensor, along: tuple[Tensor, Tensor] | None = None) -> None:
        """Add the gradient of `loss` for this network's weights, and for no other leaf of its graph.

        `along` is an image that this network made and a further gradient at it, scaled already.
        """
        roots = [(self.scaler.scale(loss), None)] if along is None or loss.requires_grad else []
        images, gradients = zip(*roots, *([] if along is None else [along]), strict=True)
        torch.autograd.backward(images, gradients, inputs=self.parameters)

    def step(self) -> None:
        """Clip the gradient and update the weights.

        Doesn't wait for the device, but under fp16 with an optimiser that isn't `fused`: PyTorch's scaler asks there
        whether to leave the step out.
        """
        scaled = self.scaler.is_enabled()
        if self.clip or scaled:
            self.scaler.unscale_(self.optimizer)
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip or float("inf"))
            if scaled:
                bad = ~norm.isfinite()
                self.skipped += bad
                self.skipped_in_a_row = torch.where(bad, self.skipped_in_a_row + 1, 0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        torch.clear_autocast_cache()  # casts of the old weights, else used by the next pass

    @property
    def lr(self) -> float:
        """Return the learning rate in use."""
        return self.optimizer.param_groups[0]["lr"]

    def check(self) -> None:
        """Read the device once and stop if fp16 has failed for good or weights aren't finite.

        Raises:
            ReblurModelError: in these cases.
        """
        if int(self.skipped_in_a_row) >= _PATIENCE:
            raise ReblurModelError(
                f"net_{self.label}: {_PATIENCE} fp16 steps in a row without finite gradient; use bf16 or a smaller lr"
            )
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters):
            raise ReblurModelError(f"net_{self.label}: weights aren't finite any more; use grad_clip or a smaller lr")

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs beside the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduled": self.scheduler.last_epoch,  # the rest of the schedule is the option file's
            "scaler": self.scaler.state_dict(),
            "skipped": [int(self.skipped), int(self.skipped_in_a_row)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Take up a saved state; the numbers in the option file go before the saved ones.

        Returns:
            A sentence for each number that differs.
        """
        wanted = [{key: value for key, value in group.items() if key != "params"} for group in self._groups()]
        self.optimizer.load_state_dict(state["optimizer"])
        for weight, slots in self.optimizer.state.items():
            for name, value in slots.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    slots[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)  # `fused` takes this layout
        self.scheduler.last_epoch = state["scheduled"]
        self.scheduler._step_count = state["scheduled"] + 2  # else PyTorch thinks that no step was taken yet
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        skipped, in_a_row = state.get("skipped", (0, 0))
        self.skipped.fill_(skipped)
        self.skipped_in_a_row.fill_(in_a_row)
        changes = []
        for group, options in zip(self._groups(), wanted, strict=True):
            changes += [
                f"optim_{self.label}: {'lr' if key == 'initial_lr' else key}: {value} in the options, "
                f"{group.get(key)} in the saved state; the options hold"
                for key, value in options.items()
                if key != "lr" and group.get(key) != value
            ]
            group.update(options)
        for group, rate in zip(self._groups(), self.scheduler.base_lrs, strict=True):
            group["lr"] = rate * self.scheduler.lr_lambdas[0](self.scheduler.last_epoch)
        return changes

    def _groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups


def _optimizer(label: str, parameters: list[nn.Parameter], train: dict[str, Any]) -> torch.optim.Optimizer:
    options = dict(train.get(f"optim_{label}") or {})
    if not options:
        raise ReblurModelError(f"train: optim_{label}: missing; e.g. {{type: Adam, lr: 1e-4}}")
    name = options.pop("type", "Adam")
    kind = None if name in _UNUSABLE else getattr(torch.optim, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ReblurModelError(
            f"train: optim_{label}: type: PyTorch has no optimiser {name!r} that fits; the paper uses Adam"
        )
    is_fused = kind is torch.optim.Adam and options.get("fused") and parameters[0].device.type == "cpu"
    build: Callable[..., torch.optim.Optimizer] = FusedAdam if is_fused else kind
    try:
        return build(parameters, **options)
    except (TypeError, ValueError) as error:
        raise ReblurModelError(f"train: optim_{label}: {name} can't take these options: {error}") from error


def _scheduler(
    label: str, optimizer: torch.optim.Optimizer, train: dict[str, Any]
) -> torch.optim.lr_scheduler.LambdaLR:
    options = dict(train.get(f"scheduler_{label}") or train.get("scheduler") or {})
    if not options:
        raise ReblurModelError("train: scheduler: missing; e.g. {type: MultiStepLR, milestones: [...], gamma: 0.5}")
    kind = options.pop("type", "MultiStepLR")
    if kind != "MultiStepLR":
        raise ReblurModelError(f"train: scheduler: type: expected MultiStepLR, got {kind!r}")
    decay = MultiStepDecay(tuple(sorted(options.pop("milestones", ()))), options.pop("gamma", 0.5))
    if options:
        raise ReblurModelError(f"train: scheduler: unknown key {', '.join(options)}; expected milestones, gamma")
    return torch.optim.lr_scheduler.LambdaLR(optimizer, decay)
