"""What the page's server was started with, and what a visitor may choose."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from reblur_plugin.core.choices import AdaptError, bytes_of
from reblur_plugin.errors import ReblurError
from reblur_plugin.pretrained.catalogue import best_here, catalogue

MOST_STEPS = 50
PRECISIONS = {"none": "float32", "bf16": "bf16, faster and less exact", "auto": "bf16 where the device is made for it"}


class WishError(ReblurError):
    """A choice that can't be followed; the message says what is possible."""


@dataclass(frozen=True)
class Settings:
    """The command line's arguments.

    Attributes:
        weights, reblur_weights: offered before the named ones; None for none.
        network, deblurred_output, device, modules: as for the command `deblur`, for all visitors.
        max_memory: bytes that no visitor's choice goes beyond; None for none.
        max_upload: bytes of a file.
        max_pixels: of a photograph.
        password: asked for before anything is shown; None for none.
        hosts: names by which browsers may call this server; "*" for any.
        in_frames: whether other pages may show this one (a Space).
    """

    weights: str | None = None
    reblur_weights: str | None = None
    network: str | None = None
    deblurred_output: str | int | None = None
    device: str = "auto"
    modules: tuple[str, ...] = ()
    max_memory: int | None = None
    max_upload: int = 256 * 2**20
    max_pixels: float = 64e6
    password: str | None = None
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost")
    in_frames: bool = False

    def for_worker(self) -> str:
        """Return what a worker process needs to know."""
        names = ("device", "network", "deblurred_output", "modules", "max_pixels")
        return json.dumps({name: getattr(self, name) for name in names})

    def offered(self) -> dict[str, str]:
        """Return the weights that all visitors may choose, the best first, with a line on each."""
        found = {one.name: one.about for one in catalogue() if one.is_here}
        if self.weights is None:
            return found
        name = self._name_of_own
        return {name: found.get(name, "given when the page was started")} | found

    @property
    def _name_of_own(self) -> str:
        """Return what visitors see of `weights`: no folder of this machine."""
        return PurePath(self.weights or "").name

    def better(self) -> str:
        """Return a sentence on better weights that would have to be fetched; empty, if there are none."""
        return best_here()[1]

    def wishes(self, given: Any, own: dict[str, Path]) -> dict[str, Any]:
        """Return a visitor's choices as a worker takes them.

        Args:
            given: what the page has sent.
            own: the visitor's own files of weights, by name.

        Raises:
            WishError: if something isn't possible.
        """
        if not isinstance(given, dict):
            raise WishError("choices: expected an object")
        weights, reblur_weights = given.get("weights"), given.get("reblur_weights") or None
        offered = self.offered()
        for name, known in ((weights, [*offered, *own]), (reblur_weights, [None, *own])):
            if not isinstance(name, str | None) or name not in known:
                raise WishError(f"weights: expected one of {', '.join(map(str, known))}, got {name!r}")
        steps, amp = given.get("steps"), given.get("amp")
        if type(steps) is not int or not 0 <= steps <= MOST_STEPS:
            raise WishError(f"steps: expected a whole number from 0 to {MOST_STEPS}, got {steps!r}")
        if not isinstance(amp, str) or amp not in PRECISIONS:
            raise WishError(f"precision: expected one of {', '.join(PRECISIONS)}, got {amp!r}")
        files: dict[str, tuple[str, str | None]] = {name: (str(path), None) for name, path in own.items()}
        if self.weights is not None:
            files = {self._name_of_own: (self.weights, self.reblur_weights)} | files
        path, partner = files.get(str(weights), (str(weights), None))
        return {
            "weights": path,
            "reblur_weights": partner if reblur_weights is None else str(own[reblur_weights]),
            "steps": steps,
            "max_memory": self._memory(given.get("max_memory")),
            "amp": amp,
            "sent": [str(own[name]) for name in (weights, reblur_weights) if name in own],
        }

    def _memory(self, given: Any) -> int | None:
        text = "" if given is None else str(given).strip()
        try:
            asked = bytes_of(text) if text else None
        except AdaptError:
            raise WishError(f"memory: expected a size such as 4G or 800M, or nothing, got {text!r}") from None
        bounds = [size for size in (asked, self.max_memory) if size is not None]
        return min(bounds, default=None)
