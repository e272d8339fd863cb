"""The command `step`: ReblurModel's iteration beside the plain one, over networks, layouts and precisions."""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import measure
from benchmarks.flops import count_flops
from benchmarks.plain import PlainStep
from benchmarks.report import Case, Results, Row
from reblur_plugin import registration
from reblur_plugin.core.device import device_named, has_fast_bf16
from reblur_plugin.host import build_network, get_root_logger
from reblur_plugin.models.reblur_model import ReblurModel

registration.register()

_NETWORKS = {"U-Net": "ResUNet", "DHN": "DHN", "SRN": "SRN"}
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_ITERATIONS = 524_000  # the paper's training on GOPRO (D8)
_COUNTED = 32  # pixels each way where operations are counted; they grow with the pixels
_NOTES = [
    "time ratio: median over the rounds of time / plain time in the same round; floor: the same of operations",
    "held: no gradient of L_D for M_R's weights; idle: no graph that no gradient needs either",
    "gradient: distance to the plain float32 gradient of the same order / its length, the larger one of M_D and M_R",
]


@dataclass(frozen=True)
class StepForm:
    """A way to compute the step.

    `extras` of the plain form are savings that it takes in; of ours, keys of the block `train` that are switched on.
    """

    precision: str
    channels_last: bool = False
    ours: bool = False
    order: str = "reblur_first"
    extras: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What is special about it."""
        who = f"ours {self.order}" if self.ours else "plain"
        return " ".join([who, self.precision, *["channels_last"] * self.channels_last, *self.extras])


@dataclass(frozen=True)
class StepWork:
    """What is to be computed: network, batch and patch size, device."""

    network: str
    batch: int
    size: int
    device: str


def run(arguments: argparse.Namespace) -> Results:
    """Measure the cases of each network."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = device_named(arguments.device)
    torch.backends.cudnn.benchmark = True  # as in training, for all forms
    cases = []
    for network in arguments.networks or _NETWORKS:
        cases += _cases(StepWork(network, *_sizes(arguments, network, device), str(device)), arguments, device)
    return Results("training step", measure.machine(device), cases, _NOTES)


def _sizes(arguments: argparse.Namespace, network: str, device: torch.device) -> tuple[int, int]:
    """Return batch and patch size: the paper's on a GPU, what a CPU core does in a second, or what was asked for."""
    batch, size = (16, 256) if device.type == "cuda" else (1, 96 if network == "U-Net" else 64)
    if arguments.quick:
        batch, size = 1, 32
    return arguments.batch or batch, arguments.size or size


def _forms(arguments: argparse.Namespace, device: torch.device) -> list[StepForm]:
    """Return what is compared, the reference first: plain, contiguous, in the first precision."""
    on_gpu = device.type == "cuda"
    precisions = arguments.precisions or ["fp32", *["bf16"] * has_fast_bf16(device), *["fp16"] * on_gpu]
    forms = []
    for precision in precisions:
        for channels_last in (False, True):
            plain = StepForm(precision, channels_last)
            ours = replace(plain, ours=True)
            forms.append(plain)
            if plain == forms[0]:
                forms += [replace(plain, extras=("held",)), replace(plain, extras=("held", "idle"))]
            forms += [ours, replace(ours, extras=("fused",))]
        if arguments.compile or on_gpu:
            forms.append(replace(ours, extras=("compile",)))
    return forms


def _cases(work: StepWork, arguments: argparse.Namespace, device: torch.device) -> list[Case]:
    """Measure the forms of one precision and layout at a time: so many networks in one process slow each other."""
    forms = measure.chosen({form.name: form for form in _forms(arguments, device)}, arguments.forms)
    first, *_ = forms.values()
    groups: dict[tuple[str, bool], dict[str, StepForm]] = {}
    for name, form in forms.items():
        groups.setdefault((form.precision, form.channels_last), {})[name] = form
    cases = []
    for (precision, channels_last), group in groups.items():
        references = {form.name: form for form in (first, StepForm(precision))}
        rows = _rows(references | group, work, arguments, device)
        title = f"{work.network} with M_R n2, {precision}{' channels_last' * channels_last}"
        settings = asdict(work) | {"seconds": measure.clock_name(arguments.processor_time)}
        for reference in references:
            kept = dict.fromkeys([reference, *group])
            cases.append(Case(f"{title}, beside {reference}", reference, [rows[name] for name in kept], settings))
    return cases


