"""The command `data`: pairs and batches a second beside BasicSR's PairedImageDataset."""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from benchmarks import measure
from benchmarks.report import BenchError, Case, Results, Row
from reblur_plugin import registration
from reblur_plugin.data.doctor import find_blocks
from reblur_plugin.data.images import write_image
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.packed import pack
from reblur_plugin.data.pair_dataset import DeblurPairDataset, Draw, DrawSampler
from reblur_plugin.data.pairs import Pair
from reblur_plugin.host import registry

registration.register()
PairedImageDataset = registry.DATASET_REGISTRY.get("PairedImageDataset")

_BATCH, _WORKERS = 16, 2
_PUBLISHED = {"GOPRO training": 2103, "GOPRO test": 1111, "REDS training": 24000, "REDS validation": 3000}
_BASICSR_PNG, _BASICSR_LMDB, _PNG, _PACKED = "BasicSR, PNG", "BasicSR, lmdb", "ours, PNG", "ours, packed"
_BLOCK = {"phase": "train", "scale": 1, "name": "bench"}


def run(arguments: argparse.Namespace) -> Results:
    """Measure reading on one core, and augmented batches by two workers.

    Reading is measured in processor time, which other work on the machine disturbs less.
    """
    torch.set_num_threads(arguments.threads or 1)
    cv2.setNumThreads(1)
    device = torch.device("cpu")
    size = 32 if arguments.quick else 256
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        block = _block(arguments.data, folder, arguments.quick)
        pairs = list_pairs(block)
        pack(pairs, folder / "pack", workers=1)
        _link(pairs, folder)
        cases = [
            _single("a pair alone", _datasets(block, folder, size, "none"), arguments),
            _batches(_datasets(block, folder, size, "nah"), arguments),
        ]
        notes = ["ours augments batches as the author does (nah), BasicSR by flips alone"]
        notes += _sizes(pairs, folder / "pack")
    return Results("training data", measure.machine(device), cases, notes)


def _block(root: Path | None, folder: Path, quick: bool) -> dict[str, str]:
    """Return the keys of the data set to read: the one in `root`, or synthetic pairs."""
    if root is None:
        _synthetic(folder / "data", (40, 60) if quick else (720, 1280))
    blocks = [
        block for block in find_blocks(root or folder / "data") if block["layout"] not in ("photographs", "packed")
    ]
    if not blocks:
        raise BenchError(f"--data {root}: expected pairs of image files, found none; give a data set's folder")
    return blocks[0]


def _synthetic(root: Path, shape: tuple[int, int], pairs: int = 8) -> None:
    """Write pairs of noise, smoothed until PNG files are as large as photographs'."""
    for number in range(pairs):
        grain = np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)
        for kind, sigma in (("sharp", 2), ("blur_gamma", 4)):
            write_image(root / "noise" / kind / f"{number:06d}.png", cv2.GaussianBlur(grain, (0, 0), sigma))


def _link(pairs: list[Pair], folder: Path) -> None:
    """Lay the image files out as BasicSR wants them: two flat folders, and two lmdbs of the files as they are."""
    from basicsr.utils import lmdb_util  # here, after `register` has opened BasicSR

    for kind in ("lq", "gt"):
        (folder / kind).mkdir()
        names = [f"{number:06d}" for number in range(len(pairs))]
        for name, pair in zip(names, pairs, strict=True):
            source = pair.blurry if kind == "lq" else pair.sharp
            (folder / kind / f"{name}.png").symlink_to(Path(source or "").absolute())
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            paths = [f"{name}.png" for name in names]
            lmdb_util.make_lmdb_from_imgs(str(folder / kind), str(folder / f"{kind}.lmdb"), paths, names)


def _theirs(folder: Path, size: int, backend: str, flips: bool) -> Any:
    ending = ".lmdb" if backend == "lmdb" else ""
    roots = {f"dataroot_{kind}": str(folder / f"{kind}{ending}") for kind in ("lq", "gt")}
    block = {**_BLOCK, **roots, "io_backend": {"type": backend}, "gt_size": size}
    return PairedImageDataset({**block, "use_hflip": flips, "use_rot": flips})


def _ours(block: dict[str, str], folder: Path, size: int, augment: str, packed: bool) -> DeblurPairDataset:
    place = {"layout": "packed", "dataroot": str(folder / "pack")} if packed else block
    return DeblurPairDataset({**_BLOCK, **place, "gt_size": size, "augment": augment})


