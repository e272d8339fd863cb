"""The command `tta`: adaptation beside Algorithm 1 with nothing saved."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
from reblur_plugin.core.choices import Amp, HistogramMatching
from reblur_plugin.core.device import device_named, has_fast_bf16
from reblur_plugin.core.memory import Costs
from reblur_plugin.core.objectives import finest
from reblur_plugin.core.plan import Plan

_NETWORKS: dict[str, Callable[[], nn.Module]] = {"U-Net": ResUNet, "DHN": DHN, "SRN": SRN}
_LR = 3e-6
_COUNTED = 64  # pixels each way where operations are counted; they grow with the pixels
_NOTES = [
    "time ratio: median over the rounds of time / plain time in the same round; floor: the same of operations",
    "difference: largest one to the plain L^N before histogram matching; moved: largest of that L^N to L^0",
]


@dataclass(frozen=True)
class Form:
    """A way to adapt.

    `plain` is Algorithm 1 with nothing saved; `looped` computes line 9 in every step, where the paper's indentation
    puts it, though only the last L^N is used.
    """

    plain: bool = False
    looped: bool = False
    amp: Amp = "none"
    channels_last: bool = False
    fused: bool = False
    checkpointed: bool = False

    @property
    def name(self) -> str:
        """What is special about it."""
        words = ["plain" if self.plain else "ours", "fp32" if self.amp == "none" else self.amp]
        words += ["looped"] * self.looped + ["channels_last"] * self.channels_last
        words += ["fused"] * self.fused
        words += ["checkpointed"] * self.checkpointed
        return " ".join(words)


@dataclass(frozen=True)
class Work:
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
    works = [Work(name, width, height, steps, str(device)) for width, height in sizes for name in names]
    cases = [_case(work, arguments, device) for work in works]
    return Results("adaptation to one photograph", measure.machine(device), cases, _NOTES)


def _forms(device: torch.device) -> list[Form]:
    low = has_fast_bf16(device)
    precisions: tuple[Amp, ...] = ("none", "bf16") if low else ("none",)
    ours = []
    for amp, channels_last in product(precisions, (False, True)):
        form = Form(amp=amp, channels_last=channels_last)
        ours += [form, replace(form, fused=True), replace(form, checkpointed=True)]
    return [Form(plain=True), Form(plain=True, looped=True), *ours]


def _case(work: Work, arguments: argparse.Namespace, device: torch.device) -> Case:
    forms = measure.chosen({form.name: form for form in _forms(device)}, arguments.forms)
    depths = _checkpointed(work)
    runs = {name: _adaptation(form, work, depths) for name, form in forms.items()}
    first, last = _ends(forms, work, depths)
    clock = measure.clock_of(arguments.processor_time, device)
    seconds = measure.interleaved(runs, arguments.repeats, device, 0, clock)  # _ends has run each form once
    runs.clear()
    moved = float((last["plain fp32"] - first).abs().max())
    rows = []
    low_rate = measure.matmul_rate(device, torch.bfloat16, clock=clock)
    short = replace(work, steps=min(work.steps, 2))  # the second step has Adam's state and is as high as any later one
    for name, form in forms.items():
        given: dict[str, Any] = {"form": asdict(form), "work": asdict(short), "depths": depths}
        peak = None if arguments.no_memory else measure.peak_memory(prepare, device, 1, **given)
        difference = float((last[name] - last["plain fp32"]).abs().max())
        flops = _flops(form, work, depths)
        values = {"difference": difference, "moved": moved}
        rows.append(Row(name, seconds[name], peak, flops, None if form.amp == "none" else low_rate, values))
    rate = measure.matmul_rate(device, torch.float32, clock=clock)
    settings = asdict(work) | {
        "depths": depths,
        "seconds": "of the processor" if arguments.processor_time else "of the clock",
    }
    return Case(f"{work.network} with M_R n2", "plain fp32", rows, settings, rate)


def _checkpointed(work: Work) -> tuple[int | None, int | None]:
    """Return which parts of M_D and M_R are checkpointed: those that the plan for a small bound takes."""
    deblur_net, reblur_net, blurry = _problem(work)
    plan = Costs(deblur_net, reblur_net, blurry, AdaptConfig(steps=1)).checkpointed.plan
    return plan.deblur_depth, plan.reblur_depth


def prepare(form: dict[str, Any], work: dict[str, Any], depths: tuple[int | None, int | None]) -> Callable[[], object]:
    """Return an adaptation for `measure.peak_memory`, in whatever process this is; what loads late has been loaded."""
    chosen = Form(**form)
    _adaptation(chosen, Work(**work | {"width": 64, "height": 64, "steps": 1}), depths)()
    return _adaptation(chosen, Work(**work), depths)


def _problem(work: Work) -> tuple[nn.Module, nn.Module, Tensor]:
    """Return networks and B of random numbers: what is in them changes no time."""
    torch.manual_seed(0)
    deblur_net, reblur_net = _NETWORKS[work.network]().to(work.device), ReblurNet(2).to(work.device)
    return deblur_net, reblur_net, torch.rand(1, 3, work.height, work.width).to(work.device)


def _adaptation(form: Form, work: Work, depths: tuple[int | None, int | None]) -> Callable[[], Tensor]:
    deblur_net, reblur_net, blurry = _problem(work)
    if form.plain:
        return lambda: plain(deblur_net, reblur_net, blurry, work.steps, form.looped)
    config, plan = _choices(form, work), Plan(*depths) if form.checkpointed else Plan()
    return lambda: adapt(deblur_net, reblur_net, blurry, config, plan=plan).image


def _choices(form: Form, work: Work) -> AdaptConfig:
    """Return the form's choices; histograms are matched where `reblur_plugin.deblur` does, on a GPU by itself."""
    histogram: HistogramMatching = "torch" if work.device.startswith("cuda") else "skimage"
    speed: dict[str, Any] = {"amp": form.amp, "channels_last": form.channels_last, "fused": form.fused}
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
    for _ in range(steps):
        with torch.no_grad():
            target = finest(deblur_net(blurry))  # line 6
        deblurred = finest(deblur_net(blurry))
        loss = (reblur_net(deblurred) - target).abs().mean()  # line 7
        optimizer.zero_grad()
        reblur_net.zero_grad()
        loss.backward()
        optimizer.step()  # line 8
        if looped:
            with torch.no_grad():
                adapted = finest(deblur_net(blurry))  # line 9
    if not looped:
        with torch.no_grad():
            adapted = finest(deblur_net(blurry))  # line 9
    deblur_net.load_state_dict(trained)
    return initial, adapted


def _ends(
    forms: dict[str, Form], work: Work, depths: tuple[int | None, int | None]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the plain L^0, and L^N of every form before histogram matching."""
    deblur_net, reblur_net, blurry = _problem(work)
    first, expected = ends(deblur_net, reblur_net, blurry, work.steps)
    last = {name: expected for name, form in forms.items() if form.plain}
    for name, form in forms.items():
        if not form.plain:
            plan = Plan(*depths) if form.checkpointed else Plan()
            config = replace(_choices(form, work), histogram="none")
            last[name] = adapt(deblur_net, reblur_net, blurry, config, plan=plan).image.float()
    return first, last


def _flops(form: Form, work: Work, depths: tuple[int | None, int | None]) -> float:
    """Return the operations of one adaptation, counted on a small image on a CPU."""
    small = Work(work.network, _COUNTED, _COUNTED, work.steps, "cpu")
    counted = replace(form, amp="none", channels_last=False, fused=False)
    return count_flops(_adaptation(counted, small, depths)) * work.width * work.height / _COUNTED**2
