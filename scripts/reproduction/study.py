"""A reproduction from its data to its verdicts."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from PIL import Image

from reblur_plugin.data.layouts import photographs
from reblur_plugin.data.pairs import Pair, fingerprint
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation.variants import fingerprint_of
from reblur_plugin.files import locked
from reblur_plugin.metrics.lpips_metric import load_lpips
from reblur_plugin.pretrained.dmphn import convert
from reproduction import data, jobs, writing
from reproduction.claims import Claim, claims, without
from reproduction.plan import SHIPPED, Plan, Sources
from reproduction.recipes import Options
from reproduction.scales import SCALES, Scale

_PRETRAINED = Path(__file__).resolve().parents[2] / "reblur_plugin" / "pretrained"
_ALEX = "weights/alex.pth"


def reproduce(arguments: argparse.Namespace) -> int:
    """Do what the command line of `scripts/reproduce.py` says; return its exit status."""
    scale = SCALES[arguments.scale]
    if arguments.seeds:
        scale = replace(scale, seeds=arguments.seeds)
    if not arguments.dmphn:
        scale = replace(scale, has_dmphn=False, narrow=scale.narrow or scale.reblur, reblur_dhn=0, dhn=0)
    out = (arguments.out or Path("reproduction") / arguments.scale).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        chosen = _chosen(claims(scale, bool(arguments.photographs)), arguments.claims)
        has_lpips = _has_lpips(arguments.lpips_weights)
        if not has_lpips:
            chosen = [without("lpips", claim) for claim in chosen]
        sources, salt = _prepare(arguments, scale, has_lpips, out)
        todo = Plan(scale, sources).jobs(chosen)
        stop_after = arguments.stop_after and arguments.stop_after * 60
        is_finished = jobs.run(todo, out, salt, jobs.places(arguments.processes), stop_after)
        if not is_finished:
            sys.stderr.write(f"{out}: not all is done; start the same again to go on\n")
        judged = writing.judged(chosen, scale.seeds, out)
        page = writing.write(judged, arguments.scale, out)
        sys.stdout.write(page.read_text(encoding="utf-8"))
    return 0 if is_finished else 130


def _chosen(made: list[Claim], numbers: list[int] | None) -> list[Claim]:
    """Return the claims that are asked for.

    Raises:
        ReblurError: if one of them isn't made at this scale, or with what is given.
    """
    known = [claim.number for claim in made if claim.parts]
    if missing := sorted(set(numbers or []) - set(known)):
        listed = ", ".join(map(str, known))
        raise ReblurError(
            f"--claims {missing[0]}: this scale makes {listed}; claim 6 needs --dmphn, claim 7 --photographs"
        )
    return [claim for claim in made if claim.parts and (not numbers or claim.number in numbers)]


def _prepare(arguments: argparse.Namespace, scale: Scale, has_lpips: bool, out: Path) -> tuple[Sources, str]:
    """Make what all jobs share: data and weights; return where it is, and a hash of it."""
    training, tests = data.training_pairs(arguments.data), data.held_out_pairs(arguments.data)
    data.check_apart(training, tests, arguments.data)
    training, tests = data.spread(training, scale.training_pairs), data.spread(tests, scale.test_pairs)
    real = photographs(arguments.photographs) if arguments.photographs else []
    data.pack_once(training, out / "data" / "packed")
    names, pixels = {}, {}
    for name, size in (("whole", None), ("centre", scale.centre), ("judged", scale.judged)):
        folder, sharp = data.write_tests(tests, out / "data", size)
        names[name], names[f"{name}_sharp"] = (str(one.relative_to(out)) for one in (folder, sharp))
        pixels[names[name]] = sum(_pixels(path) for path in folder.glob("*/blur/*.png"))
    if real:
        pixels["data/photographs"] = sum(_pixels(pair.blurry) for pair in _linked(real, out / "data" / "photographs"))
    weights = _weights(arguments, out)
    parts = [fingerprint(one) for one in (training, tests, real)] + [fingerprint_of(out / one) for one in weights]
    sources = Sources(
        names["whole"],
        names["centre"],
        names["judged"],
        names["judged_sharp"],
        "data/photographs" if real else None,
        pixels,
        _metrics(has_lpips, bool(arguments.lpips_weights)),
    )
    return sources, " ".join(parts)


def _pixels(path: Path) -> float:
    with Image.open(path) as image:  # reads its size alone
        return image.width * image.height / 1000


def _linked(pairs: list[Pair], folder: Path) -> list[Pair]:
    for pair in pairs:
        link = folder / f"{pair.name}{pair.blurry.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(pair.blurry.resolve())
    return pairs


def _weights(arguments: argparse.Namespace, out: Path) -> list[str]:
    """Copy all weights that tests start from, so that the folder holds what its option files name."""
    shipped = [SHIPPED["small"].deblurring, *(one.reblurring_file for one in SHIPPED.values())]
    (out / "weights").mkdir(exist_ok=True)
    for name in shipped:
        shutil.copyfile(_PRETRAINED / Path(name).name, out / name)
    if arguments.lpips_weights:
        shutil.copyfile(arguments.lpips_weights, out / _ALEX)
        shipped.append(_ALEX)
    if arguments.dmphn:
        convert(arguments.dmphn, out / SHIPPED["dhn"].deblurring)
        shipped.append(SHIPPED["dhn"].deblurring)
    return shipped


def _has_lpips(weights: Path | None) -> bool:
    """Return whether LPIPS can be computed, and say so if it can't: without a file it needs a download."""
    try:
        load_lpips("alex", str(weights) if weights else None)
    except MetricError as error:
        if weights:
            raise
        sys.stderr.write(f"{error}; its comparisons are left out (--lpips-weights names a file)\n")
        return False
    return True


def _metrics(has_lpips: bool, has_file: bool) -> Options:
    alex = {"type": "reblur_lpips", "net": "alex", **({"weights": _ALEX} if has_file else {})}
    return ({"lpips": alex} if has_lpips else {}) | {
        "niqe": {"type": "reblur_niqe"},
        "psnr": {"type": "calculate_psnr", "crop_border": 0},
        "ssim": {"type": "reblur_ssim"},
        "sharpness": {"type": "reblur_sharpness", "better": "higher"},
        "brightness": {"type": "reblur_brightness", "better": "lower"},
    }
