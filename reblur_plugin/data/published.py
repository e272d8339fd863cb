"""What the published data sets hold, split by split, so that an incomplete copy is recognised."""

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
class Split:
    """The training, validation or test part of a published data set.

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
    Split("GOPRO_Large, training part", 2103, frozenset(_TRAIN.split())),
    Split("GOPRO_Large, test part", 1111, frozenset(_TEST.split())),
)
REDS = {
    "train_blur": Split("REDS, training part", 24000, frozenset(f"{clip:03d}" for clip in range(240))),
    "val_blur": Split("REDS, validation part", 3000, frozenset(f"{clip:03d}" for clip in range(30))),
}
HIDE = {"train": Split("HIDE, training part", 6397), "test": Split("HIDE, test part", 2025)}
REALBLUR = {
    f"RealBlur_{camera}_{name}_list": Split(f"RealBlur-{camera}, {words} part", pairs)
    for camera in "JR"
    for name, words, pairs in (("train", "training", 3758), ("test", "test", 980))
}


def split_of(layout: str, pairs: list[Pair], lines: Path | None = None) -> Split | None:
    """Return the published split that `pairs` of a layout are or belong to, None for data of one's own.

    `lines` is RealBlur's list.
    """
    if not pairs:
        return None
    if layout == "gopro":
        found = {pair.sequence for pair in pairs}
        best = max(GOPRO, key=lambda split: len(found & split.sequences))
        return best if found & best.sequences else None
    if layout == "reds":
        return REDS.get(pairs[0].blurry.parent.parent.name)
    if layout == "hide":
        return next((HIDE[name] for name in map(str, pairs[0].blurry.parts[::-1]) if name in HIDE), None)
    return REALBLUR.get(lines.stem) if layout == "realblur" and lines else None
