"""`python -m reblur_plugin.data {check,pack,synthesise}`: from downloaded archives, or films, to training data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reblur_plugin import cli

_PROGRAM = "python -m reblur_plugin.data"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the command line."""
    program = argparse.ArgumentParser(_PROGRAM, description="Check, pack and make pairs of blurry and sharp images.")
    commands = program.add_subparsers(dest="command", required=True)
    _add_check(commands.add_parser("check", help="what is this data set, is it whole, what is wrong with it"))
    _add_pack(commands.add_parser("pack", help="write a data set so that patches are read without decoding"))
    _add_synthesise(commands.add_parser("synthesise", help="make pairs from films, frames or photographs"))
    return program.parse_args(words)


def _add_synthesise(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Make pairs in GOPRO's layout: frames of a fast camera averaged in linear light, or photographs shaken by a "
        "simulated hand (--shake). Started again it goes on."
    )
    command.epilog = f"example: {_PROGRAM} synthesise film_240fps.mp4 datasets/mine/train --frames 7-13"
    add = command.add_argument
    add("root", type=Path, metavar="FRAMES", help="a film, a folder of films or of frames, or of such folders")
    add("out", type=Path, metavar="OUT", help="folder for SEQUENCE/{blur_gamma or blur,sharp}")
    add("--frames", type=_span(int), default=(7, 13), metavar="N-M", help="frames averaged, drawn for each pair (7-13)")
    add("--stride", type=int, metavar="N", help="frames from one pair to the next (as many as are averaged)")
    add(
        "--interpolate", default="0", metavar="N", help="frames put between two; auto: as many as motion has pixels (0)"
    )
    add(
        "--shake",
        type=_span(float),
        metavar="A-B",
        help="FRAMES are photographs; length of the camera's path in pixels",
    )
    add("--rotation", type=float, default=0.003, help="with --shake: largest turn in radians (0.003)")
    add("--poses", type=int, default=33, help="with --shake: positions of the camera that are averaged (33)")
    add("--count", type=int, default=1, help="with --shake: pairs from each photograph (1)")
    add("--gamma", type=float, default=2.2, help="the camera's curve: 2.2 makes blur_gamma, 1 makes blur (2.2)")
    add(
        "--highlights",
        type=float,
        default=1.0,
        metavar="X",
        help="how much brighter white is than it could be shown (1)",
    )
    add("--noise", type=float, default=0.0, metavar="SIGMA", help="noise on the blurry image, in levels of 255 (0)")
    add("--jpeg", type=_span(int), metavar="A-B", help="JPEG quality of the blurry image, drawn for each pair (none)")
    add("--seed", type=int, default=0)


def _span(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, Any]]:
    """Return what reads "7-13" as (7, 13) and "8" as (8, 8)."""

    def read(word: str) -> tuple[Any, Any]:
        first, _, last = word.partition("-")
        try:
            return kind(first), kind(last or first)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"expected such as 7-13 or 8, got {word!r}") from error

    return read


def _synthesise(arguments: argparse.Namespace) -> int:
    from reblur_plugin.data.pairs import DatasetError
    from reblur_plugin.data.recipes import Films, Shakes
    from reblur_plugin.data.synthesis import from_frames, from_photographs

    common = {name: getattr(arguments, name) for name in ("gamma", "highlights", "noise", "jpeg", "seed")}
    if arguments.shake:
        shakes = {name: getattr(arguments, name) for name in ("rotation", "poses", "count")}
        shortest, longest = arguments.shake
        settings = Shakes(shortest=shortest, longest=longest, **shakes, **common)
        pairs = from_photographs(arguments.root, arguments.out, settings)
    else:
        if arguments.interpolate != "auto" and not arguments.interpolate.isdigit():
            raise DatasetError(f"--interpolate: expected auto or a whole number, got {arguments.interpolate!r}")
        between = None if arguments.interpolate == "auto" else int(arguments.interpolate)
        least, most = arguments.frames
        films = Films(least=least, most=most, stride=arguments.stride, between=between, **common)
        pairs = from_frames(arguments.root, arguments.out, films)
    sys.stdout.write(f"{arguments.out}: {pairs} pairs. In option files: layout: gopro, dataroot: {arguments.out}\n")
    return 0


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--blur-key", "--blur_key", metavar="KIND", help="GOPRO's kind: blur_gamma (taken if it is there) or blur"
    )
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
    for diagnosis in check(_blocks(arguments), not arguments.quick, arguments.workers):
        sys.stdout.write(diagnosis.text() + "\n")
        good = good and diagnosis.good
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
    cli.alone(f"data {arguments.command}")
    return {"check": _check, "pack": _pack, "synthesise": _synthesise}[arguments.command](arguments)


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
