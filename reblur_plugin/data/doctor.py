"""The doctor: what a folder of image pairs is, whether it is whole, and what is wrong with it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reblur_plugin.data.images import ImageError
from reblur_plugin.data.inspection import inspect_images
from reblur_plugin.data.layouts import alone_in, hide_partners, list_pairs, partners, realblur_partners
from reblur_plugin.data.listing import subfolders
from reblur_plugin.data.packed import BEGUN, INDEX
from reblur_plugin.data.pairs import DatasetError, Pair, fingerprint
from reblur_plugin.data.published import split_of
from reblur_plugin.data.recognition import REDS_PARTS, frames_of_gopro, is_gopro, is_hide, is_reds, pairs_in_folders
from reblur_plugin.data.synthesis import is_unfinished

Block = dict[str, Any]  # keys of DeblurPairDataset
_SHOWN = 20  # problems in the text of a diagnosis


@dataclass(frozen=True)
class Diagnosis:
    """What was found in one data set.

    Attributes:
        block: the keys that make DeblurPairDataset read it.
        title: the published split that it is or belongs to; empty for data of one's own.
        pairs, sequences: how many there are.
        published: how many pairs the published split has, None for data of one's own.
        blur_kind: as the data set's.
        images: sizes and bits, the commonest first.
        fingerprint: as in the logs of a training; empty if a training would refuse the data.
        problems: sentences on what is damaged.
        notes: sentences on what is worth knowing.
    """

    block: Block
    title: str
    pairs: int
    sequences: int
    published: int | None
    blur_kind: str
    images: tuple[str, ...]
    fingerprint: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`damaged`, `whole` (as many pairs as published), `incomplete` (fewer or more) or `fine` (one's own)."""
        if self.problems:
            return "damaged"
        if self.published is None:
            return "fine"
        return "whole" if self.pairs == self.published else "incomplete"

    @property
    def good(self) -> bool:
        """Whether the verdict is `whole` or `fine`."""
        return self.verdict in ("whole", "fine")

    def text(self) -> str:
        """Return the diagnosis in lines."""
        count = f"{self.pairs}" + (f" in {self.sequences} sequences" if self.sequences else "")
        rows = [("data set", self.title or "not a published one")]
        rows += [("pairs", count + (f"; published: {self.published}" if self.published is not None else ""))]
        rows += [("blur kind", self.blur_kind), ("images", "; ".join(self.images) or "not looked at")]
        rows += [("fingerprint", self.fingerprint or "none: a training would refuse these data")]
        rows += [("options", ", ".join(f"{key}: {value}" for key, value in self.block.items()))]
        rows += [("note", note) for note in self.notes] + [("problem", line) for line in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            rows += [("problem", f"and {len(self.problems) - _SHOWN} more")]
        rows += [("verdict", self.verdict)]
        root = self.block.get("dataroot") or self.block["dataroot_lq"]
        return "\n".join([root, *(f"  {name:11s} {value}" for name, value in rows)])


def check(blocks: list[Block], look: bool = True, workers: int | None = None) -> Iterator[Diagnosis]:
    """Yield the diagnosis of each data set that a block names; all image files are decoded unless `look` is False."""
    for block in blocks:
        yield _examine(block, look, workers or os.cpu_count() or 1)


def find_blocks(root: Path, blur_key: str | None = None) -> list[Block]:
    """Return the keys for DeblurPairDataset of the data sets in `root` or a level below.

    Raises:
        DatasetError: if there is none.
    """
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected a data set")
    above = root.absolute().parent
    if ((root / "sharp").is_dir() and is_gopro(above)) or root.name in REDS_PARTS:
        raise DatasetError(f"{root}: expected a whole data set, got a part of {above}; check that")
    blocks = _blocks(root, blur_key)
    for folder in subfolders(root) if not blocks else []:
        blocks += _blocks(folder, blur_key)
    if not blocks and (frames := frames_of_gopro(root)):
        raise DatasetError(
            f"{root}: expected pairs, got the sharp frames of GOPRO_Large_all; "
            f"python -m reblur_plugin.data synthesise {frames} OUT makes pairs of them"
        )
    return blocks or [{"layout": "photographs", "dataroot": str(root)}]


def _blocks(root: Path, blur_key: str | None) -> list[Block]:
    place = {"dataroot": str(root)}
    if (root / INDEX).is_file() or (root / BEGUN).is_file():
        return [{"layout": "packed", **place}]
    lists = sorted(path.name for path in root.glob("RealBlur_*_list.txt"))
    if lists:
        return [{"layout": "realblur", **place, "meta_info_file": name} for name in lists]
    if is_reds(root):
        return [{"layout": "reds", **place}]
    if is_hide(root):
        return [{"layout": "hide", **place}]
    if is_gopro(root):
        kinds = Counter(kind for sequence in subfolders(root) for kind in _kinds(sequence))
        usual = "blur_gamma" if "blur_gamma" in kinds or not kinds else kinds.most_common(1)[0][0]
        return [{"layout": "gopro", **place, "blur_key": blur_key or usual}]
    pairs = pairs_in_folders(root)
    return [pairs] if pairs else []


def _kinds(sequence: Path) -> list[str]:
    return [folder.name for folder in subfolders(sequence) if folder.name.startswith("blur")]


def _examine(block: Block, look: bool, workers: int) -> Diagnosis:
    problems: list[str] = []
    notes: list[str] = []
    pairs = _list(block, problems, notes)
    lines = Path(block["meta_info_file"]) if "meta_info_file" in block else None
    split = split_of(block["layout"], pairs, lines)
    if split:
        for name, near in split.misnamed(pairs):
            if near:
                problems.append(f"{name}: no sequence of {split.title}; did you mean {near}?")
            else:
                notes.append(f"{name}: no sequence of {split.title}")
    images, found = inspect_images(pairs, workers) if look else ((), [])
    return Diagnosis(
        block=block,
        title=split.title if split else "",
        pairs=len(pairs),
        sequences=len({pair.sequence for pair in pairs} - {""}),
        published=split.pairs if split else None,
        blur_kind=pairs[0].kind if pairs else block.get("blur_key", "unknown"),
        images=images,
        fingerprint=_fingerprint(block),
        problems=(*problems, *found),
        notes=tuple(notes),
    )


def _fingerprint(block: Block) -> str:
    try:
        return fingerprint(list_pairs(block))
    except (DatasetError, ImageError):
        return ""


def _list(block: Block, problems: list[str], notes: list[str]) -> list[Pair]:
    """Return the pairs that can be found, whatever else is wrong."""
    try:
        if block["layout"] == "gopro":
            folders = _gopro_folders(Path(block["dataroot"]), block["blur_key"], problems, notes)
        elif block["layout"] == "reds":
            folders = _reds_folders(Path(block["dataroot"]), problems)
        elif block["layout"] == "folders":
            folders = [(Path(block["dataroot_lq"]), Path(block["dataroot_gt"]), "unknown", "")]
        elif block["layout"] == "hide":
            return _kept(problems, *hide_partners(Path(block["dataroot"])))
        elif block["layout"] == "realblur":
            return _kept(problems, *realblur_partners(Path(block["dataroot"]), Path(block["meta_info_file"])))
        else:
            return list_pairs(block)
    except DatasetError as error:
        problems.append(str(error))
        return []
    pairs: list[Pair] = []
    for blurry, sharp, kind, name in folders:
        try:
            whole, alone = partners(blurry, sharp, kind, name)
        except DatasetError as error:
            problems.append(str(error))
            continue
        pairs += whole
        problems += [alone_in(*found) for found in alone]
    return pairs


def _kept(problems: list[str], pairs: list[Pair], found: list[str]) -> list[Pair]:
    problems += found
    return pairs


def _gopro_folders(root: Path, kind: str, problems: list[str], notes: list[str]) -> list[tuple[Path, Path, str, str]]:
    if is_unfinished(root):
        problems.append(f"{root}: expected all pairs of a synthesis, got a part; start the same synthesise again")
    folders, others = [], Counter[str]()
    for sequence in subfolders(root):
        try:
            kinds = _kinds(sequence)
        except DatasetError as error:
            problems.append(str(error))
            continue
        others.update(set(kinds) - {kind})
        if kind not in kinds:
            found = ", ".join(kinds) or "no other"
            problems.append(
                f"{sequence}: expected a folder {kind!r} as in the other sequences, found {found}; unzip again"
            )
            continue
        folders.append((sequence / kind, sequence / "sharp", kind, sequence.name))
        problems += [
            f"{sequence / other}: the same files as in {kind}; one of the two was copied, unzip both again"
            for other in kinds
            if other != kind and _same_files(sequence / other, sequence / kind)
        ]
    notes += [f"{other} is there in {count} sequences; --blur_key {other} checks it" for other, count in others.items()]
    return folders


def _same_files(first: Path, second: Path) -> bool:
    """Return whether files of the same names have the same sizes, and the first of them the same bytes."""
    files = [
        [(path.name, path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file()]
        for folder in (first, second)
    ]
    if not files[0] or files[0] != files[1]:
        return False
    name = files[0][0][0]
    return (first / name).read_bytes() == (second / name).read_bytes()


def _reds_folders(root: Path, problems: list[str]) -> list[tuple[Path, Path, str, str]]:
    blurred = [folder for folder in subfolders(root) if folder.name in ("train_blur", "val_blur")]
    if len(blurred) != 1:
        raise DatasetError(f"{root}: expected one folder train_blur or val_blur, got {len(blurred)}")
    blurry, sharp = blurred[0], root / blurred[0].name.replace("_blur", "_sharp")
    clips = {
        folder: {clip.name for clip in subfolders(folder)} if folder.is_dir() else set() for folder in (blurry, sharp)
    }
    for here, there in ((blurry, sharp), (sharp, blurry)):
        for name in sorted(clips[here] - clips[there]):
            problems.append(f"{here / name}: no sequence of that name in {there}; unzip again or rename it")
    return [(blurry / name, sharp / name, "reds", name) for name in sorted(clips[blurry] & clips[sharp])]
