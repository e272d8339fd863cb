"""The process that deblurs for the page. Requests and events are lines of JSON, pictures are files.

It is ended to cancel what it does, at once and with all its memory; another one takes its place. Requests:

    {"do": "look", "source": ..., "folder": ..., "wishes": ...}     check a photograph, show it, say what it will take
    {"do": "deblur", "source": ..., "folder": ..., "wishes": ...}   deblur and adapt; the result goes to the folder

Each is answered by events, of which the last is "done" or "failed".
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reblur_plugin import checkpoints, host, registration
from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.core import memory
from reblur_plugin.core.adapt import Adaptation, Adapter
from reblur_plugin.core.boundary import choose_output
from reblur_plugin.core.device import device_named, give_back
from reblur_plugin.core.histogram import match_histogram
from reblur_plugin.core.objectives import l1
from reblur_plugin.core.parts import Plan
from reblur_plugin.core.reblurability import reblurability_map
from reblur_plugin.data.images import ImageError, write_image
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.pictures import REBLURRED_TOP, heat_map
from reblur_plugin.networks import Networks, load
from reblur_plugin.photographs import deblurring
from reblur_plugin.photographs.photograph import Photograph, size_of
from reblur_plugin.pretrained.catalogue import usual_lr

_LONGEST = 600  # letters of a message
_AROUND = 2**31  # bytes that libraries ask for without using them
_LOSSLESS = 4e6  # pixels up to which the page gets PNG; JPEG of quality 95 beyond
Event = dict[str, Any]


@dataclass(frozen=True)
class Wishes:
    """What a visitor has chosen; `max_memory` in bytes, None for what is free; `sent`: files that the visitor sent."""

    weights: str
    reblur_weights: str | None
    steps: int
    max_memory: int | None
    amp: Any
    sent: list[str]


class Deblurring:
    """Answers requests; keeps the networks and the costs of the last choice.

    Args:
        choices: what holds for all requests: device, network, deblurred_output, max_pixels.
        tell: takes an event.
    """

    def __init__(self, choices: dict[str, Any], tell: Callable[[Event], None]) -> None:
        self._device = device_named(choices["device"])
        _bound_memory(self._device)
        self._block = deblurring.network_block(choices["network"])
        self._output = choices["deblurred_output"]
        self._max_pixels = choices["max_pixels"]
        self._tell = tell
        self._loaded: tuple[Any, Networks] | None = None
        self._adapter: tuple[Wishes, Adapter] | None = None

    def answer(self, request: dict[str, Any]) -> None:
        """Do what is asked; whatever goes wrong is an event, in the command's own sentence."""
        source = Path(request["source"])
        try:
            act = {"look": self._look, "deblur": self._deblur}[request["do"]]
            act(source, Path(request["folder"]), Wishes(**request["wishes"]))
            self._tell({"event": "done"})
        except ReblurError as error:
            self._tell({"event": "failed", "why": _in_a_line(str(error))})
        except Exception as error:  # whatever one photograph leads to, the others are done
            self._tell({"event": "failed", "why": _in_a_line(deblurring.in_a_sentence(error))})
        finally:
            give_back()

    def _look(self, source: Path, folder: Path, wishes: Wishes) -> None:
        photograph = self._photograph(source)
        height, width = photograph.pixels.shape[:2]
        shown = _shown(photograph, folder / "blurry")
        self._tell({"event": "photograph", "width": width, "height": height, "src": shown, "told": photograph.told})
        self._plan(photograph, self._adapter_for(wishes))

    def _deblur(self, source: Path, folder: Path, wishes: Wishes) -> None:
        photograph = self._photograph(source)
        adapter = self._adapter_for(wishes)
        plan = self._plan(photograph, adapter)
        blurry = photograph.rgb().to(self._device)
        total = len(plan.tiles(*blurry.shape[-2:])) * (wishes.steps + 1)
        done = iter(range(1, total + 1))
        initial: list[Tensor] = []
        method: Any = adapter.config.histogram

        def tick() -> None:
            self._tell({"event": "pass", "done": next(done), "of": total})

        def seen(number: int, deblurred: Tensor) -> None:
            if number == 0:
                initial.append(deblurred)
            if number == 0 or number < wishes.steps:  # the last one is the result, which comes by itself
                matched = match_histogram(deblurred, initial[0], method) if number else deblurred
                self._step(photograph, folder, number, matched, initial[0] if number else blurry)

        adaptation = adapter(blurry, plan, tick, seen)
        result = photograph.with_rgb(adaptation.image)
        result.save(folder / f"result{source.suffix}")
        if wishes.steps:
            self._step(photograph, folder, wishes.steps, adaptation.image, adaptation.initial)
        self._tell({"event": "result", "file": f"result{source.suffix}", "fallback": adaptation.fallback})
        self._find_blur(folder, adapter, adaptation)

    def _photograph(self, source: Path) -> Photograph:
        size = size_of(source)
        if size is not None and size[0] * size[1] > self._max_pixels:
            raise ImageError(
                f"{source}: expected at most {self._max_pixels / 1e6:g} megapixels, got {size[0]}x{size[1]}; "
                "use a smaller picture, or start the page with a larger --max-megapixels"
            )
        return Photograph.load(source)

    def _adapter_for(self, wishes: Wishes) -> Adapter:
        if self._adapter is None or self._adapter[0] != wishes:
            networks = self._networks(wishes)
            lr = usual_lr(wishes.weights)
            config = deblurring.config_for(self._device, wishes.steps, lr, wishes.amp, wishes.max_memory)
            self._adapter = wishes, deblurring.adapter_for(*networks, config, self._device)
        return self._adapter[1]

    def _networks(self, wishes: Wishes) -> Networks:
        adapted = wishes.steps > 0
        key = wishes.weights, wishes.reblur_weights, adapted
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = self._adapter = None  # two pairs of networks at once need not fit
            found = self._load(wishes, adapted)
            choose_output(found.deblur_net, self._output)
            self._loaded = key, found
        return self._loaded[1]

    def _load(self, wishes: Wishes, adapted: bool) -> Networks:
        for path in wishes.sent:
            _refuse_hosts_networks(Path(path))
        files = wishes.weights, None if wishes.reblur_weights is None else Path(wishes.reblur_weights), self._block
        if not adapted:
            with suppress(CheckpointError):  # M_R shows where blur is left; without it the result is the same
                return load(*files)
        return deblurring.load_networks(*files, adapted=adapted)

    def _plan(self, photograph: Photograph, adapter: Adapter) -> Plan:
        height, width = photograph.pixels.shape[:2]
        like = torch.empty((), device=self._device).expand(1, 3, height, width)
        plan = deblurring.plan_within_memory(adapter, like)
        words = deblurring.described(plan, len(plan.tiles(height, width)))
        self._tell({"event": "plan", "seconds": plan.seconds, "words": words})
        return plan

    def _step(self, photograph: Photograph, folder: Path, number: int, image: Tensor, before: Tensor) -> None:
        """Show L^0 or L_Adapted^i, and how many grey levels it differs from B or L^0."""
        src = _shown(photograph.with_rgb(image), folder / f"step_{number}")
        change = l1(image.float().clamp(0, 1), before.float().clamp(0, 1)).item() * 255
        self._tell({"event": "step", "number": number, "src": src, "change": _finite(change)})

    def _find_blur(self, folder: Path, adapter: Adapter, adaptation: Adaptation) -> None:
        """Show where M_R changes L^0 and L_Adapted."""
        if self._loaded is None or self._loaded[1].reblur_net is None:
            return
        stages = {0: adaptation.initial, adapter.config.steps: adaptation.image}
        for number, image in stages.items():
            change = reblurability_map(adapter.reblur_net, image.float().clamp(0, 1))[0, 0].cpu().numpy() * 255
            path = folder / f"blur_{number}{_suffix(change.size)}"
            write_image(path, heat_map(change, REBLURRED_TOP))
            self._tell({"event": "blur", "number": number, "src": path.name, "mean": _finite(float(change.mean()))})


