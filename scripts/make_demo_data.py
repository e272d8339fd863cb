"""Make the demo's data set: photographs that scikit-image ships, blurred as a shaking camera would, in GOPRO's layout.

    python scripts/make_demo_data.py datasets/demo

Training and test photographs are disjoint. The blur is simulated: many poses along a smooth random path, averaged in
linear light.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from skimage.color import gray2rgb

from reblur_plugin.data.images import write_image
from reblur_plugin.data.recipes import Shakes

TRAIN = (
    "brick",
    "camera",
    "chelsea",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "moon",
    "page",
    "retina",
    "rocket",
    "text",
)
TEST = ("astronaut", "coffee", "motorcycle")
SHAKES = {"train": 6, "test": 2}
SETTINGS = Shakes(shortest=2.0, longest=5.0, rotation=0.003, poses=17, spread=0.3, margin=8)


def main() -> int:
    """Write the data set, unless it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for train/ and test/")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.out.exists():
        sys.stderr.write(f"{arguments.out} is there already; delete it to make it anew\n")
        return 0
    partial = arguments.out.with_name(f".{arguments.out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    rng = np.random.default_rng(arguments.seed)
    for split, names in (("train", TRAIN), ("test", TEST)):
        for name in names:
            write_sequence(partial / split / name, load(name), SHAKES[split], rng)
    partial.rename(arguments.out)
    return 0


def load(name: str) -> NDArray[np.uint8]:
    """Return one of scikit-image's photographs as RGB."""
    if name == "motorcycle":
        return skimage.data.stereo_motorcycle()[0]
    loader: Callable[[], NDArray[np.uint8]] = getattr(skimage.data, name)
    image = loader()
    return gray2rgb(image) if image.ndim == 2 else image[..., :3]


def write_sequence(folder: Path, photograph: NDArray[np.uint8], shakes: int, rng: np.random.Generator) -> None:
    """Write `shakes` blurry versions of a photograph and their sharp partners."""
    for number in range(1, shakes + 1):
        for kind, image in zip((SETTINGS.kind, "sharp"), SETTINGS.make(photograph, rng), strict=True):
            write_image(folder / kind / f"{number:06d}.png", image)


if __name__ == "__main__":
    from reblur_plugin.cli import guarded

    sys.exit(guarded(main))
