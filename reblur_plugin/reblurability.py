"""`python -m reblur_plugin.reblurability RESULT... --weights net_r_latest.pth`: rank results by the blur they hold."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reblur_plugin import cli, host
from reblur_plugin.pretrained.catalogue import catalogue, named


def main() -> int:
    """Rank as the command line says; 0: all done, 1: some images failed (and were named)."""
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.reblurability",
        description="Rank images, and folders of them, by how much M_R changes them: clean images are hard to reblur.",
        epilog="example: python -m reblur_plugin.reblurability theirs/ ours/ --weights net_r_latest.pth -o compared/",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="RESULT", help="images, or a folder for each method")
    names = ", ".join(one.name for one in catalogue())
    parser.add_argument(
        "--weights", required=True, metavar="FILE|NAME", help=f"M_R: net_r_*.pth of a training, or that of {names}"
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FOLDER", help="write ranking.csv and a picture of each image"
    )
    parser.add_argument("--kernel", action="store_true", help="show the blur that M_R adds at the centre (Figure 1)")
    parser.add_argument("--blurry", type=Path, metavar="FOLDER", help="show the kernel to its images of these names")
    parser.add_argument("--overwrite", action="store_true", help="replace a ranking that is there already")
    cli.add_import(parser, "your own networks")
    arguments = parser.parse_args()
    cli.alone("reblurability")
    if (arguments.kernel or arguments.blurry) and arguments.out is None:
        parser.error("--kernel and --blurry show something in the pictures; give -o as well")
    host.import_modules(arguments.modules)

    from reblur_plugin import registration
    from reblur_plugin.data.images import ImageError
    from reblur_plugin.evaluation import ranking
    from reblur_plugin.metrics.reblurability_metric import load_reblur_net

    registration.register()
    table = arguments.out / "ranking.csv" if arguments.out else None
    if table and table.exists() and not arguments.overwrite:
        raise ImageError(f"{table}: is there already; give another -o, or --overwrite")
    results = ranking.find_results(arguments.inputs, arguments.out)
    known = named(arguments.weights)
    reblur_net = load_reblur_net(str(known.reblur_net if known else arguments.weights))
    shown = arguments.kernel, arguments.blurry
    ranked, failures = ranking.rank(results, reblur_net, arguments.out, *shown, arguments.overwrite)
    if table:
        ranking.write_ranking(ranked, table)
    sys.stdout.write(f"{ranking.ranking_table(ranked)}\n")
    for failure in failures:
        sys.stderr.write(f"error: {failure}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
