"""Join folders of pairs into one in GOPRO's layout, by links, some of them several times over.

    python scripts/join_pairs.py OUT SHAKEN 5xAVERAGED 5xGOPRO_Large/train 5xREDS

Each sequence of OUT is a folder with `blur` and `sharp`, whatever the kind of its blur is called at its place.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_KINDS = ("blur", "blur_gamma")


def main() -> int:
    """Join as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("folders", nargs="+", metavar="[TIMESx]FOLDER", help="GOPRO's layout, or REDS (its train part)")
    arguments = parser.parse_args()
    count = 0
    for number, word in enumerate(arguments.folders):
        times, folder = re.fullmatch(r"(?:(\d+)x)?(.+)", word).groups()  # type: ignore[union-attr]
        for name, blurry, sharp in _sequences(Path(folder).resolve()):
            for copy in range(int(times or 1)):
                sequence = arguments.out / f"{number}_{copy}_{name}"
                sequence.mkdir(parents=True)
                (sequence / "blur").symlink_to(blurry)
                (sequence / "sharp").symlink_to(sharp)
                count += 1
    sys.stdout.write(f"{arguments.out}: {count} sequences\n")
    return 0


def _sequences(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Yield name, blurry and sharp folder of each sequence."""
    if (root / "train_blur").is_dir():  # REDS
        for blurry in sorted((root / "train_blur").iterdir()):
            yield blurry.name, blurry, root / "train_sharp" / blurry.name
        return
    for sequence in sorted(path for path in root.iterdir() if (path / "sharp").is_dir()):
        yield sequence.name, next(sequence / kind for kind in _KINDS if (sequence / kind).is_dir()), sequence / "sharp"


if __name__ == "__main__":
    sys.exit(main())
