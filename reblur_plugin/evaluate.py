"""`python -m reblur_plugin.evaluate RESULTS... --gt SHARP`: score anybody's results in the forms that papers print."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from reblur_plugin import cli
from reblur_plugin.errors import ReblurError, did_you_mean
from reblur_plugin.files import at_home

METRICS: dict[str, dict[str, Any]] = {
    "psnr": {"type": "calculate_psnr", "crop_border": 0},
    "psnr-y": {"type": "calculate_psnr", "crop_border": 0, "test_y_channel": True},
    "ssim": {"type": "reblur_ssim"},
    "ssim-uniform": {"type": "reblur_ssim", "window": "uniform"},
    "ssim-volume": {"type": "reblur_ssim", "window": "volume"},
    "lpips-alex": {"type": "reblur_lpips", "net": "alex"},
    "lpips-vgg": {"type": "reblur_lpips", "net": "vgg"},
    "lpips-squeeze": {"type": "reblur_lpips", "net": "squeeze"},
    "niqe": {"type": "reblur_niqe"},
    "sharpness": {"type": "reblur_sharpness"},
    "brightness": {"type": "reblur_brightness"},
}
DEFAULT = ["lpips-alex", "niqe", "psnr", "ssim"]  # the paper's


def main() -> int:
    """Evaluate as the command line says; 0: all done, 1: some images failed (and were named)."""
    parser = _parser()
    arguments = parser.parse_args()
    cli.alone("evaluate")
    metrics = chosen_metrics(arguments.metrics, arguments.lpips_weights, arguments.reblur_weights)
    from reblur_plugin import registration
    from reblur_plugin.evaluation import commands

    registration.register()
    began = time.perf_counter()
    asked = commands.Asked(
        results=arguments.results,
        sharp=arguments.gt,
        blurry=arguments.blurry,
        metrics=metrics,
        optional={"lpips-alex"} if arguments.metrics is None else set(),
        out=arguments.out,
        device=arguments.device,
        processes=arguments.processes,
        by_order=arguments.match == "order",
        overwrite=arguments.overwrite,
        anew=arguments.overwrite,
    )
    found = commands.evaluate(asked)
    sys.stdout.write(commands.text_of(found, time.perf_counter() - began))
    for failure in found.failures:
        sys.stderr.write(f"error: {failure}\n")
    return 1 if found.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.evaluate",
        description="Score folders of deblurred images, whoever made them and however they are named.",
        epilog="example: python -m reblur_plugin.evaluate theirs/ ours=results/mine --gt GOPRO/test -o scores/",
    )
    add_evaluation(parser)
    parser.add_argument("-o", "--out", type=at_home, default=Path("results/evaluation"), metavar="FOLDER")
    parser.add_argument("--overwrite", action="store_true", help="score all again, and replace scores of other files")
    return parser


def add_evaluation(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is scored, by what and how; `report` takes them too."""
    parser.add_argument("results", nargs="+", metavar="[LABEL=]RESULTS", help="a folder for each method")
    parser.add_argument("--gt", type=at_home, metavar="FOLDER", help="sharp images, or the data set's root")
    parser.add_argument("--blurry", type=at_home, metavar="FOLDER", help="blurry images, which are scored as well")
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help=f"of {', '.join(METRICS)}, or all; by default {', '.join(DEFAULT)}"
    )
    parser.add_argument(
        "--lpips-weights",
        nargs="+",
        default=[],
        metavar="NET=FILE",
        help="torchvision's weights of a backbone; else the package lpips downloads them",
    )
    parser.add_argument("--reblur-weights", metavar="FILE", help="M_R (net_r_*.pth): score reblurability by it as well")
    parser.add_argument("--match", choices=("names", "order"), default="names", help="how results find sharp images")
    parser.add_argument("--device", default="auto", help="auto (all GPUs, else the CPU), cpu, cuda, cuda:1")
    parser.add_argument("--processes", type=int, metavar="N", help="by default one a core")


def chosen_metrics(
    names: list[str] | None, lpips_weights: list[str], reblur_weights: str | None
) -> dict[str, dict[str, Any]]:
    """Return option blocks by name.

    Raises:
        ReblurError: if a name is unknown, or weights are given for a backbone that isn't used.
    """
    wanted = DEFAULT if names is None else list(METRICS) if names == ["all"] else names
    for name in wanted:
        if name not in METRICS:
            raise ReblurError(f"--metrics: expected known names, got {name!r}{did_you_mean(name, METRICS)}")
    found: dict[str, dict[str, Any]] = {name: dict(METRICS[name]) for name in wanted}
    for given in lpips_weights:
        net, equals, path = given.partition("=")
        if not equals:
            net, path = "alex", given
        if f"lpips-{net}" not in found:
            raise ReblurError(
                f"--lpips-weights: expected NET=FILE with a backbone of --metrics ({', '.join(wanted)}), got {given!r}"
            )
        found[f"lpips-{net}"]["weights"] = os.path.abspath(path)
    if reblur_weights:
        found["reblurability"] = {"type": "reblurability", "weights": reblur_weights}
    return found


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
