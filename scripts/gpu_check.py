"""What only a GPU shows, check by check: python scripts/gpu_check.py DEVICE OUT.json PAIRS CROPS [--tiny]

A check notes what it finds, and whether that is as it should be; the next one runs in any case. OUT is written after
each. On a CPU, --tiny runs all of it on small networks, which shows that the checks themselves work.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.data import astronaut, coffee
from torch import Tensor, distributed, nn
from torch.backends import cudnn

from benchmarks import measure
from reblur_plugin import registration
from reblur_plugin.archs.dmphn_arch import DHN, DMPHN
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core.adapt import AdaptConfig, adapt
from reblur_plugin.core.algorithm1 import algorithm1
from reblur_plugin.core.boundary import finest
from reblur_plugin.core.budget import Costs
from reblur_plugin.core.parts import Plan, Tiling
from reblur_plugin.data.images import write_image
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.evaluation.scoring import Measured, Scorer
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.photographs.deblurring import deblur
from reblur_plugin.photographs.jobs import find_jobs

Options = dict[str, Any]
_NETWORKS = {"ResUNet": ResUNet, "SRN": SRN, "DHN": DHN}
_FAST: Options = {"channels_last": True, "fused": True}
_ORDERS, _AMPS, _FLAGS = ("reblur_first", "deblur_first"), (None, "bf16", "fp16"), (False, True)
_TYPES = {"float32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# What rounding explains: of an image, and of a gradient in parts of its length (channels_last on a CPU: 5e-5).
_IMAGE = {"float32": 1e-5, "tf32": 0.01, "bf16": 0.1, "fp16": 0.01}
_GRADIENT = {"float32": 1e-3, "tf32": 0.05, "bf16": 0.1, "fp16": 0.05}
_ADAPTED, _MATCHED = 1e-4, 1e-3  # L^N in float32, and after line 10, which keeps ranks: near values may change places


@dataclass
class Place:
    """The device, whether to take small networks on it, what the check that runs has found, and what of it is wrong."""

    device: torch.device
    tiny: bool
    found: Options = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def note(self, name: str, value: object, holds: bool = True) -> None:
        """Keep what was found, and whether it is as it should be."""
        self.found[name] = value
        self.broken += [] if holds else [f"{name}: {value}"]

    def some(self, combinations: Iterable[Any], every: int = 1) -> Iterator[Any]:
        """Yield combinations, if tiny, one of `every`; on a CPU none with fp16, which takes minutes there."""
        fit = (each for each in combinations if self.on_gpu or "fp16" not in each)
        return islice(fit, 0, None, every if self.tiny else 1)

    def pair(self, name: str = "ResUNet") -> tuple[nn.Module, nn.Module]:
        """Return M_D and M_R with the same random weights in each call."""
        torch.manual_seed(0)
        deblur_net = ResUNet(1, (8, 8, 8)) if self.tiny else _NETWORKS[name]()
        return deblur_net.to(self.device), ReblurNet(2, 8 if self.tiny else 64).to(self.device)

    def photograph(self) -> Tensor:
        """Return B of GOPRO's size."""
        return noise(1, *((96, 128) if self.tiny else (720, 1280))).to(self.device)

    @contextmanager
    def gauge(self) -> Iterator[Options]:
        """Measure seconds and the bytes at most that PyTorch held on a GPU."""
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        run, start = Options(), time.perf_counter()
        yield run
        measure.wait(self.device)
        run["seconds"] = time.perf_counter() - start
        run["bytes"] = torch.cuda.max_memory_allocated() if self.on_gpu else 0

    @contextmanager
    def waits(self) -> Iterator[list[str]]:
        """List the lines of Python that make the host wait for a GPU."""
        lines: list[str] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if self.on_gpu:
                torch.cuda.set_sync_debug_mode("warn")
            yield lines
            if self.on_gpu:
                torch.cuda.set_sync_debug_mode("default")
        lines += [f"{w.filename}:{w.lineno}" for w in caught if "called a synchronizing" in str(w.message)]


