"""`python -m benchmarks {step,tta,data,metrics}`: time and memory beside the plain form, in one run.

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
}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the checked command line."""
    program = argparse.ArgumentParser("python -m benchmarks", description=__doc__.splitlines()[0])
    commands = program.add_subparsers(dest="command", required=True)
    for name, title in _COMMANDS.items():
        command = commands.add_parser(name, help=title, description=f"Measure {title}.")
        command.add_argument("--json", type=Path, metavar="OUT", help="write all that was measured to this file")
        command.add_argument("--repeats", type=_count, default=7, help="rounds in which each form runs once (7)")
        command.add_argument(
            "--device", default="auto", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one"
        )
        command.add_argument("--threads", type=_count, help="of the CPU; PyTorch's own choice if left out")
        command.add_argument("--quick", action="store_true", help="small sizes: shows that all runs, measures nothing")
        if name in ("step", "tta"):
            command.add_argument("--networks", nargs="+", choices=("U-Net", "DHN", "SRN"), help="M_D; all if left out")
            command.add_argument("--forms", nargs="+", metavar="NAME", help="the plain one and these; all if left out")
            command.add_argument(
                "--processor-time",
                action="store_true",
                help="count this process's time alone: one thread beside other jobs",
            )
            command.add_argument(
                "--no-memory", action="store_true", help="leave peak memory out: it takes a process each"
            )
        if name == "step":
            _step_arguments(command)
        if name == "tta":
            _tta_arguments(command)
        if name == "data":
            command.add_argument(
                "--data", type=Path, metavar="ROOT", help="a data set's folder; synthetic pairs if left out"
            )
    return program.parse_args(words)


def _step_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--batch", type=_count, help="images in a batch; 16 on a GPU")
    command.add_argument("--size", type=_count, help="pixels of a patch each way; 256 on a GPU")
    command.add_argument("--precisions", nargs="+", choices=("fp32", "bf16", "fp16"), help="the first is the reference")
    command.add_argument("--compile", action="store_true", help="with torch.compile too; on a GPU it always is")


def _tta_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sizes", nargs="+", type=_size, metavar="WxH", help="of the photographs; 640x360 and 1280x720 on a GPU"
    )
    command.add_argument("--steps", type=_count, default=5, help="N (5)")


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
    report = importlib.import_module(f"benchmarks.{arguments.command}").run(arguments)
    sys.stdout.write(report.table() + "\n")
    if arguments.json:
        report.write(arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
