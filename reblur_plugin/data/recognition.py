"""What kind of data a folder holds, by the names in it."""

from __future__ import annotations

from pathlib import Path

from reblur_plugin.data.images import SUFFIXES
from reblur_plugin.data.listing import subfolders
from reblur_plugin.data.pairs import DatasetError
from reblur_plugin.data.published import GOPRO

REDS_PARTS = ("train_blur", "train_sharp", "val_blur", "val_sharp")
# Folders that others give their blurry and sharp images
_NAMES: tuple[tuple[str, str], ...] = (("blur_gamma", "sharp"), ("blur", "sharp"), ("blurry", "sharp"))
_NAMES += (("blurred", "sharp"), ("blur", "gt"), ("input", "target"), ("inputs", "targets"), ("lq", "gt"), ("A", "B"))
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}  # of data sets, and no sequences


def is_gopro(root: Path) -> bool:
    """Return whether folders in `root` are laid out as GOPRO's sequences are."""
    return any(
        any((folder / kind).is_dir() for kind in ("sharp", "blur", "blur_gamma"))
        for folder in subfolders(root)
        if folder.name.lower() not in _PARTS
    )


def is_reds(root: Path) -> bool:
    """Return whether `root` holds parts of REDS."""
    return any((root / part).is_dir() for part in REDS_PARTS)


def is_hide(root: Path) -> bool:
    """Return whether `root` is HIDE's train or test folder."""
    return root.name != "GT" and root.is_dir() and (root.parent / "GT").is_dir()


def pairs_in_folders(root: Path) -> dict[str, str] | None:
    """Return the keys of the layout `folders`, if `root` holds one folder of blurry and one of sharp images."""
    names = {folder.name if folder.name in ("A", "B") else folder.name.lower(): folder for folder in subfolders(root)}
    for blurry, sharp in _NAMES:
        if blurry in names and sharp in names:
            return {"layout": "folders", "dataroot_lq": str(names[blurry]), "dataroot_gt": str(names[sharp])}
    return None


def frames_of_gopro(root: Path) -> Path | None:
    """Return the folder in which GOPRO_Large_all's frames are, by sequence: `root` or one in it, None if it is none."""
    sequences = set().union(*(split.sequences for split in GOPRO))
    for folder in (root, *subfolders(root)):
        for sequence in subfolders(folder):
            if sequence.name in sequences and any(path.suffix.lower() in SUFFIXES for path in sequence.iterdir()):
                return folder
    return None


def advice(root: Path) -> str:
    """Return "; ..." with what to do with data that don't have the layout they were taken for; empty if unknown."""
    try:
        if is_gopro(root):
            return ""
        found = [block for folder in (root, *subfolders(root)) if (block := pairs_in_folders(folder))]
        frames = None if found else frames_of_gopro(root)
    except (DatasetError, OSError):  # a folder in it that can't be looked into
        return ""
    if found:
        keys = [", ".join(f"{key}: {value}" for key, value in block.items()) for block in found[:2]]
        return f"; it holds pairs in folders: {' or '.join(keys)}"
    return f"; {frames} holds frames: python -m reblur_plugin.data synthesise makes pairs of them" if frames else ""
