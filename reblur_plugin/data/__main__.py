"""`python -m reblur_plugin.data {check,pack,synthesise}`: from downloaded archives, or films, to training data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reblur_plugin import cli

_PROGRAM = "python -m reblur_plugin.data"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    program = argparse.ArgumentParser(_PROGRAM, description="Check, pack and make pairs of blurry and sharp images.")
    commands = program.add_subparsers(dest="command", required=True)
    _add_check(commands.add_parser("check", help="what is this data set, is it whole, what is wrong with it"))
    _add_pack(commands.add_parser("pack", help="write a data set so that patches are read without decoding"))
    return program.parse_args(words)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("--blur_key", metavar="KIND", help="GOPRO's kind: blur_gamma (taken if it is there) or blur")
    command.add_argument(
        "--sharp", type=Path, metavar="FOLDER", help="sharp partners, if ROOT holds blurry images only"
    )
    command.add_argument("--workers", type=int, metavar="N", help="threads; as many as cores if left out")


def _add_check(command: argparse.ArgumentParser) -> None:
    command.description = "Report on the data sets in ROOT; exit code 0 if all are whole or somebody's own and fine."
    command.epilog = f"example: {_PROGRAM} check datasets/GOPRO_Large"
    command.add_argument("root", type=Path, metavar="ROOT", help="a data set's folder as unzipped, or a pack")
    command.add_argument("--quick", action="store_true", help="names only: decode no image")
    _add_source(command)


def _add_pack(command: argparse.ArgumentParser) -> None:
    command.description = "Pack one data set. Started again it goes on; a finished pack is verified."
    command.epilog = f"example: {_PROGRAM} pack datasets/GOPRO_Large/train datasets/gopro_train"
    command.add_argument("root", type=Path, metavar="ROOT", help="a data set's folder as unzipped")
    command.add_argument("out", type=Path, metavar="OUT", help="folder of the pack: layout: packed, dataroot: OUT")
    command.add_argument("--list", dest="lines", metavar="FILE", help="RealBlur's list in ROOT")
    _add_source(command)


def _blocks(arguments: argparse.Namespace) -> list[dict[str, str]]:
    from reblur_plugin.data.doctor import find_blocks

    if arguments.sharp:
        return [{"layout": "folders", "dataroot_lq": str(arguments.root), "dataroot_gt": str(arguments.sharp)}]
    return find_blocks(arguments.root, arguments.blur_key)


def _check(arguments: argparse.Namespace) -> int:
    from reblur_plugin.data.doctor import check

    good = True
    for report in check(_blocks(arguments), not arguments.quick, arguments.workers):
        sys.stdout.write(report.text() + "\n")
        good = good and report.good
    return 0 if good else 1


def _pack(arguments: argparse.Namespace) -> int:
    from reblur_plugin.data.layouts import list_pairs
    from reblur_plugin.data.packed import pack
    from reblur_plugin.data.pairs import DatasetError

    blocks = _blocks(arguments)
    if arguments.lines:
        blocks = [{"layout": "realblur", "dataroot": str(arguments.root), "meta_info_file": arguments.lines}]
    if len(blocks) > 1:
        roots = " or ".join(block.get("meta_info_file") or block["dataroot"] for block in blocks)
        raise DatasetError(f"{arguments.root}: expected one data set, got {len(blocks)}; give {roots}")
    written = pack(list_pairs(blocks[0]), arguments.out, arguments.workers)
    done = "packed" if written else "verified; all was there"
    sys.stdout.write(f"{arguments.out}: {done}. In option files: layout: packed, dataroot: {arguments.out}\n")
    return 0


def main() -> int:
    """Do what the command line says."""
    arguments = parse()
    return {"check": _check, "pack": _pack}[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
