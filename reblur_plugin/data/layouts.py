"""Where the published data sets keep their blurry and sharp images, as unzipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reblur_plugin.data.images import SUFFIXES
from reblur_plugin.errors import ReblurError


class DatasetError(ReblurError):
    """A data set whose folders or files aren't what its layout says; the message names the place."""


@dataclass(frozen=True)
class Pair:
    """A blurry image and its sharp partner (None for real photographs).

    `name` is unique within the data set, keeps the sequence and has no suffix: "GOPR0384_11_00/000001".
    """

    name: str
    blurry: Path
    sharp: Path | None


def gopro_pairs(root: Path, blur_key: str = "blur_gamma") -> list[Pair]:
    """Return the pairs of GOPRO_Large's `train` or `test` folder: SEQUENCE/{blur,blur_gamma,sharp}/FRAME.png.

    `blur_key` is the kind of blur: "blur_gamma" (averaged with the camera's curve; the author's choice, D11) or
    "blur" (averaged linearly; DMPHN, SRN and many others).
    """
    sequences = _folders(root, f"the sequences of GOPRO_Large (SEQUENCE/{blur_key}, SEQUENCE/sharp)")
    pairs = []
    for sequence in sequences:
        if sequence.name in ("train", "test") and not (sequence / "sharp").exists():
            raise DatasetError(f"{root}: expected sequences, got train and test; point dataroot at one of these two")
        if not (sequence / blur_key).is_dir():
            kinds = sorted(folder.name for folder in sequence.iterdir() if folder.is_dir() and folder.name != "sharp")
            found = (
                f"found {', '.join(kinds)}; set blur_key to one of them" if kinds else "found no other; unzip it again"
            )
            raise DatasetError(f"{sequence}: expected a folder {blur_key!r}, {found}")
        pairs += _match(sequence / blur_key, sequence / "sharp", sequence.name)
    return pairs


def reds_pairs(root: Path) -> list[Pair]:
    """Return the pairs of REDS' `train` or `val` folder: {train,val}_blur/SEQUENCE, {train,val}_sharp/SEQUENCE."""
    blurred = [folder for folder in _folders(root, "REDS' train_blur or val_blur") if folder.name.endswith("_blur")]
    if len(blurred) != 1:
        raise DatasetError(f"{root}: expected one folder train_blur or val_blur, got {len(blurred)}")
    sharp = root / blurred[0].name.replace("_blur", "_sharp")
    pairs = []
    for sequence in _folders(blurred[0], "REDS' sequences"):
        pairs += _match(sequence, sharp / sequence.name, sequence.name)
    return pairs


def folder_pairs(blurry: Path, sharp: Path) -> list[Pair]:
    """Return the pairs of two folders whose files have the same names, sub-folders included."""
    return _match(blurry, sharp)


def photographs(folder: Path) -> list[Pair]:
    """Return the images of a folder and its sub-folders, without sharp partners."""
    return [Pair(name, path, None) for name, path in _images(folder).items()]


def list_pairs(options: dict[str, str]) -> list[Pair]:
    """Return the pairs that a data set block asks for by its keys `layout`, `dataroot...` and `blur_key`, sorted.

    Raises:
        DatasetError: if the layout is unknown, a folder or key is missing, or a partner is.
    """
    layouts: dict[str, Callable[[], list[Pair]]] = {
        "gopro": lambda: gopro_pairs(_path(options, "dataroot"), options.get("blur_key", "blur_gamma")),
        "reds": lambda: reds_pairs(_path(options, "dataroot")),
        "folders": lambda: folder_pairs(_path(options, "dataroot_lq"), _path(options, "dataroot_gt")),
        "photographs": lambda: photographs(_path(options, "dataroot")),
    }
    layout = options.get("layout", "gopro")
    if layout not in layouts:
        raise DatasetError(f"layout: expected one of {', '.join(layouts)}, got {layout!r}")
    return layouts[layout]()


def _path(options: dict[str, str], key: str) -> Path:
    if not options.get(key):
        raise DatasetError(f"{key}: missing; the layout {options.get('layout', 'gopro')!r} needs this folder")
    return Path(options[key]).expanduser()


def _folders(root: Path, what: str) -> list[Path]:
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected {what}")
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if not folders:
        raise DatasetError(f"{root}: no folders in it; expected {what}")
    return folders


def _images(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected images")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DatasetError(f"{path}: a second image named {name!r} beside {found[name].name}; rename one of them")
        found[name] = path
    if not found:
        raise DatasetError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none")
    return found


def _match(blurry: Path, sharp: Path, prefix: str = "") -> list[Pair]:
    blurred, targets = _images(blurry), _images(sharp)
    for present, others, elsewhere in ((blurred, targets, sharp), (targets, blurred, blurry)):
        alone = [path for name, path in present.items() if name not in others]
        if alone:
            more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
            raise DatasetError(f"{alone[0]}: no partner of that name in {elsewhere}{more}; unzip again or remove it")
    join = f"{prefix}/" if prefix else ""
    return [Pair(join + name, path, targets[name]) for name, path in blurred.items()]
