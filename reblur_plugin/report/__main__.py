"""`python -m reblur_plugin.report RUNS... -o report/`: tables, figures and a page of runs and of anybody's pictures."""

from __future__ import annotations

import argparse
import sys

from reblur_plugin import cli, evaluate
from reblur_plugin.files import at_home


def main() -> int:
    """Report as the command line says; 0: all done, 1: something could not be used (and was named)."""
    arguments = _parser().parse_args()
    cli.alone("report")
    metrics = evaluate.chosen_metrics(arguments.metrics, arguments.lpips_weights, arguments.reblur_weights)

    from reblur_plugin import registration
    from reblur_plugin.evaluation.commands import Asked
    from reblur_plugin.report import writing
    from reblur_plugin.report.page import Pictures

    registration.register()
    asked = Asked(
        results=arguments.results,
        sharp=arguments.gt,
        blurry=arguments.blurry,
        metrics=metrics,
        optional={"lpips-alex"} if arguments.metrics is None else set(),
        out=arguments.out / "evaluation",
        device=arguments.device,
        processes=arguments.processes,
        by_order=arguments.match == "order",
        overwrite=True,  # what it holds is this report's own
    )
    pictures = Pictures(arguments.pictures, arguments.stages == "all")
    page, problems = writing.write(asked, arguments.out, arguments.title, arguments.crops, pictures)
    sys.stdout.write(f"{page}\n")
    for problem in problems:
        sys.stderr.write(f"note: {problem}\n")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.report",
        description="Compare runs of the commands test and evaluate, and folders of anybody's pictures: tables beside "
        "the paper's, figures, and a page with a slider over the pictures of each image.",
        epilog="example: python -m reblur_plugin.report results/gopro_srn_n2_tta theirs/ --gt GOPRO/test -o report/",
    )
    evaluate.add_evaluation(parser)
    parser.add_argument("-o", "--out", type=at_home, required=True, metavar="FOLDER", help="where the report goes")
    parser.add_argument("--title", default="Deblurring report", help="of the page")
    parser.add_argument("--crops", type=int, default=4, metavar="N", help="images on the contact sheet (default 4)")
    parser.add_argument(
        "--pictures",
        choices=("jpg", "webp", "png"),
        default="jpg",
        help="the page's pictures: JPEG of quality 95, WebP of 90 (a third of the size), or PNG without loss",
    )
    parser.add_argument("--stages", choices=("all", "ends"), default="all", help="ends: each run's first and last one")
    return parser


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
