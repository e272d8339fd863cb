"""Which result belongs to which sharp image, whatever other repositories call their files; each answer says how.

Names are compared by their words and numbers: `GOPR0384_11_00-000001_out.png` has the words of
`GOPR0384_11_00/sharp/000001.png` and `out` besides. What is besides and the same for all images is a stage (`out`);
several of them in one folder are several stages.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reblur_plugin.data.images import SUFFIXES, ImageError
from reblur_plugin.data.listing import images_in, in_order
from reblur_plugin.evaluation.scores import RESULT

# Folders of one kind of images; of several in one data set the first here is taken (D11: blur_gamma)
SHARP = ("sharp", "gt", "target", "targets", "groundtruth", "ground_truth", "hr", "clean", "reference")
BLURRY = ("blur_gamma", "blur", "blurry", "blurred", "lq", "input", "inputs")
_KINDS = {*SHARP, *BLURRY}
# Pictures that our own commands write beside the results
_BESIDE = re.compile(r"_(comparison|reblurability)$")
_OF_PAGE = re.compile(r"[0-9a-f]{20}")  # what `report` calls the pictures of its page
_SHOWN = 3

Words = tuple[str | int, ...]
Group = dict[str, list[Path]]  # files by the name of their sharp image


@dataclass(frozen=True)
class Matched:
    """The images of a folder of results.

    Attributes:
        folder: as given.
        stages: files by stage (empty name: there is only one), then by the sharp image's name.
        how: a sentence on how names were matched.
        problems: a sentence for each thing that was left out.
    """

    folder: Path
    stages: dict[str, dict[str, Path]]
    how: str
    problems: list[str] = field(default_factory=list)


def named_images(folder: Path, kinds: Sequence[str]) -> tuple[dict[str, Path], str]:
    """Return a folder's images by name, without suffix and without folders such as "sharp", and their folders' kind.

    Args:
        folder: of sharp or of blurry images, with sub-folders or without; also a data set's root, of which the
            sub-folders of that kind are taken.
        kinds: names of such sub-folders: `SHARP` or `BLURRY`.

    Raises:
        ImageError: if there is no such folder, it holds no images, or two have one name.
    """
    paths = _images(folder)
    there = {path: _kinds_of(path.relative_to(folder)) for path in paths}
    kind = next((kind for kind in kinds if any(kind in found for found in there.values())), "")
    if not kind and folder.name.lower() in kinds:
        kind = folder.name.lower()
        there = {path: {kind} for path in paths}
    found: dict[str, Path] = {}
    for path in paths:
        name = _name(path.relative_to(folder))
        if kind and kind not in there[path]:
            continue
        if name in found:
            raise ImageError(
                f"{path}: a second image named {name!r} beside {found[name]}; give the folder of one kind of images"
            )
        found[name] = path
    return found, kind


def match(folder: Path, sharp: dict[str, Path] | None, by_order: bool = False, without: Path | None = None) -> Matched:
    """Return the images of a folder of results by the names of their sharp images.

    Args:
        folder: somebody's results, with sub-folders or without.
        sharp: sharp images by name; None: results are named by themselves.
        by_order: the first result belongs to the first sharp image, whatever their names.

    Raises:
        ImageError: if the folder holds no images, or none that belongs to a sharp one.
    """
    paths = [path for path in _images(folder) if not _BESIDE.search(path.stem)]
    if not paths:
        raise ImageError(f"{folder}: expected results, found only pictures that show comparisons")
    if sharp is None:
        return Matched(folder, {"": {_name(path.relative_to(folder)): path for path in paths}}, "names are its own")
    return _by_order(folder, paths, sharp) if by_order else _by_words(folder, paths, sharp)


def _images(folder: Path) -> list[Path]:
    if not os.path.isdir(folder):
        what = "a file, and no folder" if os.path.isfile(folder) else "no such folder"
        raise ImageError(f"{folder}: {what}; expected images")
    paths = [path for path in images_in(folder) if not _is_of_report(path)]
    if not paths:
        raise ImageError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none")
    return paths


def _is_of_report(path: Path) -> bool:
    """Return whether a report has written this picture, for its page or as a figure."""
    if path.parent.name == "pictures":
        return _OF_PAGE.fullmatch(path.stem) is not None
    return path.parent.name == "figures" and path.with_suffix(".pdf").is_file()


def _by_order(folder: Path, paths: Sequence[Path], sharp: dict[str, Path]) -> Matched:
    if len(paths) != len(sharp):
        raise ImageError(
            f"{folder}: expected {len(sharp)} images, one for each sharp one in their order, got {len(paths)}; "
            "leave --match order out, to match them by names"
        )
    names = sorted(sharp, key=in_order)
    return Matched(folder, {"": dict(zip(names, paths, strict=True))}, "by their order, whatever their names")


def _by_words(folder: Path, paths: Sequence[Path], sharp: dict[str, Path]) -> Matched:
    names = _Names(sharp)
    placed = _placed({path: names.places(path.relative_to(folder)) for path in paths})
    if not placed:
        raise ImageError(
            f"{folder}: expected results named as the sharp images, such as {next(iter(sharp))}, got "
            f"{paths[0].relative_to(folder)}; give the --gt of their sequence, rename them, or give --match order"
        )
    groups: dict[tuple[Words, Words], Group] = defaultdict(dict)
    for path, place in placed.items():
        groups[place.before, place.after].setdefault(place.name, []).append(path)
    strangers = [path for path in paths if path not in placed]
    problems = [f"{folder}: {_some(strangers)}: no sharp image has this name; left out"] if strangers else []
    stages: dict[str, dict[str, Path]] = {}
    for stage, group in _stages(groups).items():
        if twice := [found[1] for found in group.values() if len(found) > 1]:
            problems.append(f"{folder}: {_some(twice)}: a second result of one image; left out")
        stages[stage] = {name: found[0] for name, found in group.items()}
    for stage, found in stages.items():
        if missing := [name for name in sharp if name not in found]:
            where = f"{folder} ({stage})" if stage else str(folder)
            problems.append(f"{where}: no result of {_some(missing)}; scored without")
    if len(stages) > max(2, len(placed) / 2) and len({place.name for place in placed.values()}) > 1:
        first, second = list(placed)[:2]
        raise ImageError(
            f"{folder}: expected names of which one part tells the image, got {first.name} and {second.name}, in which "
            "several could; rename them, or give --match order"
        )
    short = any(place.is_short for place in placed.values())
    return Matched(folder, stages, _how(folder, stages, sharp, short), problems)


def _placed(candidates: Mapping[Path, Sequence[_Place]]) -> dict[Path, _Place]:
    """Return one place for each result that has any.

    A name may lie within a result's at several places: in 0001_v2 there are 1 and 2. The words before and after it are
    those of a whole folder, so the places whose words around them fit the most images are taken first.
    """
    found: dict[Path, _Place] = {}
    patterns: dict[tuple[bool, Words, Words], dict[Path, _Place]] = defaultdict(dict)
    for path, places in candidates.items():
        for place in places:
            patterns[place.is_short, place.before, place.after].setdefault(path, place)

    def worth(places: Mapping[Path, _Place]) -> tuple[bool, int, bool, int, bool]:
        """Whole names go before file names; then how many images, whether as written, how many words, where."""
        any_of = next(iter(places.values()))
        images = len({place.name for place in places.values()})
        return not any_of.is_short, images, any_of.as_written, any_of.length, any_of.starts_file

    for fitting in sorted(patterns.values(), key=worth, reverse=True):
        for path, place in fitting.items():
            found.setdefault(path, place)
    return {path: found[path] for path in candidates if path in found}


def _how(folder: Path, stages: dict[str, dict[str, Path]], sharp: dict[str, Path], short: bool) -> str:
    stage, found = max(stages.items(), key=lambda item: len(item[1]))
    name, path = next(iter(found.items()))
    rule = "by the words of file names alone" if short else "by the words of their names"
    besides = (
        f", stages {', '.join(one or RESULT for one in stages)}"
        if len(stages) > 1
        else (f", all but {stage!r}" if stage else "")
    )
    return f"{len(found)} of {len(sharp)} {rule}{besides} ({path.relative_to(folder).as_posix()} is {name})"


@dataclass(frozen=True)
class _Place:
    """Where a sharp image's name is within a result's.

    Attributes:
        name: of the sharp image.
        before, after: the words around it.
        length: its words.
        is_short: only its last part is there, which no other sharp image has.
        as_written: its last part is there letter by letter, zeros before numbers too.
        starts_file: its words begin where those of the result's file name do, or before, and reach into them.
    """

    name: str
    before: Words
    after: Words
    length: int
    is_short: bool
    as_written: bool
    starts_file: bool


class _Names:
    """The sharp images' names, to be found within names of results."""

    def __init__(self, sharp: Iterable[str]) -> None:
        sharp = list(sharp)
        self._whole = {_words(name): name for name in sharp}
        if len(self._whole) < len(sharp):
            alike = next(name for name in sharp if self._whole[_words(name)] != name)
            raise ImageError(
                f"--gt: expected names that differ in words or numbers, got {alike} and {self._whole[_words(alike)]}; "
                "rename one of them"
            )
        files = Counter(_words(Path(name).name) for name in sharp)
        unique = {_words(Path(name).name): name for name in sharp if files[_words(Path(name).name)] == 1}
        self._files = {words: name for words, name in unique.items() if words not in self._whole}
        self._longest = max(map(len, self._whole), default=0)

    def places(self, relative: Path) -> list[_Place]:
        """Return all places of sharp images' names within a result's."""
        name = _name(relative)
        words, folders = _words(name), len(_words(str(Path(name).parent)))
        found = []
        for length in range(1, min(self._longest, len(words)) + 1):
            for start in range(len(words) - length + 1):
                within = words[start : start + length]
                for known in (self._whole, self._files):
                    if within in known:
                        around = words[:start], words[start + length :]
                        is_short = known is self._files
                        as_written = Path(known[within]).name.lower() in relative.stem.lower()
                        starts_file = start <= folders < start + length
                        found.append(_Place(known[within], *around, length, is_short, as_written, starts_file))
        return found


