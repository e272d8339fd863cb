"""Where the published data sets keep their blurry and sharp images, as unzipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from reblur_plugin.data.images import SUFFIXES
from reblur_plugin.data.packed import packed_pairs
from reblur_plugin.data.pairs import DatasetError, Pair
from reblur_plugin.errors import did_you_mean

REDS_PARTS = ("train_blur", "train_sharp", "val_blur", "val_sharp")


def gopro_pairs(root: Path, blur_key: str = "blur_gamma", block: str = "") -> list[Pair]:
    """Return the pairs of GOPRO_Large's `train` or `test` folder: SEQUENCE/{blur,blur_gamma,sharp}/FRAME.png.

    `blur_key` is the kind of blur: "blur_gamma" (averaged with the camera's curve; the author's choice, D11) or
    "blur" (averaged linearly; DMPHN, SRN and many others). `block` names the data set in messages.
    """
    what = f"the sequences of GOPRO_Large (SEQUENCE/{blur_key}, SEQUENCE/sharp)"
    sequences = _folders(root, what, is_gopro)
    pairs = []
    for sequence in sequences:
        if not (sequence / blur_key).is_dir():
            kinds = sorted(folder.name for folder in sequence.iterdir() if folder.is_dir() and folder.name != "sharp")
            where = f" (data set {block})" if block else ""
            found = f"{', '.join(kinds)}; set blur_key to one of them{where}" if kinds else "no other; unzip it again"
            raise DatasetError(f"{sequence}: expected a folder {blur_key!r}, found {found}")
        pairs += _match(sequence / blur_key, sequence / "sharp", blur_key, sequence.name)
    return pairs


def reds_pairs(root: Path) -> list[Pair]:
    """Return the pairs of REDS' `train` or `val` folder: {train,val}_blur/SEQUENCE, {train,val}_sharp/SEQUENCE."""
    folders = _folders(root, "REDS' train_blur or val_blur", is_reds)
    blurred = [folder for folder in folders if folder.name.endswith("_blur")]
    if len(blurred) != 1:
        raise DatasetError(f"{root}: expected one folder train_blur or val_blur, got {len(blurred)}")
    sharp = root / blurred[0].name.replace("_blur", "_sharp")
    pairs = []
    for sequence in _folders(blurred[0], "REDS' sequences"):
        pairs += _match(sequence, sharp / sequence.name, "reds", sequence.name)
    return pairs


def hide_pairs(root: Path) -> list[Pair]:
    """Return the pairs of HIDE_dataset's `train` or `test` folder; the sharp images of both are in GT next to them.

    Test images are in `test-close-ups` and `test-long-shot`, training images in `train` itself.
    """
    what = "HIDE_dataset's train or test, with GT beside it"
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected {what}")
    if not is_hide(root):
        near = root.parent if root.name == "GT" else root
        raise DatasetError(f"{root}: expected {what}, found none{_elsewhere(near, is_hide)}")
    sharp = list_images(root.parent / "GT")
    pairs = []
    for name, path in list_images(root).items():
        partner = sharp.get(path.stem)
        if partner is None:
            raise DatasetError(f"{path}: no partner of that name in {root.parent / 'GT'}; unzip again or remove it")
        pairs.append(Pair(name, path, partner, "hide"))
    return pairs


