"""`python -m reblur_plugin.check -opt FILE`: rehearse a training; writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from reblur_plugin import cli
from reblur_plugin.options.reading import OptionError


def main() -> int:
    """Print what a training would take; return 0."""
    arguments = cli.parser(
        "check",
        "Build all that a training needs, run a few iterations, and tell sizes, memory, time and learning rates.",
        "python -m reblur_plugin.check -opt options/gopro_srn_n2.yml",
    ).parse_args()
    if arguments.launcher != "none":
        raise OptionError(f"--launcher: expected none, got {arguments.launcher}; a rehearsal is one process")
    options = cli.read_options(arguments, is_train=True)

    from reblur_plugin.core.device import out_of_memory_says
    from reblur_plugin.engine.rehearsal import rehearse

    with out_of_memory_says(cli.LESS_TRAINING):
        for line in rehearse(options, Path.cwd()):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
