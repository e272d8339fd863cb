"""The command `step`: ReblurModel's iteration beside the plain one, over networks, layouts and precisions."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks import measure
from benchmarks.flops import count_flops
from benchmarks.plain import PlainStep
from benchmarks.report import Case, Results, Row, Spread
from reblur_plugin import host, registration
from reblur_plugin.core.device import device_named, has_fast_bf16
from reblur_plugin.host import build_network, get_root_logger

host.prepare()
registration.register()


from reblur_plugin.models.reblur_model import ReblurModel  # noqa: E402

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
class Form:
    """A way to compute the step.

    `options` are keys of the block `train`, None for the plain form; `saves` are savings that the plain form takes in.
    """

    precision: str
    channels_last: bool
    order: str = "reblur_first"
    options: tuple[tuple[str, Any], ...] | None = None
    saves: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What is special about it."""
        who = "plain" if self.options is None else f"ours {self.order}"
        extra = "".join(f" {key}" for key in [*self.saves, *dict(self.options or ())])
        return f"{who} {self.precision}{' channels_last' if self.channels_last else ''}{extra}"


@dataclass(frozen=True)
class Work:
    """What is to be computed: network, batch and patch size, device."""

    network: str
    batch: int
    size: int
    device: str


def run(arguments: argparse.Namespace) -> Results:
    """Measure one case for each network."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = device_named(arguments.device)
    torch.backends.cudnn.benchmark = True  # as in training, for all forms
    get_root_logger(log_level=logging.WARNING)
    cases = []
    for network in arguments.networks or _NETWORKS:
        work = Work(network, *_sizes(arguments, network, device), str(device))
        cases += _cases(work, arguments, device)
    return Results("training step", measure.machine(device), cases, _NOTES)


def _sizes(arguments: argparse.Namespace, network: str, device: torch.device) -> tuple[int, int]:
    """Return batch and patch size: the paper's on a GPU, what a CPU core does in a second, or what was asked for."""
    batch, size = (16, 256) if device.type == "cuda" else (1, 96 if network == "U-Net" else 64)
    if arguments.quick:
        batch, size = 1, 32
    return arguments.batch or batch, arguments.size or size


def _forms(arguments: argparse.Namespace, device: torch.device) -> list[Form]:
    """Return what is compared, the reference first: plain, contiguous, in the first precision."""
    low = ["bf16"] * has_fast_bf16(device) + ["fp16"] * (device.type == "cuda")
    precisions = arguments.precisions or ["fp32", *low]
    fused, compiled = ("fused", True), ("compile", True)
    forms = []
    for precision in precisions:
        for layout in (False, True):
            forms.append(Form(precision, layout))
            if precision == precisions[0] and not layout:
                forms += [Form(precision, layout, saves=saves) for saves in (("held",), ("held", "idle"))]
            forms += [Form(precision, layout, order, ()) for order in ("reblur_first", "simultaneous")]
            forms.append(Form(precision, layout, "simultaneous", (fused,)))
        if arguments.compile or device.type == "cuda":
            forms.append(Form(precision, True, "reblur_first", (compiled,)))
            forms.append(Form(precision, True, "simultaneous", (compiled, fused)))
    return forms


def _cases(work: Work, arguments: argparse.Namespace, device: torch.device) -> list[Case]:
    """Measure the forms of one precision and layout at a time: so many networks in one process slow each other."""
    forms = measure.chosen({form.name: form for form in _forms(arguments, device)}, arguments.forms)
    first, *_ = forms.values()
    cases = []
    for precision, channels_last in dict.fromkeys((form.precision, form.channels_last) for form in forms.values()):
        plain = Form(precision, False)
        references = {form.name: form for form in (first, plain)}
        group = {
            name: form
            for name, form in forms.items()
            if (form.precision, form.channels_last) == (precision, channels_last)
        }
        rows = _rows(references | group, work, arguments, device)
        settings = asdict(work) | {"seconds": "of the processor" if arguments.processor_time else "of the clock"}
        for reference in references:
            cases.append(
                Case(
                    f"{work.network} with M_R n2, {precision}{' channels_last' * channels_last}, beside {reference}",
                    reference,
                    [rows[reference], *(row for name, row in rows.items() if name in group and name != reference)],
                    settings,
                )
            )
    return cases


