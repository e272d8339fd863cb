"""Which photographs are to be deblurred and where their results go; found before anything slow is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reblur_plugin.data.images import SUFFIXES, ImageError
from reblur_plugin.data.listing import images_in

Existing = Literal["refuse", "overwrite", "skip"]


@dataclass(frozen=True)
class Job:
    """One photograph to read and where its result goes, and the picture of its stages if one is wanted."""

    source: Path
    target: Path
    comparison: Path | None = None


def find_jobs(
    inputs: Sequence[Path], out: Path, suffix: str = "", existing: Existing = "refuse", with_comparison: bool = False
) -> list[Job]:
    """Return what is to be done for files and folders (with their sub-folders, but `out`); nothing is read or written.

    Results keep name, sub-folder and format; `suffix` is put behind the name. Results that are `existing` can be
    refused, overwritten (never a source) or skipped.

    Raises:
        ImageError: if an input is missing, a folder holds no photographs, or two results have the same name.
    """
    found = [pair for given in inputs for pair in _photographs(given, out)]
    sources = {source.resolve() for source, _ in found}
    jobs: list[Job] = []
    taken: dict[Path, Path] = {}
    for source, relative in found:
        target = out / relative.with_name(f"{relative.stem}{suffix}{relative.suffix}")
        picture = target.with_name(f"{target.stem}_comparison.png") if with_comparison else None
        if target.exists() and existing == "skip":
            continue
        for path in filter(None, (target, picture)):
            if path in taken:
                raise ImageError(f"{source}: its result {path} is also that of {taken[path]}; rename one")
            if path.exists() and (existing != "overwrite" or path.resolve() in sources):
                raise ImageError(
                    f"{path}: is there already; give another -o, --skip-existing to go on with the rest, or "
                    "--overwrite if it isn't a source"
                )
            taken[path] = source
        jobs.append(Job(source, target, picture))
    return jobs


def _photographs(given: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    if given.is_file():
        yield given, Path(given.name)
        return
    if not given.is_dir():
        raise ImageError(f"{given}: no such file or folder")
    results = out.resolve()
    is_inside = given.resolve() in results.parents  # what an earlier run made isn't a source
    found = [path for path in images_in(given) if not (is_inside and results in path.resolve().parents)]
    if not found:
        raise ImageError(f"{given}: expected photographs ({', '.join(SUFFIXES)}), found none")
    yield from ((path, path.relative_to(given)) for path in found)