def realblur_pairs(root: Path, lines: Path) -> list[Pair]:
    """Return the pairs that a list of RealBlur names, such as RealBlur_J_train_list.txt in `root`.

    A line holds the sharp and the blurry image: FOLDER/scene183/gt/gt_7.png FOLDER/scene183/blur/blur_7.png.
    """
    path = root / lines
    try:
        text = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        known = ", ".join(sorted(found.name for found in root.glob("*_list.txt"))) or "none"
        raise DatasetError(f"{path}: expected a list of pairs ({error.strerror}); lists here: {known}") from error
    pairs: dict[str, Pair] = {}
    for number, line in enumerate(text, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or any(Path(word).is_absolute() or ".." in Path(word).parts for word in words):
            raise DatasetError(f"{path}, line {number}: expected a sharp and a blurry image, got {line.strip()!r}")
        sharp, blurry = (root / word for word in words)
        for image in (blurry, sharp):
            if not image.is_file():
                raise DatasetError(f"{image}: no such file, but {path.name} names it in line {number}; unzip it again")
        parts = Path(words[1]).with_suffix("").parts
        name = "/".join(parts[1:] or parts)
        if name in pairs:
            raise DatasetError(f"{path}, line {number}: {words[1]} is named twice; remove one of the lines")
        pairs[name] = Pair(name, blurry, sharp, "realblur")
    if not pairs:
        raise DatasetError(f"{path}: expected a list of pairs, found none; download it again")
    return [pairs[name] for name in sorted(pairs)]


def photographs(folder: Path) -> list[Pair]:
    """Return the images of a folder and its sub-folders, without sharp partners."""
    return [Pair(name, path, None, "unknown") for name, path in list_images(folder).items()]


def list_pairs(options: Mapping[str, Any]) -> list[Pair]:
    """Return the pairs that a data set block asks for by its keys `layout`, `dataroot...` and `blur_key`, sorted.

    The keys `only` and `without` are lists of sequences to keep and to leave out. The pairs' kind of blur is GOPRO's
    `blur_key`, "reds", "hide", "realblur", "unknown" for folders and photographs, and the source's for a pack.

    Raises:
        DatasetError: if the layout is unknown, a folder or key is missing, a partner is, or a sequence.
    """
    layouts: dict[str, Callable[[], list[Pair]]] = {
        "gopro": lambda: gopro_pairs(
            _path(options, "dataroot"), options.get("blur_key", "blur_gamma"), options.get("name", "")
        ),
        "reds": lambda: reds_pairs(_path(options, "dataroot")),
        "hide": lambda: hide_pairs(_path(options, "dataroot")),
        "realblur": lambda: realblur_pairs(_path(options, "dataroot"), _path(options, "meta_info_file")),
        "folders": lambda: _match(_path(options, "dataroot_lq"), _path(options, "dataroot_gt"), "unknown"),
        "photographs": lambda: photographs(_path(options, "dataroot")),
        "packed": lambda: packed_pairs(_path(options, "dataroot"), options.get("blur_key")),
    }
    layout = options.get("layout", "gopro")
    if layout not in layouts:
        raise DatasetError(f"layout: expected one of {', '.join(layouts)}, got {layout!r}")
    return hold_out(layouts[layout](), options.get("only"), options.get("without"))


def hold_out(pairs: list[Pair], only: list[str] | None = None, without: list[str] | None = None) -> list[Pair]:
    """Return the pairs of the sequences `only` (None: of all) that aren't in `without`.

    Raises:
        DatasetError: if a sequence isn't there or nothing is left.
    """
    sequences = {pair.sequence for pair in pairs} - {""}
    for key, names in (("only", only), ("without", without)):
        for name in map(str, names or ()):
            if not sequences:
                raise DatasetError(f"{key}: expected names of sequences, but this data set has none; remove {key}")
            if name not in sequences:
                raise DatasetError(f"{key}: no sequence {name!r}{did_you_mean(name, sequences)}")
    left = sequences | {""} if only is None else set(map(str, only))
    left -= set(map(str, without or ()))
    kept = [pair for pair in pairs if pair.sequence in left]
    if not kept:
        raise DatasetError("only, without: expected a sequence to be left, got none; name fewer under without")
    return kept


def is_gopro(root: Path) -> bool:
    """Return whether folders in `root` are laid out as GOPRO's sequences are."""
    return any(
        (folder / "sharp").is_dir() or any(path.is_dir() for path in folder.glob("blur*"))
        for folder in subfolders(root)
    )


def is_reds(root: Path) -> bool:
    """Return whether `root` holds parts of REDS."""
    return any((root / part).is_dir() for part in REDS_PARTS)


def is_hide(root: Path) -> bool:
    """Return whether `root` is HIDE's train or test folder."""
    return root.name != "GT" and root.is_dir() and (root.parent / "GT").is_dir()


def list_images(folder: Path) -> dict[str, Path]:
    """Return the images in a folder and its sub-folders by their names without suffix, sorted; what is hidden isn't.

    Raises:
        DatasetError: if there are none, two have one name, or a folder can't be read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected images")
    found: dict[str, Path] = {}
    for path in sorted(_walk(folder)):
        if path.suffix.lower() not in SUFFIXES:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DatasetError(f"{path}: a second image named {name!r} beside {found[name].name}; rename one of them")
        found[name] = path
    if not found:
        raise DatasetError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files and folders in a folder and its sub-folders, but nothing that is hidden."""

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: this folder can't be read ({error.strerror})") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in folders + files if not name.startswith("."))


def _path(options: Mapping[str, Any], key: str) -> Path:
    if not options.get(key):
        what = "file" if key == "meta_info_file" else "folder"
        raise DatasetError(f"{key}: missing; the layout {options.get('layout', 'gopro')!r} needs this {what}")
    return Path(options[key]).expanduser()


def _folders(root: Path, what: str, fits: Callable[[Path], bool] = lambda _: True) -> list[Path]:
    """Return the folders in `root`, which must look as `fits` says; if it doesn't, say which folder near it does."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected {what}")
    folders = subfolders(root)
    if not fits(root) and (elsewhere := _elsewhere(root, fits)):
        raise DatasetError(f"{root}: expected {what}, found none{elsewhere}")
    if not folders:
        raise DatasetError(f"{root}: no folders in it; expected {what}")
    return folders


def _elsewhere(root: Path, fits: Callable[[Path], bool]) -> str:
    """Return "; set dataroot to ..." with the nearest folders that fit, up to two levels up or down."""
    root = root.absolute()
    try:
        below = subfolders(root)
        two_below = [folder for child in below for folder in subfolders(child)]
        for level in ([root.parent], below, [root.parent.parent], two_below):
            found = [str(folder) for folder in level if fits(folder)]
            if found:
                return f"; set dataroot to {' or '.join(found[:2])}"
    except DatasetError:  # a folder near it that can't be looked into
        pass
    return ""


def subfolders(root: Path) -> list[Path]:
    """Return the folders in `root` that aren't hidden, sorted.

    Raises:
        DatasetError: if it can't be read.
    """
    try:
        return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{root}: this folder can't be read ({error.strerror})") from error


def partners(blurry: Path, sharp: Path, kind: str, prefix: str = "") -> tuple[list[Pair], list[tuple[Path, Path]]]:
    """Return the pairs of two folders, and the images without partner, each with the folder where it is missing.

    Raises:
        DatasetError: if a folder isn't there or holds no images.
    """
    blurred, targets = list_images(blurry), list_images(sharp)
    alone = [(path, sharp) for name, path in blurred.items() if name not in targets]
    alone += [(path, blurry) for name, path in targets.items() if name not in blurred]
    join = f"{prefix}/" if prefix else ""
    return [Pair(join + name, blurred[name], targets[name], kind) for name in blurred if name in targets], alone


def _match(blurry: Path, sharp: Path, kind: str, prefix: str = "") -> list[Pair]:
    pairs, alone = partners(blurry, sharp, kind, prefix)
    if alone:
        path, elsewhere = alone[0]
        others = sum(folder == elsewhere for _, folder in alone) - 1
        more = f" (and {others} more)" if others else ""
        raise DatasetError(f"{path}: no partner of that name in {elsewhere}{more}; unzip again or remove it")
    return pairs
