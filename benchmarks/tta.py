"""The command `tta`: adaptation beside Algorithm 1 with nothing saved."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import torch
from skimage.exposure import match_histograms
from torch import Tensor, nn

from benchmarks import measure
from benchmarks.flops import count_flops
from benchmarks.report import Case, Results, Row
from reblur_plugin.archs.dmphn_arch import DHN
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core.adapt import AdaptConfig, adapt
from reblur_plugin.core.boundary import finest
from reblur_plugin.core.budget import Costs
from reblur_plugin.core.device import device_named, has_fast_bf16
from reblur_plugin.core.parts import Plan

_NETWORKS: dict[str, Callable[[], nn.Module]] = {"U-Net": ResUNet, "DHN": DHN, "SRN": SRN}
_LR = 3e-6
_DTYPES = {"none": torch.float32, "bf16": torch.bfloat16}
_COUNTED = 64  # pixels each way where operations are counted; they grow with the pixels
_NOTES = [
    "time ratio: median over the rounds of time / plain time in the same round; floor: the same of operations",
    "difference: largest one to the plain L^N before histogram matching; moved: largest of that L^N to L^0",
]


@dataclass(frozen=True)
class AdaptForm:
    """A way to adapt.

    `plain` is Algorithm 1 with nothing saved; `looped` computes line 9 in every step, where the paper's indentation
    puts it, though only the last L^N is used.
    """

    plain: bool = False
    looped: bool = False
    amp: str = "none"
    channels_last: bool = False
    fused: bool = False
    checkpointed: bool = False

    @property
    def name(self) -> str:
        """What is special about it."""
        flags = [name for name in ("looped", "channels_last", "fused", "checkpointed") if getattr(self, name)]
        return " ".join(["plain" if self.plain else "ours", "fp32" if self.amp == "none" else self.amp, *flags])


@dataclass(frozen=True)
class AdaptWork:
    """What is to be adapted."""

    network: str
    width: int
    height: int
    steps: int
    device: str


def run(arguments: argparse.Namespace) -> Results:
    """Measure a case for each network and size."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = device_named(arguments.device)
    torch.backends.cudnn.benchmark = True  # as in the command test, for all forms
    sizes = arguments.sizes or ([(640, 360), (1280, 720)] if device.type == "cuda" else [(160, 96)])
    steps = arguments.steps
    if arguments.quick:
        sizes, steps = [(32, 32)], 1
    names = arguments.networks or _NETWORKS
    works = [AdaptWork(name, width, height, steps, str(device)) for width, height in sizes for name in names]
    cases = [_case(work, arguments, device) for work in works]
    return Results("adaptation to one photograph", measure.machine(device), cases, _NOTES)


def _forms(device: torch.device) -> list[AdaptForm]:
    ours = []
    for amp, channels_last in product(["none", *["bf16"] * has_fast_bf16(device)], (False, True)):
        form = AdaptForm(amp=amp, channels_last=channels_last)
        ours += [form, replace(form, fused=True), replace(form, checkpointed=True)]
    return [AdaptForm(plain=True), AdaptForm(plain=True, looped=True), *ours]


def _case(work: AdaptWork, arguments: argparse.Namespace, device: torch.device) -> Case:
    forms = measure.chosen({form.name: form for form in _forms(device)}, arguments.forms)
    checkpoints = _checkpoints(work)
    runs = {name: _adaptation(form, work, checkpoints) for name, form in forms.items()}
    first, last = _ends(forms, work, checkpoints)
    clock = measure.clock_of(arguments.processor_time, device)
    seconds = measure.interleaved(runs, arguments.repeats, device, 0, clock)  # _ends has run each form once
    runs.clear()
    expected = last["plain fp32"]
    moved = float((expected - first).abs().max())
    rates = {name: measure.matmul_rate(device, dtype, clock=clock) for name, dtype in _DTYPES.items()}
    short = replace(work, steps=min(work.steps, 2))  # the second step has Adam's state and is as high as any later one
    rows = []
    for name, form in forms.items():
        given: dict[str, Any] = {"form": form, "work": short, "checkpoints": checkpoints}
        peak = None if arguments.no_memory else measure.peak_memory(prepare, device, 1, **given)
        values = {"difference": float((last[name] - expected).abs().max()), "moved": moved}
        rows.append(Row(name, seconds[name], peak, _flops(form, work, checkpoints), rates[form.amp], values))
    settings = asdict(work) | {"seconds": measure.clock_name(arguments.processor_time)}
    settings["depths"] = [checkpoints.deblur_depth, checkpoints.reblur_depth]
    return Case(f"{work.network} with M_R n2", "plain fp32", rows, settings)


