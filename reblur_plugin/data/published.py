"""What the published data sets hold, so that a copy can be told from a part of it."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from reblur_plugin.data.pairs import Pair

_TRAIN = """GOPR0372_07_00 GOPR0372_07_01 GOPR0374_11_00 GOPR0374_11_01 GOPR0374_11_02 GOPR0374_11_03 GOPR0378_13_00
    GOPR0379_11_00 GOPR0380_11_00 GOPR0384_11_01 GOPR0384_11_02 GOPR0384_11_03 GOPR0384_11_04 GOPR0385_11_00
    GOPR0386_11_00 GOPR0477_11_00 GOPR0857_11_00 GOPR0868_11_01 GOPR0868_11_02 GOPR0871_11_01 GOPR0881_11_00
    GOPR0884_11_00"""
_TEST = """GOPR0384_11_00 GOPR0384_11_05 GOPR0385_11_01 GOPR0396_11_00 GOPR0410_11_00 GOPR0854_11_00 GOPR0862_11_00
    GOPR0868_11_00 GOPR0869_11_00 GOPR0871_11_00 GOPR0881_11_01"""


@dataclass(frozen=True)
class Part:
    """A part of a published data set.

    Attributes:
        title: its name in words.
        pairs: how many it has.
        sequences: their names, empty where they aren't listed here.
    """

    title: str
    pairs: int
    sequences: frozenset[str] = frozenset()

    def misnamed(self, pairs: list[Pair]) -> list[tuple[str, str]]:
        """Return sequences that aren't the data set's, each with the nearest missing name, empty if none is near."""
        found = {pair.sequence for pair in pairs}
        missing = sorted(self.sequences - found)
        unknown = sorted(found - self.sequences) if self.sequences else []
        return [(name, "".join(difflib.get_close_matches(name, missing, n=1, cutoff=0.8))) for name in unknown]


GOPRO = (
    Part("GOPRO_Large, training part", 2103, frozenset(_TRAIN.split())),
    Part("GOPRO_Large, test part", 1111, frozenset(_TEST.split())),
)
REDS = {
    "train_blur": Part("REDS, training part", 24000, frozenset(f"{clip:03d}" for clip in range(240))),
    "val_blur": Part("REDS, validation part", 3000, frozenset(f"{clip:03d}" for clip in range(30))),
}
HIDE = {"train": Part("HIDE, training part", 6397), "test": Part("HIDE, test part", 2025)}
REALBLUR = {
    f"RealBlur_{camera}_{part}_list": Part(f"RealBlur-{camera}, {words} part", pairs)
    for camera in "JR"
    for part, words, pairs in (("train", "training", 3758), ("test", "test", 980))
}


def part_of(layout: str, pairs: list[Pair], lines: Path | None = None) -> Part | None:
    """Return the published part that `pairs` of a layout are or belong to, None if they are somebody's own.

    `lines` is RealBlur's list.
    """
    if not pairs:
        return None
    if layout == "gopro":
        found = {pair.sequence for pair in pairs}
        best = max(GOPRO, key=lambda part: len(found & part.sequences))
        return best if found & best.sequences else None
    if layout == "reds":
        return REDS.get(pairs[0].blurry.parent.parent.name)
    if layout == "hide":
        return next((HIDE[name] for name in map(str, pairs[0].blurry.parts[::-1]) if name in HIDE), None)
    return REALBLUR.get(lines.stem) if layout == "realblur" and lines else None
