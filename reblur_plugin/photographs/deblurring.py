"""Deblurs and adapts to anybody's photographs, by the networks in a checkpoint of ReblurModel."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.core.adapt import Adaptation, AdaptConfig, Adapter
from reblur_plugin.core.choices import Amp
from reblur_plugin.core.device import available, in_gib, whose_memory_ended
from reblur_plugin.core.parts import Plan
from reblur_plugin.data.images import to_uint8, write_image
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.pictures import comparison
from reblur_plugin.networks import Networks, load
from reblur_plugin.options import components
from reblur_plugin.options.reading import OptionError, Options, parse
from reblur_plugin.photographs.jobs import Job
from reblur_plugin.photographs.photograph import Photograph
from reblur_plugin.photographs.sharing import Jobs


def network_block(text: str | None) -> Options | None:
    """Return the block that `--network` writes as an option file does; None, if there is none.

    Raises:
        OptionError: if it isn't a block, or names a class or an option that isn't known.
    """
    if text is None:
        return None
    block = parse(text, f"--network {text}")
    if not isinstance(block, dict):
        raise OptionError(f"--network: expected a block such as '{{type: DHN}}', got {text!r}")
    if found := components.problems({"network_g": block}):
        raise OptionError("; ".join(problem.replace("network_g", "--network", 1) for problem in found))
    return block


def load_networks(
    weights: str, reblur_weights: Path | None, network: Mapping[str, Any] | None, adapted: bool
) -> Networks:
    """Return M_D and, if it is needed (`adapted`), M_R; arguments and errors as for `networks.load`.

    Raises:
        CheckpointError: also if there is no M_R and one is needed.
    """
    found = load(weights, reblur_weights, network, adapted)
    if adapted and found.reblur_net is None:
        raise CheckpointError(
            f"{weights}: has no M_R to adapt by; give --reblur-weights (docs/photographs.md) or --steps 0"
        )
    return found


def config_for(device: torch.device, steps: int, lr: float, amp: Amp, max_memory: int | None) -> AdaptConfig:
    """Return how photographs are adapted to on a device: in its fastest forms, whose results have 8 or 16 bits."""
    return AdaptConfig(
        steps=steps,
        lr=lr,
        histogram="torch" if device.type == "cuda" else "skimage",
        keep=(),
        amp=amp,
        channels_last=True,
        fused=device.type in ("cpu", "cuda"),
        max_memory=max_memory,
    )


def adapter_for(
    deblur_net: nn.Module, reblur_net: nn.Module | None, config: AdaptConfig, device: torch.device
) -> Adapter:
    """Return what adapts to one photograph after the other; each begins at theta_D."""
    return Adapter(deblur_net.to(device), (reblur_net or nn.Identity()).to(device), config, decay=0)


def plan_within_memory(adapter: Adapter, blurry: torch.Tensor) -> Plan:
    """Return how a photograph is adapted to within the bound that is configured, or else what the machine has free."""
    return adapter.plan(blurry, adapter.config.max_memory or available(blurry.device))


def deblur(
    jobs: Jobs | Sequence[Job],
    deblur_net: nn.Module,
    reblur_net: nn.Module | None,
    config: AdaptConfig,
    device: torch.device,
) -> list[str]:
    """Write the results; return a sentence for each photograph that failed, after all others are done.

    What each will take is said before it starts, within `config.max_memory` or else what the machine has free.
    `Jobs` may be shared with other processes.
    """
    jobs = jobs if isinstance(jobs, Jobs) else Jobs(list(jobs))
    adapter = adapter_for(deblur_net, reblur_net, config, device)
    failures = []
    with tqdm(total=len(jobs), unit="photograph", disable=None if len(jobs) > 1 else True) as bar:
        for number, job in jobs:
            bar.update(number - bar.n)
            try:
                _deblur(job, adapter, device)
            except ReblurError as error:
                failures.append(str(error) if str(job.source) in str(error) else f"{job.source}: {error}")
            except Exception as error:  # whatever one photograph leads to, the others are done
                failures.append(f"{job.source}: {in_a_sentence(error)}")
            bar.update()
    return failures


def in_a_sentence(error: Exception) -> str:
    """Return what went wrong with a photograph for whatever reason, and what to do if memory was it."""
    where = whose_memory_ended(error)
    if where is None:
        return f"{type(error).__name__}: {error}"
    cpu = ", or --device cpu" if where == "the GPU" else ""
    return f"{where}'s memory is full; give --max-memory less than it has{cpu}"


def _deblur(job: Job, adapter: Adapter, device: torch.device) -> None:
    photograph = Photograph.load(job.source)
    for note in photograph.told:
        _say(f"{job.source}: {note}")
    blurry = photograph.rgb().to(device)
    plan = plan_within_memory(adapter, blurry)
    adaptation = _adapt(job.source.name, adapter, blurry, plan)
    if adaptation.fallback:
        _say(f"{job.source}: not adapted, {adaptation.fallback}")
    photograph.with_rgb(adaptation.image).save(job.target)
    if job.comparison:
        stages = {"blurry": blurry, "deblurred": adaptation.initial, "adapted": adaptation.image}
        pictures = {
            name: to_uint8(image) for name, image in stages.items() if name != "adapted" or adapter.config.steps
        }
        write_image(job.comparison, comparison(pictures))


def _adapt(name: str, adapter: Adapter, blurry: torch.Tensor, plan: Plan) -> Adaptation:
    height, width = blurry.shape[-2:]
    tiles = len(plan.tiles(height, width))
    _say(f"{name}: {width}x{height}, {described(plan, tiles)}")
    with tqdm(total=tiles * (adapter.config.steps + 1), unit="pass", desc=name, leave=False, disable=None) as bar:
        return adapter(blurry, plan, bar.update)


def described(plan: Plan, tiles: int) -> str:
    """Return the time and memory that a plan expects, in words."""
    pieces = f", {tiles} tiles" if tiles > 1 else ""
    return f"about {_in_words(plan.seconds)}, {in_gib(plan.memory)}{pieces}"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)


def _in_words(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