def _checkpoints(work: AdaptWork) -> Plan:
    """Return which parts of M_D and M_R are checkpointed: those that the plan for a small bound takes."""
    return Costs(*_problem(work), AdaptConfig(steps=1)).checkpointed.plan


def prepare(form: AdaptForm, work: AdaptWork, checkpoints: Plan) -> Callable[[], object]:
    """Return an adaptation for `measure.peak_memory`, in whatever process this is; what loads late has been loaded."""
    _adaptation(form, replace(work, width=64, height=64, steps=1), checkpoints)()
    return _adaptation(form, work, checkpoints)


def _problem(work: AdaptWork) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return networks and B of random numbers: what is in them changes no time."""
    torch.manual_seed(0)
    deblur_net, reblur_net = _NETWORKS[work.network]().to(work.device), ReblurNet(2).to(work.device)
    return deblur_net, reblur_net, torch.rand(1, 3, work.height, work.width).to(work.device)


def _adaptation(form: AdaptForm, work: AdaptWork, checkpoints: Plan) -> Callable[[], Tensor]:
    problem = _problem(work)
    if form.plain:
        return lambda: plain(*problem, work.steps, form.looped)
    config, plan = _config(form, work), checkpoints if form.checkpointed else Plan()
    return lambda: adapt(*problem, config, plan=plan).image


def _config(form: AdaptForm, work: AdaptWork) -> AdaptConfig:
    """Return the form's choices; histograms are matched where `reblur_plugin.deblur` does, on a GPU by itself."""
    speed: dict[str, Any] = {name: getattr(form, name) for name in ("amp", "channels_last", "fused")}
    histogram: Any = "torch" if work.device.startswith("cuda") else "skimage"
    return AdaptConfig(work.steps, _LR, histogram=histogram, keep=(), **speed)


def plain(deblur_net: nn.Module, reblur_net: nn.Module, blurry: Tensor, steps: int, looped: bool = False) -> Tensor:
    """Return L_Adapted^N with nothing saved: L^0 and L^N, matched by scikit-image in float."""
    found = ends(deblur_net, reblur_net, blurry, steps, looped)
    first, last = (image[0].permute(1, 2, 0).cpu().numpy() for image in found)
    matched = match_histograms(last, first, channel_axis=-1)  # line 10
    return torch.from_numpy(matched).permute(2, 0, 1)[None].to(blurry.device)


def ends(
    deblur_net: nn.Module, reblur_net: nn.Module, blurry: Tensor, steps: int, looped: bool = False
) -> tuple[Tensor, Tensor]:
    """Return L^0 and L^N, line by line; `looped` runs line 9 in every step, else it runs once.

    Independent of this package's own: each line that names an image computes it, and gradient is made for M_R as well.
    """
    trained = copy.deepcopy(deblur_net.state_dict())
    optimizer = torch.optim.Adam(deblur_net.parameters(), lr=_LR)
    with torch.no_grad():
        initial = finest(deblur_net(blurry))  # line 4
    for step in range(1, steps + 1):
        with torch.no_grad():
            target = finest(deblur_net(blurry))  # line 6
        deblurred = finest(deblur_net(blurry))
        loss = (reblur_net(deblurred) - target).abs().mean()  # line 7
        optimizer.zero_grad()
        reblur_net.zero_grad()
        loss.backward()
        optimizer.step()  # line 8
        if looped or step == steps:
            with torch.no_grad():
                adapted = finest(deblur_net(blurry))  # line 9
    deblur_net.load_state_dict(trained)
    return initial, adapted


def _ends(forms: dict[str, AdaptForm], work: AdaptWork, checkpoints: Plan) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the plain L^0, and L^N of every form before histogram matching."""
    problem = _problem(work)
    first, expected = ends(*problem, work.steps)
    last = {name: expected for name, form in forms.items() if form.plain}
    for name, form in forms.items():
        if not form.plain:
            config = replace(_config(form, work), histogram="none")
            plan = checkpoints if form.checkpointed else Plan()
            last[name] = adapt(*problem, config, plan=plan).image.float()
    return first, last


def _flops(form: AdaptForm, work: AdaptWork, checkpoints: Plan) -> float:
    """Return the operations of one adaptation."""
    counted = replace(form, amp="none", channels_last=False, fused=False)
    small = replace(work, width=_COUNTED, height=_COUNTED, device="cpu")
    return _flops_of_patch(counted, small, checkpoints) * work.width * work.height / _COUNTED**2


@cache
def _flops_of_patch(form: AdaptForm, work: AdaptWork, checkpoints: Plan) -> int:
    return count_flops(_adaptation(form, work, checkpoints))
