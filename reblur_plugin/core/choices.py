"""What can be chosen about section 3.2 and Algorithm 1, checked before anything is computed; without PyTorch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from reblur_plugin.errors import ReblurError

SharpReference = Literal["pseudo", "real", "none"]  # what L_Sharp preserves (Table 4)
Order = Literal["reblur_first", "deblur_first"]  # which network a batch updates first (D9)
TrainingAmp = Literal["bf16", "fp16", "auto"]
SHARP_REFERENCES: tuple[SharpReference, ...] = get_args(SharpReference)  # the paper's first, in each
ORDERS: tuple[Order, ...] = get_args(Order)

Optimizer = Literal["adam", "sgd"]
Target = Literal["current", "initial"]
HistogramMatching = Literal["skimage", "torch", "none"]
Amp = Literal["none", "bf16", "auto"]


class AdaptError(ReblurError):
    """What was given can't be adapted; the message says why and what to do."""


@dataclass(frozen=True)
class AdaptConfig:
    """The choices of Algorithm 1; the defaults are the paper's (D5, D9).

    Attributes:
        steps: N, number of updates of theta_D; 0 gives the plain deblurred image.
        lr: mu, the test-time learning rate.
        optimizer: "adam" (section S1: Adam in all cases) or "sgd" (no momentum); a fresh one for each image.
        target: L* of Eq. 7: the "current" L^i (line 6) or the "initial" L^0.
        histogram: "skimage" matches L^N's colours to L^0's (line 10); "torch" does so on the device, "none" doesn't.
        parameters: which weights adapt: "all", or names of M_D's parameters with * and ? ("body.*").
        keep: whose images are kept, by number of updates: "all", or some in addition to L^0 and L^N.
        max_change: mean |L^i - L^0| beyond which adaptation has gone astray and L^0 is returned; None: any.
        amp: autocast: "bf16", "auto" (bf16 where the device has units for it), or "none".
        channels_last: compute in this memory layout, the faster one on most devices.
        fused: update all weights by PyTorch's fused optimiser, the faster one on CPUs.
        max_memory: bytes that the process (on a GPU: PyTorch) may hold, in an option file also text such as "4G"; the
            cheapest way that fits is taken.
    """

    steps: int = 5
    lr: float = 3e-6
    optimizer: Optimizer = "adam"
    target: Target = "current"
    histogram: HistogramMatching = "skimage"
    parameters: Literal["all"] | tuple[str, ...] = "all"
    keep: Literal["all"] | tuple[int, ...] = "all"
    max_change: float | None = 0.1
    amp: Amp = "none"
    channels_last: bool = False
    fused: bool = False
    max_memory: int | None = None

    def __post_init__(self) -> None:
        if not _is_whole(self.steps) or self.steps < 0:
            raise AdaptError(f"steps: expected a whole number of updates >= 0, got {self.steps!r}")
        if not _is_positive(self.lr):
            raise AdaptError(f"lr: expected a learning rate > 0 such as 3e-6, got {self.lr!r}")
        choices = {"optimizer": Optimizer, "target": Target, "histogram": HistogramMatching, "amp": Amp}
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in get_args(known):
                raise AdaptError(f"{name}: expected one of {', '.join(get_args(known))}, got {value!r}")
        for name, kind, what in (("parameters", str, "names of weights"), ("keep", int, "steps")):
            value = getattr(self, name)
            if value == "all":
                continue
            if isinstance(value, str) or not isinstance(value, Sequence) or not all(type(v) is kind for v in value):
                raise AdaptError(f"{name}: expected all or a list of {what}, got {value!r}")
            object.__setattr__(self, name, tuple(value))  # option files have lists
        if self.keep != "all" and not all(0 <= number <= self.steps for number in self.keep):
            raise AdaptError(f"keep: expected steps from 0 to {self.steps}, got {list(self.keep)}")
        if self.max_change is not None and not _is_positive(self.max_change):
            raise AdaptError(
                f"max_change: expected a mean difference > 0 such as 0.1, or None, got {self.max_change!r}"
            )
        for name in ("channels_last", "fused"):
            if not isinstance(getattr(self, name), bool):
                raise AdaptError(f"{name}: expected True or False, got {getattr(self, name)!r}")
        if self.max_memory is not None:
            object.__setattr__(self, "max_memory", bytes_of(self.max_memory))

    def keeps(self, number: int) -> bool:
        """Return whether the image after `number` updates is kept."""
        return self.keep == "all" or number in (0, self.steps, *self.keep)


def bytes_of(size: int | str) -> int:
    """Return the bytes that a number or "4G", "800M", "2.5 GiB" means; a letter counts in powers of 1024.

    Raises:
        AdaptError: if it means none.
    """
    found = re.fullmatch(r"(\d+\.?\d*) ?([KMGT]?)(i?B)?", size, re.IGNORECASE) if isinstance(size, str) else None
    if found:
        number = float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ")
        size = int(number) if math.isfinite(number) else size
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise AdaptError(f"max_memory: expected bytes > 0 or a size such as 4G or 800M, got {size!r}")
    return size


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
