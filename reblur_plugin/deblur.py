"""`python -m reblur_plugin.deblur PHOTOGRAPH... -o FOLDER --weights net_g_latest.pth`: deblur photographs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from reblur_plugin import cli, host
from reblur_plugin.names import problem


def main() -> int:
    """Deblur as the command line says; 0: all done, 1: some failed (and were named)."""
    arguments = _parser().parse_args()
    cli.alone("deblur")

    from reblur_plugin.photographs.jobs import find_jobs

    jobs = find_jobs(arguments.inputs, arguments.out, arguments.suffix, arguments.existing, arguments.compare)
    host.import_modules(arguments.modules)

    from reblur_plugin import registration
    from reblur_plugin.core.adapt import AdaptConfig
    from reblur_plugin.core.device import device_named
    from reblur_plugin.photographs import deblurring

    registration.register()
    device = device_named(arguments.device)
    config = AdaptConfig(
        steps=arguments.steps,
        lr=arguments.lr,
        histogram="torch" if device.type == "cuda" else "skimage",
        keep=(),
        amp=arguments.amp,
        channels_last=True,
        fused=device.type in ("cpu", "cuda"),
        max_memory=arguments.max_memory,
    )
    networks = deblurring.load_networks(arguments.weights, arguments.reblur_weights, config.steps > 0)
    failures = deblurring.deblur(jobs, *networks, config, device)
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.deblur",
        description="Deblur photographs; M_D adapts to each of them before it gives its result (Algorithm 1).",
        epilog="example: python -m reblur_plugin.deblur shots/ -o sharp/ --weights net_g_latest.pth",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="photographs or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="net_g_*.pth of a training")
    parser.add_argument(
        "--reblur-weights", "--reblur_weights", type=Path, metavar="FILE", help="net_r_*.pth, if not beside the other"
    )
    parser.add_argument("--steps", type=int, default=5, help="updates of M_D for each photograph, 0 for none (5)")
    parser.add_argument("--lr", type=float, default=3e-6, help="test-time learning rate (3e-6)")
    parser.add_argument(
        "--max-memory", type=_size, metavar="SIZE", help="memory to hold at most, such as 4G; else what is free"
    )
    parser.add_argument("--amp", choices=("none", "bf16", "auto"), default="none", help="faster, less exact (none)")
    parser.add_argument("--device", default="auto", help="cuda, cpu, ...; auto takes a GPU if there is one")
    parser.add_argument("--suffix", type=_suffix, default="", help="put behind the names of the results")
    parser.add_argument("--compare", action="store_true", help="write a picture of all stages beside each result")
    existing = parser.add_mutually_exclusive_group()
    word: Any = {"action": "store_const", "dest": "existing", "default": "refuse"}
    existing.add_argument("--overwrite", **word, const="overwrite", help="replace results that are there already")
    left_out = "leave out photographs whose results are there already: goes on after an interruption"
    existing.add_argument("--skip-existing", **word, const="skip", help=left_out)
    cli.add_import(parser, "your own networks")
    return parser


def _suffix(word: str) -> str:
    if word and problem(f"a{word}"):
        raise argparse.ArgumentTypeError(f"expected letters behind a name such as _sharp, got {word!r}")
    return word


def _size(word: str) -> int:
    from reblur_plugin.core.choices import AdaptError, bytes_of

    try:
        return bytes_of(word)
    except AdaptError:
        raise argparse.ArgumentTypeError(f"expected a size such as 4G or 800M, got {word!r}") from None


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
