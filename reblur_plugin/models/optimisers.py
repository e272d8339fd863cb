"""The optimisers and learning rates that an option block `train` asks for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reblur_plugin.core.schedule import LearningRate
from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import building
from reblur_plugin.models.criteria import ReblurModelError

_UNUSABLE = ("LBFGS", "Optimizer", "SparseAdam")  # needs a closure, is no algorithm, needs sparse gradients


def updater(label: str, network: nn.Module, train: dict[str, Any], precision: torch.dtype | None) -> Updater:
    """Return what moves `network` as the keys `optim_<label>` and `grad_clip` say.

    Raises:
        ReblurModelError: if a key is missing or can't be followed.
    """
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = _optimizer(label, weights, train)
    clip = train.get("grad_clip") or 0.0
    return Updater(network, optimizer, precision=precision, max_norm=clip, name=f"net_{label}")


def learning_rate(label: str, updater: Updater, train: dict[str, Any]) -> LearningRate:
    """Return the learning rate of an updater by the schedule in `scheduler_<label>`, else in `scheduler`.

    Raises:
        ReblurModelError: if there is none or it can't be followed.
    """
    options = dict(train.get(f"scheduler_{label}") or train.get("scheduler") or {})
    if not options:
        raise ReblurModelError("train: scheduler: missing; e.g. {type: MultiStepLR, milestones: [...], gamma: 0.5}")
    kind = options.pop("type", "MultiStepLR")
    if kind != "MultiStepLR":
        raise ReblurModelError(f"train: scheduler: type: expected MultiStepLR, got {kind!r}")
    milestones = tuple(sorted(options.pop("milestones", ())))
    unknown = options.keys() - {"gamma"}
    if unknown:
        raise ReblurModelError(
            f"train: scheduler: unknown key {', '.join(sorted(unknown))}; expected milestones, gamma"
        )
    return LearningRate(updater.first_lr, milestones, **options)


def _optimizer(label: str, weights: list[nn.Parameter], train: dict[str, Any]) -> torch.optim.Optimizer:
    options = dict(train.get(f"optim_{label}") or {})
    if not options:
        raise ReblurModelError(f"train: optim_{label}: missing; e.g. {{type: Adam, lr: 1e-4}}")
    name = options.pop("type", "Adam")
    kind = None if name in _UNUSABLE else getattr(torch.optim, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ReblurModelError(
            f"train: optim_{label}: type: PyTorch has no optimiser {name!r} that fits; the paper uses Adam"
        )
    with building(f"train: optim_{label}", name, ReblurModelError):
        return kind(weights, **options)
