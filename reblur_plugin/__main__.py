"""`python -m reblur_plugin`: the commands."""

from __future__ import annotations

import sys

from reblur_plugin import cli

COMMANDS = {
    "check": "rehearse a training: sizes, memory, time, what is wrong with its options",
    "train": "train a deblurring network M_D together with its reblurring network M_R",
    "test": "deblur, adapt and score test sets",
    "deblur": "deblur photographs by a checkpoint alone",
    "app": "open a page in the browser on which photographs are deblurred",
    "weights": "list the weights that have a name, fetch some",
    "evaluate": "score anybody's results in the forms that papers print",
    "report": "tables beside the paper's, figures and a page of runs and of anybody's pictures",
    "reblurability": "rank anybody's results by the blur that is left in them",
    "data": "check, pack and make training data",
    "schema": "print the JSON Schema of option files, for editors, or a page of all keys",
}


def main() -> int:
    """List the commands."""
    lines = [f"python -m reblur_plugin.{name:<{max(map(len, COMMANDS))}}  {does}" for name, does in COMMANDS.items()]
    sys.stdout.write("\n".join([*lines, "", "--help after a command tells its options.", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
