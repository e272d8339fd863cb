"""`python -m reblur_plugin.train -opt FILE`: train M_D and M_R. Writes experiments/NAME here, in BasicSR's layout."""

from __future__ import annotations

import sys
from pathlib import Path

from reblur_plugin import cli


def main() -> int:
    """Train as the command line says; return 0, or 130 if interrupted (and saved)."""
    parser = cli.parser(
        "train",
        "Train a deblurring network M_D together with its reblurring network M_R.",
        "python -m reblur_plugin.train -opt options/gopro_srn_n2.yml --auto_resume",
    )
    parser.add_argument("--auto_resume", action="store_true", help="go on from the newest saved state, if there is one")
    arguments = parser.parse_args()
    options = cli.read_options(arguments, is_train=True)

    from reblur_plugin.core.device import out_of_memory_says
    from reblur_plugin.engine.training import train

    with out_of_memory_says(cli.LESS_TRAINING):
        return 0 if train(options, Path.cwd(), arguments.launcher, arguments.auto_resume) else 130


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