def _rows(
    forms: dict[str, StepForm], work: StepWork, arguments: argparse.Namespace, device: torch.device
) -> dict[str, Row]:
    """Time the forms in turns, each as training runs it: after itself."""
    torch.compiler.reset()  # it keeps a few translations of a network and leaves later ones as they are
    steps = {name: prepare(form, work) for name, form in forms.items()}
    gradients = _first_gradients(forms, steps, work)
    clock = measure.clock_of(arguments.processor_time, device)
    seconds = measure.interleaved(steps, arguments.repeats, device, clock=clock, in_a_row=2)
    steps.clear()
    precisions = {form.precision for form in forms.values()}
    rates = {name: measure.matmul_rate(device, _DTYPES[name] or torch.float32, clock=clock) for name in precisions}
    rows = {}
    for name, form in tqdm(forms.items(), desc="memory", leave=False, disable=None):
        # the second step has Adam's state and is as high as any later one
        peak = None if arguments.no_memory else measure.peak_memory(prepare, device, 2, form=form, work=work)
        values = {"gradient": gradients[name]}
        if (work.batch, work.size) == (16, 256):
            values["hours for 524,000"] = statistics.median(seconds[name]) * _ITERATIONS / 3600
        rows[name] = Row(name, seconds[name], peak, _flops(form, work), rates[form.precision], values)
    return rows


def prepare(form: StepForm, work: StepWork) -> _PlainRun | _OurRun:
    """Return one iteration on fresh networks and random images, the same for all forms."""
    get_root_logger(log_level=logging.WARNING)
    torch.manual_seed(0)
    return (_OurRun if form.ours else _PlainRun)(form, work)


def _batch(work: StepWork) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    shape = (work.batch, 3, work.size, work.size)
    return torch.rand(shape, generator=chance), torch.rand(shape, generator=chance)


class _PlainRun:
    """One iteration of the plain step."""

    def __init__(self, form: StepForm, work: StepWork) -> None:
        layout = torch.channels_last if form.channels_last else torch.contiguous_format
        names = (_NETWORKS[work.network], "ReblurNet")
        deblur_net, reblur_net = (build_network({"type": name}).to(work.device, memory_format=layout) for name in names)
        blurry, sharp = (images.to(work.device, memory_format=layout) for images in _batch(work))
        self.step = PlainStep(deblur_net, reblur_net, blurry, sharp, form.order, _DTYPES[form.precision])
        self.step.saves = form.extras

    def __call__(self) -> None:
        self.step()

    def first(self) -> list[Tensor]:
        """Run once; return the gradients that moved M_D and M_R."""
        self.step.keep_gradients = True
        self.step()
        self.step.keep_gradients = False
        return [_flat(self.step.gradients.pop(name)) for name in ("deblur", "reblur")]


class _OurRun:
    """One iteration of ReblurModel, the batch on the device as the loader leaves it there."""

    def __init__(self, form: StepForm, work: StepWork) -> None:
        device = torch.device(work.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        adam = {"type": "Adam", "lr": 1e-4} | ({"fused": True} if "fused" in form.extras else {})
        train = {
            "optim_g": adam,
            "optim_r": adam,
            "scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 1.0},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {"order": form.order},
            "channels_last": form.channels_last,
            "amp": None if form.precision == "fp32" else form.precision,
        } | ({"compile": True} if "compile" in form.extras else {})
        opt = {"is_train": True, "dist": False, "rank": 0, "world_size": 1, "num_gpu": int(device.type == "cuda")}
        networks = {"network_g": {"type": _NETWORKS[work.network]}, "network_r": {"type": "ReblurNet"}}
        self.model = ReblurModel({**opt, **networks, "path": {}, "train": train})
        self.model.feed_data(dict(zip(("lq", "gt"), _batch(work), strict=True)))

    def __call__(self) -> None:
        self.model.optimize_parameters(1)

    def first(self) -> list[Tensor]:
        """Run once; return the gradients that moved M_D and M_R."""
        self()
        networks = (self.model.net_g, self.model.net_r)
        return [_flat([weight.grad for weight in network.parameters()]) for network in networks]


def _flat(gradients: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])


def _first_gradients(
    forms: dict[str, StepForm], steps: dict[str, _PlainRun | _OurRun], work: StepWork
) -> dict[str, float]:
    """Run each form once from the same weights; return how far its gradient lies from the plain float32 one."""
    expected = prepare(StepForm("fp32"), work).first()
    return {name: _difference(steps[name].first(), expected) for name in forms}


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the larger one of both networks' |a - b| / |b|."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def _flops(form: StepForm, work: StepWork) -> float:
    """Return the operations of one step."""
    extras = () if form.ours else form.extras
    per_image = _flops_of_patch(replace(form, precision="fp32", channels_last=False, extras=extras), work.network)
    return per_image * work.batch * (work.size / _COUNTED) ** 2


@cache
def _flops_of_patch(form: StepForm, network: str) -> int:
    return count_flops(prepare(form, StepWork(network, 1, _COUNTED, "cpu")))
