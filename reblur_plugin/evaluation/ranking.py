"""Ranks anybody's results by the blur that M_R still finds in them: Table 1's and Figure 1's use (D37, D38)."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from tqdm import tqdm

from reblur_plugin.core.boundary import evaluated
from reblur_plugin.core.device import out_of_memory_says
from reblur_plugin.core.kernel import residual_kernel
from reblur_plugin.core.reblurability import reblurability_map
from reblur_plugin.data.images import SUFFIXES, ImageError, read_image, to_tensor, to_uint8, write_image
from reblur_plugin.data.listing import images_in
from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.pictures import REBLURRED_TOP, Picture, comparison, heat_map, with_kernel
from reblur_plugin.evaluation.scores import write_rows

_CENTRE = 384  # pixels on a side that are reblurred for a kernel: its window and M_R's reach around it


@dataclass(frozen=True)
class Result:
    """An image to be ranked: the folder (or file) it was given by, and its name within."""

    given: Path
    name: str
    path: Path


def find_results(inputs: Sequence[Path], out: Path | None) -> list[Result]:
    """Return the images of files and folders (with their sub-folders), each once.

    Raises:
        ImageError: if one is missing, a folder holds no images, folders have no names in common, or `out` is within a
            folder that is ranked.
    """
    found: dict[Path, Result] = {}
    for given in inputs:
        if out is not None and out.resolve().is_relative_to(given.resolve()):
            raise ImageError(
                f"{out}: lies in {given}, where the next ranking would take it for results; give another -o"
            )
        if given.is_file():
            found.setdefault(given.resolve(), Result(given.parent, given.name, given))
        elif given.is_dir():
            paths = images_in(given)
            if not paths:
                raise ImageError(f"{given}: expected images ({', '.join(SUFFIXES)}), found none")
            for path in paths:
                found.setdefault(path.resolve(), Result(given, path.relative_to(given).as_posix(), path))
        else:
            raise ImageError(f"{given}: no such file or folder")
    folders: dict[Path, set[str]] = {given: set() for given in inputs if given.is_dir()}
    for result in found.values():
        if result.given in folders:
            folders[result.given].add(_stem(result.name))
    if len(folders) > 1:
        common_names(folders)
    return list(found.values())


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def rank(
    results: Sequence[Result],
    reblur_net: nn.Module,
    out: Path | None,
    kernels: bool = False,
    blurry: Path | None = None,
    overwrite: bool = False,
) -> tuple[list[tuple[float, Result]], list[str]]:
    """Return reblurabilities in grey levels, most blur first, and a sentence for each image that failed.

    Args:
        results: the images.
        reblur_net: M_R.
        out: folder that gets a picture of each image and of where M_R changes it; None writes none.
        kernels: show Figure 1's kernel too, from the result to what M_R makes of it.
        blurry: show the kernel to the image of the result's name in this folder instead.
        overwrite: replace pictures that are there already, but none that this run has written.
    """
    written: set[Path] = set()
    ranked: list[tuple[float, Result]] = []
    failures: list[str] = []
    common = _common([result.given.resolve() for result in results]) if out else Path()
    for result in tqdm(results, desc="reblurability", unit="image", leave=False, disable=None):
        try:
            with out_of_memory_says("give a smaller image"):
                image = to_tensor(read_image(result.path))[None].to(next(reblur_net.parameters()).device)
                change = reblurability_map(reblur_net, image)
            ranked.append((change.mean().item() * 255, result))
            if out is not None:
                folder = out / result.given.resolve().relative_to(common)
                target = (folder / result.name).with_suffix("")
                path = target.with_name(f"{target.name}_reblurability.png")
                if path in written or (path.exists() and not overwrite):
                    raise ImageError(
                        f"{path}: is there already; give another -o or, if it isn't this run's, --overwrite"
                    )
                kernel = _kernel(result, image, reblur_net, blurry) if kernels or blurry else None
                write_image(path, _picture(image, change, kernel))
                written.add(path)
        except ReblurError as error:
            failures.append(str(error) if str(result.path) in str(error) else f"{result.path}: {error}")
    return sorted(ranked, key=lambda item: -item[0]), failures


def _common(folders: list[Path]) -> Path:
    """Return the folder that holds all `folders`, by whose names in it the pictures are told apart.

    Raises:
        ImageError: if they are on several drives of Windows.
    """
    try:
        return Path(os.path.commonpath(folders))
    except ValueError as error:
        drives = " and ".join(sorted({folder.drive for folder in folders}))
        raise ImageError(f"RESULT: expected folders on one drive, got {drives}; copy them together") from error


def _picture(image: Tensor, change: Tensor, kernel: Tensor | None) -> Picture:
    pixels = to_uint8(image)
    panels = {
        "image": pixels,
        f"changed by M_R: 0 to {REBLURRED_TOP} levels": heat_map(change[0, 0].cpu().numpy() * 255, REBLURRED_TOP),
    }
    if kernel is not None:
        panels["image"] = with_kernel(pixels, kernel.cpu().numpy())
    return comparison(panels)


def _kernel(result: Result, image: Tensor, reblur_net: nn.Module, blurry: Path | None) -> Tensor:
    """Return the kernel from the result to its blurry input, or to M_R(L), around the centre."""
    if blurry is None:
        top, left = (max(0, (extent - _CENTRE) // 2) for extent in image.shape[-2:])
        centre = image[..., top : top + _CENTRE, left : left + _CENTRE]
        return residual_kernel(centre, evaluated(reblur_net, centre, "reblur_net"))
    stem = (blurry / result.name).with_suffix("")
    partner = next((path for suffix in SUFFIXES if (path := stem.with_name(stem.name + suffix)).is_file()), None)
    if partner is None:
        raise ImageError(f"{result.path}: no blurry image {stem.name} in {stem.parent}; give their folder as --blurry")
    return residual_kernel(image, to_tensor(read_image(partner))[None].to(image.device))


def ranking_table(ranked: Sequence[tuple[float, Result]]) -> str:
    """Return the ranking as text and, of several folders, the means over the images that all of them have."""
    lines = ["rank  levels  image"]
    lines += [f"{number:4d}  {value:6.3f}  {result.path}" for number, (value, result) in enumerate(ranked, 1)]
    folders: dict[Path, dict[str, float]] = {}
    for value, result in ranked:
        folders.setdefault(result.given, {})[_stem(result.name)] = value
    shared = set.intersection(*(set(values) for values in folders.values())) if len(folders) > 1 else set()
    if shared:
        means = {folder: [values[name] for name in shared] for folder, values in folders.items()}
        rows = sorted((math.fsum(values) / len(values), str(folder)) for folder, values in means.items())
        lines += ["", f"mean over the {len(shared)} images that all {len(folders)} folders have"]
        lines += [f"{mean:6.3f}  {folder}" for mean, folder in rows]
    return "\n".join(lines)


def common_names(folders: Mapping[Path, Collection[str]]) -> set[str]:
    """Return the names that all folders have.

    Raises:
        ImageError: if there is none; the message shows two names that don't meet.
    """
    shared = set.intersection(*(set(names) for names in folders.values()))
    if not shared:
        found = " and ".join(f"{min(names, default='none')} in {folder}" for folder, names in list(folders.items())[:2])
        raise ImageError(
            f"RESULT: expected folders that have images of the same names, to compare them, got {found}; "
            "rename them, or rank each folder by itself"
        )
    return shared


def write_ranking(ranked: Sequence[tuple[float, Result]], path: Path) -> None:
    """Write the ranking as a CSV file."""
    rows = [[number, item.given, item.name, value] for number, (value, item) in enumerate(ranked, 1)]
    write_rows(path, ["rank", "folder", "image", "reblurability"], rows, remedy="")