def _stages(groups: dict[tuple[Words, Words], Group]) -> dict[str, Group]:
    """Return groups of results as stages, named by the words after an image's name.

    Groups whose words before it differ are parts of one stage (sequences, say) if no two have an image in common; else
    they are stages of their own, named by these words too (methods).
    """
    by_end: dict[Words, dict[Words, Group]] = defaultdict(dict)
    for (before, after), group in groups.items():
        by_end[after][before] = group
    stages: dict[str, Group] = {}
    for after, parts in by_end.items():
        are_methods = sum(map(len, parts.values())) > len(set().union(*parts.values()))
        common = _common_start(list(parts)) if are_methods else 0
        for before, group in parts.items():
            stage = stages.setdefault(_text((*before[common:], *after) if are_methods else after), {})
            for name, paths in group.items():
                stage.setdefault(name, []).extend(paths)
    return stages


def _common_start(words: Sequence[Words]) -> int:
    shortest = min(map(len, words))
    return next((place for place in range(shortest) if len({each[place] for each in words}) > 1), shortest)


def _words(name: str) -> Words:
    parts = re.findall(r"[0-9]+|[^\W_0-9]+", name)
    return tuple(int(part) if part[0] in "0123456789" else part.lower() for part in parts)


def _text(words: Words) -> str:
    return "_".join(map(str, words))


def _name(relative: Path) -> str:
    """Return a path without suffix and without folders that name a kind of images."""
    folders = [part for part in relative.parent.parts if part.lower() not in _KINDS]
    return "/".join([*folders, relative.stem])


def _kinds_of(relative: Path) -> set[str]:
    return {part.lower() for part in relative.parent.parts}


def _some(names: Sequence[str | Path]) -> str:
    shown = ", ".join(name.name if isinstance(name, Path) else name for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
