"""`python -m reblur_plugin.deblur PHOTOGRAPH... -o FOLDER`: deblur photographs."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reblur_plugin import cli, host
from reblur_plugin.names import problem
from reblur_plugin.pretrained.catalogue import best_here, catalogue, named, usual_lr

if TYPE_CHECKING:
    from reblur_plugin.photographs.jobs import Job
    from reblur_plugin.photographs.sharing import Jobs


def main() -> int:
    """Deblur as the command line says; 0: all done, 1: some failed (and were named)."""
    arguments = _parser().parse_args()
    launcher, _ = cli.launcher()

    from reblur_plugin.photographs.jobs import find_jobs

    def find() -> list[Job]:
        return find_jobs(arguments.inputs, arguments.out, arguments.suffix, arguments.existing, arguments.compare)

    found = find() if launcher == "none" else []  # before anything slow is loaded
    host.import_modules(arguments.modules)

    from reblur_plugin.photographs.sharing import Jobs, shared

    with nullcontext(Jobs(found)) if launcher == "none" else shared(find, launcher) as jobs:
        failures = _deblur(jobs, arguments, is_shared=launcher != "none")
        for failure in failures:
            sys.stderr.write(f"error: {failure}\n")
    return 1 if failures else 0


def _deblur(jobs: Jobs, arguments: argparse.Namespace, is_shared: bool) -> list[str]:
    from reblur_plugin import registration
    from reblur_plugin.core.boundary import choose_output
    from reblur_plugin.core.device import available, device_named, has_fast_bf16
    from reblur_plugin.photographs import deblurring
    from reblur_plugin.photographs.sharing import processes_of

    registration.register()
    device = device_named(arguments.device)
    weights, lr = _weights(arguments)
    if arguments.amp == "auto":
        sys.stderr.write(f"--amp auto takes {'bf16' if has_fast_bf16(device) else 'float32'} here\n")
    max_memory = arguments.max_memory
    if is_shared and max_memory is None and (free := available(device)) is not None:
        max_memory = max(1, free // processes_of(device))
    config = deblurring.config_for(device, arguments.steps, lr, arguments.amp, max_memory)
    network = deblurring.network_block(arguments.network)
    networks = deblurring.load_networks(weights, arguments.reblur_weights, network, config.steps > 0)
    choose_output(networks.deblur_net, arguments.deblurred_output)
    return deblurring.deblur(jobs, *networks, config, device)


def _weights(arguments: argparse.Namespace) -> tuple[str, float]:
    """Return the weights that are chosen, or else the best ones here, which is told, and their learning rate."""
    known, better = (named(arguments.weights), "") if arguments.weights else best_here()
    if known and not arguments.weights:
        sys.stderr.write("; ".join(filter(None, (f"weights: {known.name}, {known.about}", better))) + "\n")
    weights = known.name if known else arguments.weights
    return weights, usual_lr(weights) if arguments.lr is None else arguments.lr


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.deblur",
        description="Deblur photographs; M_D adapts to each of them before it gives its result (Algorithm 1).",
        epilog="example: python -m reblur_plugin.deblur shots/ -o sharp/",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="photographs or folders of them")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the results go")
    names = ", ".join(one.name for one in catalogue())
    parser.add_argument(
        "--weights",
        metavar="FILE|NAME",
        help=f"net_g_*.pth of a training, anybody's checkpoint, or {names}; by default the best of these that is here",
    )
    add_networks(parser)
    parser.add_argument("--steps", type=int, default=5, help="updates of M_D for each photograph, 0 for none (5)")
    parser.add_argument("--lr", type=float, help="test-time learning rate (that of named weights, else 3e-6)")
    most = "memory that each process holds at most, such as 4G; else what is free"
    parser.add_argument("--max-memory", type=size, metavar="SIZE", help=most)
    precision = "auto takes bf16, faster and less exact, where the device has instructions for it (none)"
    parser.add_argument("--amp", choices=("none", "bf16", "auto"), default="none", help=precision)
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


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Add the arguments on what belongs to weights."""
    parser.add_argument(
        "--reblur-weights", "--reblur_weights", type=Path, metavar="FILE", help="net_r_*.pth, if not beside the other"
    )
    block = "M_D as network_g of an option file, such as '{type: DHN}', if the checkpoint doesn't tell"
    parser.add_argument("--network", metavar="BLOCK", help=block)
    which = "which of M_D's outputs is the image, as in option files: first, last, a number or a name"
    parser.add_argument("--deblurred-output", "--deblurred_output", type=_which, metavar="WHICH", help=which)


def _suffix(word: str) -> str:
    if word and problem(f"a{word}"):
        raise argparse.ArgumentTypeError(f"expected letters behind a name such as _sharp, got {word!r}")
    return word


def _which(word: str) -> str | int:
    return int(word) if word.isdecimal() else word


def size(word: str) -> int:
    """Return the bytes of a size on a command line.

    Raises:
        ArgumentTypeError: if it is none.
    """
    from reblur_plugin.core.choices import AdaptError, bytes_of

    try:
        return bytes_of(word)
    except AdaptError:
        raise argparse.ArgumentTypeError(f"expected a size such as 4G or 800M, got {word!r}") from None


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