def noise(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return the same images in each call, on the CPU."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def far(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference."""
    return float((found.detach().float().cpu() - expected.detach().float().cpu()).abs().max())


def model(device: torch.device, net: str, order: str, fused: bool = False, dist: bool = False, **train: Any) -> Any:
    """Return a small ReblurModel with a batch, the same in each call."""
    torch.manual_seed(0)
    adam = {"type": "Adam", "lr": 1e-4} | ({"fused": True} if fused else {})
    block = {"optim_g": adam, "optim_r": adam, "scheduler": {"milestones": [1]}, **train}
    block |= {"pixel_opt": {"type": "MultiScaleL1Loss"}, "reblur_opt": {"order": order}}
    opt: Options = {"is_train": True, "num_gpu": int(device.type == "cuda"), "path": {}, "train": block}
    opt |= {"dist": dist, "rank": 0, "world_size": 1}
    opt |= {"network_g": {"type": net, "num_feats": [8, 16, 24]}, "network_r": {"type": "ReblurNet", "num_feat": 16}}
    made = ReblurModel(opt)
    made.feed_data({"lq": noise(4, 32, 32, 1), "gt": noise(4, 32, 32, 2)})
    return made


def check_forward(at: Place) -> None:
    """Each network gives the CPU's image in float32, as near as the precision allows."""
    image = noise(1, 32, 64)
    for make, precision in at.some(product((ResUNet, SRN, DHN, DMPHN, ReblurNet), _TYPES)):
        network, dtype = make().eval(), _TYPES[precision]
        with torch.no_grad(), cudnn.flags(enabled=True, allow_tf32=precision == "tf32"):
            expected = finest(network(image))
            with torch.autocast(at.device.type, dtype, enabled=dtype is not None):
                apart = far(finest(network.to(at.device)(image.to(at.device))), expected)
        at.note(f"{make.__name__} {precision}", apart, apart <= _IMAGE[precision])


def check_step(at: Place) -> None:
    """|gradient - the CPU's in float32| / |the CPU's|, the larger one of both networks, is what rounding explains."""
    forms: list[tuple[str, Options]] = [("float32", {}), ("float32", _FAST), ("float32", {"accumulate": 2})]
    forms += [("tf32", {}), ("bf16", {"amp": "bf16"}), ("fp16", {"amp": "fp16"}), ("fp16", {"amp": "fp16", **_FAST})]
    for net, order, (precision, options) in product(("ResUNet", "SRN"), _ORDERS, at.some(forms, 4)):
        gradients = []
        for made in (model(torch.device("cpu"), net, order), model(at.device, net, order, **options)):
            with cudnn.flags(enabled=True, allow_tf32=precision == "tf32"):
                made.optimize_parameters(1)
            weights = [list(network.parameters()) for network in (made.net_g, made.net_r)]
            gradients.append([torch.cat([weight.grad.flatten().cpu() for weight in own]) for own in weights])
        apart = max(float((b - a).norm() / a.norm()) for a, b in zip(*gradients, strict=True))
        at.note(f"{net} {order} {precision} {options}", apart, apart <= _GRADIENT[precision])


def check_iterations_wait_for_nothing(at: Place) -> None:
    """No line of an iteration waits for the device but fp16's scaler, without fused Adam."""
    with at.waits() as known:
        float(torch.ones(1, device=at.device))
    at.note("a wait that is known", known, bool(known) == at.on_gpu)
    extras: list[Options] = [{}, {"accumulate": 2}, {"grad_clip": 0.5}, {"ema_decay": 0.9}, {"channels_last": True}]
    for order, amp, fused, extra in at.some(product(_ORDERS, _AMPS, _FLAGS, extras), 7):
        made = model(at.device, "ResUNet", order, fused, amp=amp, **extra)
        images = noise(4, 32, 32).pin_memory() if at.on_gpu else noise(4, 32, 32)
        for number in (1, 2, 3):
            with at.waits() as lines:
                made.feed_data({"lq": images, "gt": images})
                made.update_learning_rate(number)
                made.optimize_parameters(number)
        at.note(f"{order} {amp} fused {fused} {extra}", lines, not lines or (amp == "fp16" and not fused))


def check_adaptation_waits_once(at: Place) -> None:
    """Algorithm 1 waits once, at its end, however many steps it has."""
    pair, blurry = at.pair(), at.photograph()[..., :96, :96]
    for amp, steps in product(("none", "bf16"), (1, 5)):
        config = AdaptConfig(steps=steps, histogram="none", amp=amp, **_FAST)
        algorithm1(*pair, blurry, config)
        with at.waits() as lines:
            algorithm1(*pair, blurry, config)
        at.note(f"{amp} {steps} steps", lines, len(lines) == at.on_gpu)


def check_adaptation(at: Place) -> None:
    """Adaptation gives the CPU's images in float32 without TF32; the networks come back as they were."""
    nets, blurry = (ResUNet(2, (16, 24, 32)), ReblurNet(1, 16)), noise(1, 120, 160)
    expected = adapt(*nets, blurry, steps=3, lr=1e-5)
    at.note("moved", far(expected.steps[-1].deblurred, expected.initial))
    before = [value.clone() for net in nets for value in net.state_dict().values()]
    there = [net.to(at.device) for net in nets]
    forms: list[tuple[bool, Options]] = [(False, {}), (False, _FAST), (False, {"histogram": "torch"})]
    for has_tf32, choices in [*forms, (True, {}), (True, {"amp": "bf16"})]:
        with cudnn.flags(enabled=True, allow_tf32=has_tf32):
            got = adapt(*there, blurry.to(at.device), steps=3, lr=1e-5, **choices)
        last, image = far(got.steps[-1].deblurred, expected.steps[-1].deblurred), far(got.image, expected.image)
        row = {"L^N": last, "image": image, "losses, seconds": [(s.loss, s.seconds) for s in got.steps]}
        is_near = has_tf32 or (last <= _ADAPTED and image <= _MATCHED)
        at.note(f"tf32 {has_tf32} {choices}", row, is_near and not got.fallback)
    change = max(map(far, (value for net in there for value in net.state_dict().values()), before))
    at.note("largest change of a weight", change, change == 0)


def check_choices_of_adaptation(at: Place) -> None:
    """All that can be chosen runs."""
    blurry, other = noise(1, 90, 102).to(at.device), ReblurNet(1, 8).to(at.device)
    nets = [make(num_feats=(8, 8, 8)).to(at.device) for make in _NETWORKS.values()]
    plans = (Plan(), Plan(0, 1), Plan(1, None, Tiling(2, 2, 32)))
    choices = product(nets, ("none", "bf16"), _FLAGS, _FLAGS, ("adam", "sgd"), ("torch", "none"), plans)
    for net, amp, layout, fused, kind, histogram, plan in at.some(choices, 59):
        config = AdaptConfig(2, 3e-6, kind, "current", histogram, amp=amp, channels_last=layout, fused=fused)
        try:
            said = f"finite: {bool(adapt(net, other, blurry, config, plan=plan).image.isfinite().all())}"
        except Exception as error:  # the other choices are worth their time
            said = f"{type(error).__name__}: {error}"
        at.note(f"{type(net).__name__} {config} {plan}", said, said == "finite: True")


def check_halo(at: Place) -> None:
    """Neither TF32 nor a layout widens the halo of tiles: it is the networks' reach."""
    like = torch.zeros(1, 3, 1, 1, device=at.device)
    for name in at.some(_NETWORKS, 3):
        halos = []
        for has_tf32, layout in at.some(product(_FLAGS, _FLAGS), 3):
            with cudnn.flags(enabled=True, allow_tf32=has_tf32):
                halos.append(Costs(*at.pair(name), like, AdaptConfig(steps=1, channels_last=layout)).halo)
        at.note(name, halos, len(set(halos)) == 1)


def check_memory(at: Place) -> None:
    """An adaptation takes no more than was told, or than its bound; times, the first as told cold, are for a reader."""
    blurry = at.photograph()
    bounded = product(["ResUNet"], ("2.5G", "1.2G") if at.on_gpu else ("64G",))
    for number, (name, bound) in enumerate([*product(at.some(_NETWORKS, 3), (None, None)), *bounded]):
        config: Any = AdaptConfig(steps=5, histogram="torch", keep=(), max_memory=bound, **_FAST)
        pair = at.pair(name)
        plan = Costs(*pair, blurry[..., :1, :1], config).plan(*blurry.shape[-2:], config.max_memory)
        with at.gauge() as run:
            adapt(*pair, blurry, config, plan=plan)
        row = {"told": (plan.seconds, plan.memory), **run, "tiles": plan.tiling}
        at.note(f"{number} {name} {bound}", row, run["bytes"] <= (config.max_memory or plan.memory))


def check_metrics_beside_the_device(at: Place) -> None:
    """Worker processes give the references' digits while the device computes."""
    metrics: dict[str, Options] = {"psnr": {"type": "calculate_psnr", "crop_border": 0}}
    metrics |= {"ssim": {"type": "reblur_ssim"}, "niqe": {"type": "reblur_niqe"}}
    sharp = astronaut()[:200]
    pictures = [Measured((sharp // 2 + np.roll(sharp, i, 1) // 2).astype(np.uint8), sharp) for i in (1, 2, 3)]
    network, blurry, scores = at.pair()[0], at.photograph(), []
    for workers in (0, 1 if at.tiny else 2):
        with Scorer(metrics, at.device, None, workers) as scorer, torch.no_grad():
            awaited = [(scorer.begin(picture), network(blurry))[0] for picture in pictures]
            scores.append([each.result() for each in awaited])
    at.note("scores", scores, scores[0] == scores[1])


def check_data_parallel(at: Place) -> None:
    """One process of NCCL (CPU: gloo) gets the weights of none, after two steps."""
    distributed.init_process_group("nccl" if at.on_gpu else "gloo", store=distributed.HashStore(), rank=0, world_size=1)
    for order, amp, parts in at.some(product(_ORDERS, _AMPS, (1, 2)), 3):
        sides = []
        for dist in _FLAGS:
            made = model(at.device, "ResUNet", order, dist=dist, amp=amp, accumulate=parts, **_FAST)
            with cudnn.flags(enabled=True, deterministic=True):
                made.optimize_parameters(1)
                made.optimize_parameters(2)
            sides.append(made.get_bare_model(made.net_g).parameters())
        apart = max(map(far, *sides))
        at.note(f"{order} {amp} {parts}", apart, apart <= 1e-6)
    distributed.destroy_process_group()


def check_full_memory_is_a_sentence(at: Place) -> None:
    """Of two photographs within a gigabyte of a GPU the large one doesn't fit, and the small one is deblurred."""
    config = AdaptConfig(steps=1, histogram="torch", keep=(), max_memory=60 << 30, **_FAST)
    with tempfile.TemporaryDirectory() as folder:
        shots, out = Path(folder) / "shots", Path(folder) / "out"
        for name, shape in (("a.png", (*at.photograph().shape[-2:], 3)), ("b.png", (64, 64, 3))):
            write_image(shots / name, np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))
        if at.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.mem_get_info()[1])
        said = deblur(find_jobs([shots], out), *at.pair(), config, at.device)
        if at.on_gpu:
            torch.cuda.set_per_process_memory_fraction(1.0)
        done = sorted(path.name for path in out.iterdir())
    at.note("said", said, ["memory is full" in line for line in said] == [True] * at.on_gpu)
    at.note("done", done, done == ["a.png", "b.png"][at.on_gpu :])


def write_pictures(source: Path, out: Path, tiny: bool) -> None:
    """Write crops of GOPRO's pairs in `source`, or of pictures that scikit-image ships, for the other parts."""
    shipped = ((image // 2 + np.roll(image, 3, 1) // 2, image) for image in (astronaut(), coffee()))
    pairs = (pair.images() for pair in list_pairs({"dataroot": source})) if source.is_dir() else shipped
    small = np.s_[:100, :200] if tiny else np.s_[:720]
    for number, pair in enumerate(pairs):
        for kind, image in zip(("blur_gamma", "sharp"), pair, strict=True):
            bottom, right = (length - 288 for length in image.shape[:2])
            for part, (top, left) in enumerate(product((0, bottom), range(0, right + 1, right // 3))):
                write_image(out / f"train/{number}/{kind}/{part}.png", image[top : top + 288, left : left + 288])
            write_image(out / f"test/{number}/{kind}/0.png", image[small])
        write_image(out / "shot.png", pair[0][small])


def main() -> int:
    """Run all checks; 1, if something isn't as it should be."""
    parser = argparse.ArgumentParser(description="Check what only a GPU shows.")
    parser.add_argument("device", type=torch.device, help="cuda:0, or cpu")
    parser.add_argument("out", type=Path, help="what was found")
    parser.add_argument("pictures", type=Path, nargs=2, metavar="FOLDER", help="with pairs; for crops of them")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a CPU")
    arguments = parser.parse_args()
    registration.register()
    write_pictures(*arguments.pictures, arguments.tiny)
    logging.disable(logging.WARNING)
    if arguments.device.type == "cuda":
        torch.cuda.set_device(arguments.device)
    results: Options = {"machine": measure.machine(arguments.device)}
    for name, check in [item for item in globals().items() if item[0].startswith("check_")]:
        torch.manual_seed(0)
        at, start = Place(arguments.device, arguments.tiny), time.perf_counter()
        try:
            check(at)
        except Exception as error:  # the other checks are worth their time
            at.note(f"{type(error).__name__}: {error}", traceback.format_exc(), holds=False)
        results[name] = {"seconds": time.perf_counter() - start, "broken": at.broken, "found": at.found}
        arguments.out.write_text(json.dumps(results, indent=1, default=str), encoding="utf-8")
        said = f"{'BROKEN' if at.broken else 'ok':6} {name} {results[name]['seconds']:.1f} s: {at.broken or at.found}"
        sys.stdout.write(f"{said[:400]}\n")
    return int(any(row.get("broken") for row in results.values()))


if __name__ == "__main__":
    sys.exit(main())