def _rows(forms: dict[str, Form], work: Work, arguments: argparse.Namespace, device: torch.device) -> dict[str, Row]:
    """Time the forms in turns, each as training runs it: after itself."""
    torch.compiler.reset()  # it keeps a few translations of a network and leaves later ones as they are
    steps = {name: _step(form, work) for name, form in forms.items()}
    gradients = _first_gradients(forms, steps, work)
    clock = measure.clock_of(arguments.processor_time, device)
    seconds = measure.interleaved(steps, arguments.repeats, device, clock=clock, in_a_row=2)
    steps.clear()
    precisions = {form.precision for form in forms.values()}
    rates = {name: measure.matmul_rate(device, _DTYPES[name] or torch.float32, clock=clock) for name in precisions}
    rows = {}
    for name, form in tqdm(forms.items(), desc="memory", leave=False, disable=None):
        values = {"gradient": gradients[name]}
        if (work.batch, work.size) == (16, 256):
            values["hours for 524,000"] = Spread.of(seconds[name]).median * _ITERATIONS / 3600
        settings = {"form": asdict(form), "work": asdict(work)}
        peak = None if arguments.no_memory else measure.peak_memory(prepare, device, 2, **settings)
        rows[name] = Row(name, seconds[name], peak, _flops(form, work), rates[form.precision], values)
    return rows


def prepare(form: dict[str, Any], work: dict[str, Any]) -> Callable[[], object]:
    """Return a step for `measure.peak_memory`, in whatever process this is."""
    get_root_logger(log_level=logging.WARNING)
    return _step(Form(**form), Work(**work))


def _step(form: Form, work: Work) -> _PlainForm | _OurForm:
    """Return one iteration on fresh networks and random images, the same for all forms."""
    torch.manual_seed(0)
    return (_PlainForm if form.options is None else _OurForm)(form, work)


def _batch(work: Work) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(0)
    shape = (work.batch, 3, work.size, work.size)
    return torch.rand(shape, generator=chance), torch.rand(shape, generator=chance)


class _PlainForm:
    """One iteration of the plain step."""

    def __init__(self, form: Form, work: Work) -> None:
        layout = torch.channels_last if form.channels_last else torch.contiguous_format
        self.deblur_net: nn.Module = build_network({"type": _NETWORKS[work.network]})
        self.reblur_net: nn.Module = build_network({"type": "ReblurNet"})
        for network in (self.deblur_net, self.reblur_net):
            network.to(work.device, memory_format=layout)
        blurry, sharp = (images.to(work.device, memory_format=layout) for images in _batch(work))
        self.step = PlainStep(self.deblur_net, self.reblur_net, blurry, sharp, form.order, _DTYPES[form.precision])
        self.step.saves = form.saves

    def __call__(self) -> None:
        self.step()

    def first(self) -> list[Tensor]:
        """Run once; return the gradients that moved M_D and M_R."""
        self.step.keep_gradients = True
        self.step()
        self.step.keep_gradients = False
        return [_flat(self.step.gradients.pop(name)) for name in ("deblur", "reblur")]


class _OurForm:
    """One iteration of ReblurModel, the batch on the device as the loader leaves it there."""

    def __init__(self, form: Form, work: Work) -> None:
        device = torch.device(work.device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        options = dict(form.options or ())
        adam = {"type": "Adam", "lr": 1e-4} | ({"fused": True} if options.pop("fused", False) else {})
        train = {
            "optim_g": adam,
            "optim_r": adam,
            "scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 1.0},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {"order": form.order},
            "channels_last": form.channels_last,
            "amp": None if form.precision == "fp32" else form.precision,
        }
        opt = {"is_train": True, "dist": False, "rank": 0, "world_size": 1, "num_gpu": int(device.type == "cuda")}
        networks = {"network_g": {"type": _NETWORKS[work.network]}, "network_r": {"type": "ReblurNet"}}
        self.model = ReblurModel({**opt, **networks, "path": {}, "train": train | options})
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


def _first_gradients(forms: dict[str, Form], steps: dict[str, _PlainForm | _OurForm], work: Work) -> dict[str, float]:
    """Run each form once from the same weights; return how far its gradient lies from the plain float32 one."""
    orders = dict.fromkeys(form.order for form in forms.values())
    expected = {order: _step(Form("fp32", False, order), work).first() for order in orders}
    return {name: _difference(steps[name].first(), expected[form.order]) for name, form in forms.items()}


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the larger one of both networks' |a - b| / |b|."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def _flops(form: Form, work: Work) -> float:
    """Return the operations of one step."""
    counted = replace(form, precision="fp32", channels_last=False, options=None if form.options is None else ())
    per_image = _flops_of_patch(work.network, counted)
    return per_image * work.batch * (work.size / _COUNTED) ** 2


@cache
def _flops_of_patch(network: str, form: Form) -> int:
    return count_flops(_step(form, Work(network, 1, _COUNTED, "cpu")))