def _refuse_hosts_networks(path: Path) -> None:
    """Refuse a visitor's checkpoint that names a network of BasicSR's: some of them read files or ask other machines.

    Raises:
        CheckpointError: in this case.
    """
    told = checkpoints.options(path) if path.suffix.lower() != ".safetensors" else {}
    table = host.registry.ARCH_REGISTRY
    for block in told.values():
        kind = block.get("type") if isinstance(block, dict) else None
        if isinstance(kind, str) and kind in table and table.get(kind).__module__.startswith("basicsr."):
            raise CheckpointError(
                f"{path}: expected a network of reblur_plugin, or weights alone, got {kind}; on your own machine, "
                "start the page with --weights"
            )


def _in_a_line(sentence: str) -> str:
    """Return what a card can show of a message."""
    line = " ".join(sentence.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _bound_memory(device: torch.device) -> None:
    """Let a file that unpacks to more than the machine has fail by itself, before the system ends a process for it."""
    free = memory.free()
    if device.type == "cpu" and free is not None:
        with suppress(ImportError, ValueError, OSError):  # Windows, and systems without such a bound
            import resource

            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            wanted = free + _AROUND
            resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _shown(photograph: Photograph, path: Path) -> str:
    """Write a photograph as browsers show it, in its own colours; return the file's name."""
    pixels = photograph.pixels[..., : 3 if photograph.pixels.shape[2] > 2 else 1]
    if pixels.dtype == np.uint16:
        pixels = (pixels / 257).round().astype(np.uint8)
    path = path.with_suffix(_suffix(pixels.shape[0] * pixels.shape[1]))
    replace(photograph, pixels=pixels, exif=None).save(path)
    return path.name


def _suffix(pixels: int) -> str:
    """Return the format of a picture of so many pixels that the page shows."""
    return ".png" if pixels <= _LOSSLESS else ".jpg"


def main() -> None:
    """Answer requests until the other side is gone."""
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    choices = json.loads(sys.argv[1])
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print isn't taken for an event

    def tell(event: Event) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    try:
        host.import_modules(choices["modules"])
        registration.register()
        answers = Deblurring(choices, tell)
    except ReblurError as error:
        while True:
            requests.get()
            tell({"event": "failed", "why": str(error)})
    while True:
        answers.answer(requests.get())


def _read(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)  # the server has gone; nobody waits for what this process does


if __name__ == "__main__":
    main()
