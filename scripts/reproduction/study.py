"""A reproduction from its data to its verdicts."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from reblur_plugin.data.pairs import Pair, fingerprint
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation.variants import fingerprint_of as fingerprint_of_file
from reblur_plugin.files import locked, whole_file
from reblur_plugin.metrics.lpips_metric import load_lpips
from reblur_plugin.pretrained.dmphn import convert
from reproduction import data, writing
from reproduction import jobs as running
from reproduction.claims import Claim, claims
from reproduction.plan import SHIPPED, Plan, Sources
from reproduction.recipes import Options
from reproduction.scales import SCALES, Scale

_PRETRAINED = Path(__file__).resolve().parents[2] / "reblur_plugin" / "pretrained"
_ALEX = "weights/alex.pth"
_LARGEST = (1280, 720)  # of photographs without ground truth: adaptation of more takes long


def reproduce(arguments: argparse.Namespace) -> int:
    """Do what the command line of `scripts/reproduce.py` says; return its exit status."""
    end = time.monotonic() + 60 * arguments.stop_after if arguments.stop_after else math.inf
    running.warm_up()
    scale = SCALES[arguments.scale]
    if arguments.seeds:
        scale = replace(scale, seeds=arguments.seeds)
    if not arguments.dmphn:
        scale = replace(scale, has_dmphn=False, narrow=scale.narrow or scale.reblur, reblur_dhn=0, dhn=0)
    chosen = _chosen(claims(scale, bool(arguments.photographs)), arguments.claims)
    has_lpips = _has_lpips(arguments.lpips_weights)
    found = _find(arguments, scale)
    out = (arguments.out or Path("reproduction") / arguments.scale).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        _claim(out, [*found.fingerprints(), *map(_fingerprint, _weights(arguments).values()), str(has_lpips)])
        sources = _write(arguments, scale, found, has_lpips, out)
        jobs = Plan(scale, sources).jobs(chosen)
        is_finished = running.run(jobs, out, running.places(arguments.processes), end)
        outcomes = writing.judged(chosen, scale.seeds, out)
        page = writing.write(outcomes, arguments.scale, out, with_report=is_finished)
        if not is_finished:
            sys.stderr.write(f"{out}: not all is done; start the same again to go on\n")
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


@dataclass(frozen=True)
class _Found:
    """What is trained and tested on, where it lies."""

    training: list[Pair]
    tests: list[Pair]
    photographs: list[Pair]

    def fingerprints(self) -> list[str]:
        """Return what all results depend on; photographs are those of one test alone."""
        return [fingerprint(self.training), fingerprint(self.tests)]


def _find(arguments: argparse.Namespace, scale: Scale) -> _Found:
    training, tests = data.training_sets(arguments.data), data.held_out_sets(arguments.data)
    data.check_apart(training, tests, arguments.data)
    real = data.photographs_in(arguments.photographs)
    counts = scale.training_pairs, scale.test_pairs, scale.test_pairs
    return _Found(*(data.spread(sets, count) for sets, count in zip((training, tests, real), counts, strict=True)))


def _claim(out: Path, inputs: list[str]) -> None:
    """Note what a folder's results depend on; refuse one that was begun with something else, before it is changed.

    Raises:
        ReblurError: in this case.
    """
    path, text = out / "inputs.txt", "\n".join(inputs) + "\n"
    if not path.is_file():
        with whole_file(path) as file:
            file.write(text.encode())
    elif path.read_text(encoding="utf-8") != text:
        raise ReblurError(f"{out}: was made with other data or weights; name another folder by -o")


def _write(arguments: argparse.Namespace, scale: Scale, found: _Found, has_lpips: bool, out: Path) -> Sources:
    """Write data and weights that all jobs share, unless they are there."""
    data.pack_once(found.training, out / "data" / "packed")
    folders: dict[str, str] = {}
    for name, size in (("whole", None), ("centre", scale.centre), ("small", scale.small)):
        tests, sharp = data.write_tests(found.tests, out / "data", size)
        folders |= {name: str(tests.relative_to(out)), f"{name}_sharp": str(sharp.relative_to(out))}
    if found.photographs:
        folders["photographs"] = f"data/photographs_{fingerprint(found.photographs)}"
        data.write_photographs(found.photographs, out / folders["photographs"], _LARGEST)
    (out / "weights").mkdir(exist_ok=True)
    for name, source in _weights(arguments).items():
        if source.is_dir():
            convert(source, out / name)
        else:
            shutil.copyfile(source, out / name)
    return Sources(
        whole=folders["whole"],
        centre=folders["centre"],
        small=folders["small"],
        sharp=folders["small_sharp"],
        photographs=folders.get("photographs"),
        pixels={folder: _pixels(out / folder) for folder in folders.values()},
        metrics=_metrics(has_lpips, bool(arguments.lpips_weights)),
    )


def _pixels(folder: Path) -> float:
    """Return the thousands of pixels of all images that are deblurred in a folder."""
    found = 0.0
    for path in folder.rglob("*.png"):
        if path.parent.name != "sharp":
            with Image.open(path) as image:  # reads its size alone
                found += image.width * image.height / 1000
    return found


def _fingerprint(weights: Path) -> str:
    """Return a hash of a file, or of a folder's files."""
    files = sorted(weights.iterdir()) if weights.is_dir() else [weights]
    return "-".join(map(fingerprint_of_file, files))


def _weights(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return where weights come from, by the names that option files give them."""
    shipped = [SHIPPED["small"].deblurring, *(one.reblurring_file for one in SHIPPED.values())]
    given = {_ALEX: arguments.lpips_weights, SHIPPED["dhn"].deblurring: arguments.dmphn}
    return {name: _PRETRAINED / Path(name).name for name in shipped} | {k: path for k, path in given.items() if path}


def _has_lpips(weights: Path | None) -> bool:
    """Return whether LPIPS can be computed, and say so if it can't: without a file it needs a download."""
    try:
        load_lpips("alex", str(weights) if weights else None)
    except MetricError as error:
        if weights:
            raise
        sys.stderr.write(f"{error}; its comparisons are not run (--lpips-weights names a file)\n")
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