def _datasets(block: dict[str, str], folder: Path, size: int, augment: str) -> dict[str, Any]:
    return {
        _BASICSR_PNG: _theirs(folder, size, "disk", augment != "none"),
        _BASICSR_LMDB: _theirs(folder, size, "lmdb", augment != "none"),
        _PNG: _ours(block, folder, size, augment, packed=False),
        _PACKED: _ours(block, folder, size, augment, packed=True),
    }


def _single(name: str, datasets: dict[str, Any], arguments: argparse.Namespace) -> Case:
    """Time items one after another in this process."""
    few = 2 if arguments.quick else 8
    counts = {form: few * (16 if form == _PACKED else 1) for form in datasets}
    numbers = itertools.count()

    def reader(form: str) -> Callable[[], object]:
        dataset = datasets[form]

        def read() -> None:
            for _ in range(counts[form]):
                number = next(numbers)
                image = number * 7 % len(dataset)
                dataset[Draw(image, number) if isinstance(dataset, DeblurPairDataset) else image]

        return read

    return _case(name, {form: reader(form) for form in datasets}, counts, "pairs/s", arguments, _processors)


def _batches(datasets: dict[str, Any], arguments: argparse.Namespace) -> Case:
    """Time batches of a loader, the start of its workers included: by the clock, and in processor time of all."""
    few = 2 if arguments.quick else 3
    counts = {form: few * (10 if form == _PACKED and not arguments.quick else 1) for form in datasets}
    used: dict[str, list[float]] = {form: [] for form in datasets}

    def loader(form: str) -> Callable[[], object]:
        def load() -> None:
            start = _processors()
            _load(datasets[form], counts[form])
            used[form].append((_processors() - start) / counts[form])

        return load

    forms = {form: loader(form) for form in datasets}
    case = _case("batches", forms, counts, "batches/s", arguments, time.perf_counter)
    for row in case.rows:
        row.values["processor seconds"] = statistics.median(used[row.name])
    return case


def _load(dataset: Any, count: int) -> None:
    """Load batches by workers that begin and end here."""
    draws: Any = DrawSampler(len(dataset), 0)
    if not isinstance(dataset, DeblurPairDataset):
        draws = [draw.image for draw in itertools.islice(draws, _BATCH * (count + _WORKERS))]
    batches = iter(DataLoader(dataset, _BATCH, sampler=draws, num_workers=_WORKERS, prefetch_factor=1))
    for _ in itertools.islice(batches, count):
        pass


def _processors() -> float:
    """Return the processor time of this process and of those that it has started and seen end."""
    try:
        import resource  # here, since Windows has none
    except ImportError as error:
        raise BenchError("data: expected a system that counts the time of ended processes, got Windows") from error
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _case(
    name: str,
    forms: dict[str, Callable[[], object]],
    counts: dict[str, int],
    unit: str,
    arguments: argparse.Namespace,
    clock: Callable[[], float],
) -> Case:
    seconds = measure.interleaved(forms, arguments.repeats, torch.device("cpu"), clock=clock)
    rows = []
    for form, times in seconds.items():
        each = [time / counts[form] for time in times]
        rates = {unit: 1 / statistics.median(each), f"{unit} at best": 1 / min(each)}
        rows.append(Row(form, each, values=rates))
    settings: dict[str, Any] = {"workers": _WORKERS, "batch": _BATCH} if unit == "batches/s" else {"workers": 0}
    settings["seconds"] = "of processors" if clock is _processors else "of the clock"
    return Case(name, _BASICSR_PNG, rows, settings)


def _sizes(pairs: list[Pair], out: Path) -> list[str]:
    """Return what the published data sets take, by the pairs at hand: files, pack, the pack's list in memory."""
    files = sum(file[1] for pair in pairs for file in pair.files() if file) / len(pairs)
    packed = sum(path.stat().st_size for path in out.rglob("*.npy")) / len(pairs)
    tracemalloc.start()
    kept = list_pairs({"layout": "packed", "dataroot": str(out)})
    listed = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    lines = [
        f"a pair: {files / 1e6:.2f} MB as PNG, {packed / 1e6:.2f} MB packed, {listed / 1e3:.1f} kB listed in memory"
    ]
    return lines + [
        f"{name}, {count} pairs: {count * files / 1e9:.1f} GB as PNG, {count * packed / 1e9:.1f} GB packed or cached, "
        f"{count * listed / 1e6:.0f} MB listed in each process"
        for name, count in _PUBLISHED.items()
    ]
