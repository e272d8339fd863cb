"""`python -m benchmarks COMMAND`: time and memory beside the plain form, in one run.

Each command is a module of this folder with `run(arguments) -> Results`; torch is imported by that module, after the
arguments have been checked.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from reblur_plugin import cli

_COMMANDS = {
    "step": "a training step: M_D's and M_R's update on one batch",
    "tta": "adaptation to one photograph (Algorithm 1)",
    "data": "loading, cropping and augmenting batches",
    "metrics": "the metrics of validation beside deblurring one image",
    "evaluate": "scoring files of results",
    "photograph": "the command deblur on one photograph",
}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked command line."""
    program = argparse.ArgumentParser("python -m benchmarks", description=__doc__.splitlines()[0])
    commands = program.add_subparsers(dest="command", required=True)
    for name, title in _COMMANDS.items():
        add = commands.add_parser(name, help=title, description=f"Measure {title}.").add_argument
        add("--json", type=Path, metavar="OUT", help="write all that was measured to this file")
        add("--repeats", type=_count, default=7, help="rounds in which each form runs once (7)")
        add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one")
        add("--threads", type=_count, help="of the CPU; PyTorch's own choice if left out")
        add("--quick", action="store_true", help="small sizes: shows that all runs, measures nothing")
        if name in ("step", "tta"):
            processor_time = "count this process's time alone: one thread beside other jobs"
            add("--networks", nargs="+", choices=("U-Net", "DHN", "SRN"), help="M_D; all if left out")
            add("--forms", nargs="+", metavar="NAME", help="the plain one and these; all if left out")
            add("--processor-time", action="store_true", help=processor_time)
            add("--no-memory", action="store_true", help="leave peak memory out: it takes a process each")
        if name == "step":
            add("--batch", type=_count, help="images in a batch; 16 on a GPU")
            add("--size", type=_count, help="pixels of a patch each way; 256 on a GPU")
            add("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"), help="the first is the reference")
            add("--compile", action="store_true", help="with torch.compile too; on a GPU it always is")
        if name == "photograph":
            add("--weights", default="resunet-small", metavar="NAME", help="what deblurs (resunet-small)")
            add("--forms", nargs="+", metavar="NAME", help="the first and these; all if left out")
        if name in ("tta", "photograph"):
            sizes = "of the photographs"
            add("--sizes", nargs="+", type=_size, metavar="WxH", help=sizes)
            add("--steps", type=_count, default=5, help="N (5)")
        if name == "evaluate":
            add("--images", type=_count, default=24, help="pairs (24)")
            add("--processes", type=_count, default=2, help="of reblur_plugin.evaluate (2)")
        if name == "data":
            add("--data", type=Path, metavar="ROOT", help="a data set's folder; synthetic pairs if left out")
    return program.parse_args(words)


def _size(word: str) -> tuple[int, int]:
    width, _, height = word.partition("x")
    try:
        return _count(width), _count(height)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a size such as 640x360, got {word!r}") from error


def _count(word: str) -> int:
    count = int(word)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number > 0, got {word}")
    return count


def main() -> int:
    """Run one benchmark; print its table."""
    arguments = parse()
    results = importlib.import_module(f"benchmarks.{arguments.command}").run(arguments)
    sys.stdout.write(results.table() + "\n")
    if arguments.json:
        results.write(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
