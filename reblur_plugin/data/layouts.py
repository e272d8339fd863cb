"""Where the published data sets keep their blurry and sharp images, as unzipped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reblur_plugin.data.listing import list_images, read_lines, subfolders
from reblur_plugin.data.packed import packed_pairs
from reblur_plugin.data.pairs import DatasetError, Pair
from reblur_plugin.data.recognition import advice, is_gopro, is_hide, is_reds
from reblur_plugin.errors import did_you_mean
from reblur_plugin.files import at_home
from reblur_plugin.names import leads_out


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
    pairs, problems = hide_partners(root)
    _refuse(problems)
    return pairs


def hide_partners(root: Path) -> tuple[list[Pair], list[str]]:
    """Return the pairs that are whole, and a sentence for each image without its partner."""
    what = "HIDE_dataset's train or test, with GT beside it"
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected {what}")
    if not is_hide(root):
        near = root.parent if root.name == "GT" else root
        raise DatasetError(f"{root}: expected {what}, found none{_elsewhere(near, is_hide)}")
    sharp = list_images(root.parent / "GT")
    images = list_images(root)
    pairs = [Pair(name, path, sharp[path.stem], "hide") for name, path in images.items() if path.stem in sharp]
    alone = [path for path in images.values() if path.stem not in sharp]
    return pairs, [alone_in(path, root.parent / "GT") for path in alone]


def realblur_pairs(root: Path, lines: Path) -> list[Pair]:
    """Return the pairs that a list of RealBlur names, such as RealBlur_J_train_list.txt in `root`.

    A line holds the sharp and the blurry image: FOLDER/scene183/gt/gt_7.png FOLDER/scene183/blur/blur_7.png.
    """
    pairs, problems = realblur_partners(root, lines)
    _refuse(problems)
    return pairs


def realblur_partners(root: Path, lines: Path) -> tuple[list[Pair], list[str]]:
    """Return the pairs that are whole, and a sentence for each line that can't be followed."""
    path = root / lines
    try:
        text = read_lines(path)
    except OSError as error:
        known = ", ".join(sorted(found.name for found in root.glob("*_list.txt"))) or "none"
        raise DatasetError(f"{path}: expected a list of pairs ({error.strerror}); lists here: {known}") from error
    pairs: dict[str, Pair] = {}
    problems = []
    for number, line in enumerate(text, 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or any(map(leads_out, words)):
            problems.append(f"{path}, line {number}: expected a sharp and a blurry image, got {line.strip()!r}")
            continue
        sharp, blurry = (root / word for word in words)
        missing = [image for image in (blurry, sharp) if not image.is_file()]
        problems += [
            f"{image}: no such file, but {path.name} names it in line {number}; unzip it again" for image in missing
        ]
        parts = Path(words[1]).with_suffix("").parts
        name = "/".join(parts[1:] or parts)
        if name in pairs:
            problems.append(f"{path}, line {number}: {words[1]} is named twice; remove one of the lines")
        elif not missing:
            pairs[name] = Pair(name, blurry, sharp, "realblur")
    if not pairs and not problems:
        raise DatasetError(f"{path}: expected a list of pairs, found none; download it again")
    return [pairs[name] for name in sorted(pairs)], problems


def _refuse(problems: list[str]) -> None:
    """Refuse data with problems; the first is told, and how many there are."""
    if problems:
        more = f" (and {len(problems) - 1} more problems; python -m reblur_plugin.data check lists them)"
        raise DatasetError(problems[0] + (more if len(problems) > 1 else ""))


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


def _path(options: Mapping[str, Any], key: str) -> Path:
    if not options.get(key):
        what = "file" if key == "meta_info_file" else "folder"
        raise DatasetError(f"{key}: missing; the layout {options.get('layout', 'gopro')!r} needs this {what}")
    return at_home(options[key])


def _folders(root: Path, what: str, fits: Callable[[Path], bool] = lambda _: True) -> list[Path]:
    """Return the folders in `root`, which must look as `fits` says; if it doesn't, say which folder near it does."""
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected {what}")
    folders = subfolders(root)
    if not fits(root) and (elsewhere := _elsewhere(root, fits) or advice(root)):
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
        raise DatasetError(alone_in(path, elsewhere, others))
    return pairs


def alone_in(path: Path, elsewhere: Path, others: int = 0) -> str:
    """Return the sentence on an image whose partner is missing in the folder `elsewhere`, as those of `others` are."""
    more = f" (and {others} more)" if others else ""
    return f"{path}: no partner of that name in {elsewhere}{more}; unzip again or remove it"
