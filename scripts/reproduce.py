"""The claims of the paper as comparisons of short trainings, judged by the rule of docs/reproduction.md.

    python scripts/reproduce.py --scale minutes --data DATA --dmphn CHECKPOINTS
    python scripts/reproduce.py --scale gpu --data DATA --stop-after 8      # again and again, until all is done

DATA holds data sets as unzipped: GOPRO_Large/{train,test}, REDS/{train,val}, other */train in their layout. Started
again with the same folder it goes on. It ends in OUT/claims.md, OUT/claims.json and OUT/report/index.html.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # jobs share the cores, and numbers are those of one thread
    # glibc keeps what large images have taken: a CPU passes over 1280x720 pixels in half the time
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
}


def main() -> int:
    """Run as the command line says; 0: all done, 1: something can't be used, 130: to be gone on with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=("minutes", "hour", "night", "gpu"), required=True, help="how much is run")
    parser.add_argument(
        "--claims", nargs="+", type=int, choices=range(1, 8), metavar="N", help="of those of the scale, some (1 to 7)"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="where the data sets are")
    parser.add_argument(
        "--dmphn", type=Path, metavar="FOLDER", help="official DMPHN(1-2-4-8) checkpoints; without, no DHN"
    )
    parser.add_argument("--lpips-weights", type=Path, metavar="FILE", help="AlexNet for LPIPS; else it is downloaded")
    parser.add_argument("--photographs", type=Path, metavar="FOLDER", help="blurry ones without ground truth (claim 7)")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="default reproduction/SCALE")
    parser.add_argument("--seeds", type=_at_least(3), metavar="N", help="trainings of each arm (3; night: 5)")
    parser.add_argument(
        "--processes", type=_at_least(1), metavar="N", help="jobs at once (the number of cores, or of GPUs)"
    )
    parser.add_argument(
        "--stop-after", type=_positive, metavar="MINUTES", help="save and end then; start again to go on"
    )
    arguments = parser.parse_args()
    for name, value in ENVIRONMENT.items():  # before torch comes
        os.environ.setdefault(name, value)
    paths = [str(ROOT), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # of the process that starts jobs

    from reblur_plugin import cli
    from reproduction.study import reproduce

    return cli.guarded(lambda: reproduce(arguments))


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {text!r}")
        return int(text)

    return number


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of minutes above 0, got {text!r}")
    return value


if __name__ == "__main__":
    sys.exit(main())
