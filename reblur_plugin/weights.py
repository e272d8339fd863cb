"""`python -m reblur_plugin.weights`: lists the weights that have a name; fetches others'."""

from __future__ import annotations

import argparse
import sys

from reblur_plugin import cli
from reblur_plugin.pretrained.catalogue import Named, cache, catalogue, must_be_named
from reblur_plugin.pretrained.fetching import fetch


def main() -> int:
    """List weights, or fetch them."""
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.weights",
        description="List the weights that --weights takes by name, the best first, or fetch others'.",
        epilog="example: python -m reblur_plugin.weights fetch dhn-official",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", help="what there is: licence, size, place (what is done without a command)")
    fetching = commands.add_parser("fetch", help="bring weights to this machine, from where their authors publish them")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="of weights")
    arguments = parser.parse_args()
    for weights in [must_be_named(name) for name in getattr(arguments, "names", ())]:
        sys.stderr.write(f"{weights.name}: licence: {weights.licence}\n")
        fetch(weights)
        sys.stdout.write(f"{weights.name}: {weights.deblur_net}\n")
    if arguments.command != "fetch":
        sys.stdout.write("\n\n".join(map(_described, catalogue())) + f"\n\nFetched weights lie in {cache()}\n")
    return 0


def _described(weights: Named) -> str:
    place = (
        weights.deblur_net
        if weights.is_here
        else f"to be fetched: python -m reblur_plugin.weights fetch {weights.name}"
    )
    lines = [f"{weights.name}: {weights.about}", f"licence: {weights.licence}", f"{weights.size / 1e6:.1f} MB, {place}"]
    return "\n    ".join(lines)


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
