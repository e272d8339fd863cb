"""`python -m reblur_plugin.test -opt FILE`: deblur, adapt and score test sets. Writes results/NAME here."""

from __future__ import annotations

import sys
from pathlib import Path

from reblur_plugin import cli


def main() -> int:
    """Test as the command line says; return 0, or 130 if interrupted."""
    arguments = cli.parser(
        "test",
        "Deblur test sets with M_D, adapt it to each photograph where the options say val: tta, score the results.",
        "python -m reblur_plugin.test -opt options/gopro_srn_n2_tta.yml",
    ).parse_args()
    options = cli.read_options(arguments, is_train=False)

    from reblur_plugin.core.device import out_of_memory_says
    from reblur_plugin.engine.testing import test

    with out_of_memory_says("val: tta: max_memory bounds what adaptation takes; or use smaller images"):
        return 0 if test(options, Path.cwd(), arguments.launcher) else 130


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
