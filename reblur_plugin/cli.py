"""What the command lines share: arguments are parsed and option files checked before torch is imported."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reblur_plugin import host
from reblur_plugin.errors import ReblurError
from reblur_plugin.options import checks, reading
from reblur_plugin.streams import steady

LESS_TRAINING = (
    "lower datasets: train: gt_size, raise train: accumulate, which computes a batch in parts, or bound adaptation by "
    "val: tta: max_memory"
)


def parser(program: str, description: str, example: str) -> argparse.ArgumentParser:
    """Return BasicSR's command line: -opt, --launcher, --force_yml."""
    arguments = argparse.ArgumentParser(
        f"python -m reblur_plugin.{program}", description=description, epilog=f"example: {example}"
    )
    arguments.add_argument("-opt", "--opt", type=Path, required=True, metavar="FILE", help="option file (YAML)")
    arguments.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default=launcher()[0],
        help="what started this process: pytorch is torchrun, slurm is srun; by default what the environment tells",
    )
    arguments.add_argument(
        "--force_yml",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change options: train:total_iter=1000",
    )
    add_import(arguments, "import your own modules, whose classes register themselves with BasicSR")
    arguments.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # set by old launchers
    return arguments


def launcher() -> tuple[str, str]:
    """Return what started this process among several, and how many they are, by the launchers' own variables."""
    for name, number, count in (("pytorch", "RANK", "WORLD_SIZE"), ("slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if number in os.environ and os.environ.get(count, "1") != "1":
            return name, os.environ[count]
    return "none", "1"


def alone(program: str) -> None:
    """Refuse to run in one of several processes: each would do all of it.

    Raises:
        ReblurError: in this case.
    """
    name, count = launcher()
    if name != "none":
        started = {"pytorch": "torchrun", "slurm": "srun"}[name]
        raise ReblurError(f"{program}: expected one process, got {count} of {started}; start it without {started}")


def add_import(arguments: argparse.ArgumentParser, does: str) -> None:
    """Add `--import`, for classes of the user's."""
    arguments.add_argument(
        "--import", dest="modules", nargs="+", action="extend", default=[], metavar="MODULE", help=does
    )


def read_options(arguments: argparse.Namespace, is_train: bool) -> reading.Options:
    """Return the checked options that a command line names; the modules of its `--import` are loaded then.

    Raises:
        OptionError: with all problems; names of classes are checked (and torch loaded) once others have been found.
        HostError: if BasicSR or one of the modules can't be imported.
    """
    chosen = reading.override(reading.read(arguments.opt), arguments.force_yml)
    problems = checks.problems(chosen, is_train)
    if problems:
        raise reading.OptionError("; ".join(problems + _component_problems(chosen, arguments.modules)))
    host.import_modules(arguments.modules)
    return chosen


def _component_problems(chosen: reading.Options, modules: Sequence[str]) -> list[str]:
    """Return what is wrong with `--import` or else with names of classes; nothing, if BasicSR can't even be loaded."""
    try:
        host.basicsr_version()
    except host.HostError:
        return []
    try:
        host.import_modules(modules)
    except host.HostError as error:  # names of the module's classes would be unknown
        return [str(error)]
    from reblur_plugin import registration
    from reblur_plugin.options import components

    registration.register()
    return components.problems(chosen)


def guarded(main: Callable[[], int]) -> int:
    """Run a command; what the user can mend is one sentence on stderr and exit code 1.

    A reader of its output that goes away (`| head`) ends no job.
    """
    with steady("stderr"), steady("stdout") as output:
        try:
            status = main()
        except ReblurError as error:
            sys.stderr.write(f"error: {error}\n")
            status = 1
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
            status = 130
        output.flush()
        if output.error and output.error.errno not in (errno.EPIPE, errno.EINVAL):  # the latter is Windows' for a pipe
            sys.stderr.write(f"error: standard output: can't be written ({output.error.strerror}); use another\n")
            status = status or 1
    return status
