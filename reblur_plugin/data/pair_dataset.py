"""BasicSR data set of blurry/sharp pairs. BasicSR's words: `lq` = B, `gt` = S, `gt_size` = training patch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from reblur_plugin.data.augment import AUGMENTATIONS, random_crop
from reblur_plugin.data.images import ImageError, read_image, to_float, to_tensor
from reblur_plugin.data.layouts import list_pairs
from reblur_plugin.data.pairs import DatasetError, fingerprint, size


class Draw(NamedTuple):
    """Which image to take, and the number of this draw since training began, which seeds its crop and augmentation."""

    image: int
    number: int


class DeblurPairDataset(Dataset[dict[str, Any]]):
    """Pairs read from a published layout, as float tensors `(3, H, W)`, RGB in [0, 1].

    Items: `lq`, `gt` (absent for photographs), `lq_path`, `gt_path`, `name` (unique, keeps the sequence).
    In the phase "train" items are random `gt_size` x `gt_size` patches, augmented; else whole images.

    Args:
        opt: the option block, its keys as in docs/options.md, with BasicSR's `name` and `phase`.

    Attributes:
        pairs: all of them, in the order of their names.
        blur_kind: "blur_gamma", "blur", "reds", ...; see `list_pairs`.

    Raises:
        DatasetError: if the files aren't what the layout says or a key is wrong.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.training = opt.get("phase") == "train"
        self.pairs = list_pairs(opt)
        self.blur_kind = self.pairs[0].kind
        self._fingerprint: str | None = None
        self.gt_size: Any = opt.get("gt_size")
        self.seed = opt.get("seed", 0)
        augment = opt.get("augment", "nah" if self.training else "none")
        if augment not in AUGMENTATIONS:
            raise DatasetError(f"augment: expected one of {', '.join(AUGMENTATIONS)}, got {augment!r}")
        self.augment = AUGMENTATIONS[augment]
        if self.training and (not isinstance(self.gt_size, int) or self.gt_size < 1):
            raise DatasetError(f"gt_size: expected the side of a training patch such as 256, got {self.gt_size!r}")
        if self.training and self.pairs[0].sharp is None:
            raise DatasetError("layout: training needs sharp images; photographs have none")
        self._cache: dict[int, tuple[Any, Any]] | None = {} if opt.get("cache") else None
        logging.getLogger("basicsr").info("%s: %s", opt.get("name", "data"), self.describe())

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: int | Draw) -> dict[str, Any]:
        """Return an item. A plain index takes its randomness from torch, which differs by worker and epoch.

        Raises:
            ImageError: if a file can't be read, the partners differ in size or a patch doesn't fit.
        """
        index = draw.image if isinstance(draw, Draw) else draw
        pair = self.pairs[index]
        item: dict[str, Any] = {"name": pair.name, "lq_path": str(pair.blurry)}
        if pair.sharp is None:
            return item | {"lq": to_tensor(read_image(pair.blurry))}
        stored = self._read(index)
        if self.training:
            rng = self._rng(draw)
            blurry, sharp = self.augment(random_crop(stored, self.gt_size, rng), rng)
        else:
            blurry, sharp = stored[0][:], stored[1][:]
        tensors = {"lq": to_tensor(to_float(blurry)), "gt": to_tensor(to_float(sharp))}
        return item | tensors | {"gt_path": str(pair.sharp)}

    def describe(self) -> str:
        """Return what was found, for the log: pairs, sequences, layout, kind of blur, fingerprint."""
        sequences = len({pair.sequence for pair in self.pairs} - {""})
        parts = [f"{len(self.pairs)} pairs" if self.pairs[0].sharp else f"{len(self.pairs)} photographs"]
        parts += [f"{sequences} sequence{'s' if sequences > 1 else ''}"] if sequences else []
        parts += [f"layout {self.opt.get('layout', 'gopro')}", f"blur kind {self.blur_kind}"]
        return ", ".join([*parts, f"fingerprint {self.fingerprint()}"])

    def fingerprint(self) -> str:
        """Return a hash over the names and sizes of all files: equal if two runs saw the same data."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.pairs)
        return self._fingerprint

    def _rng(self, draw: int | Draw) -> np.random.Generator:
        if isinstance(draw, Draw):
            return np.random.default_rng((self.seed, draw.number))
        return np.random.default_rng(int(torch.randint(2**62, (1,))))

    def _read(self, index: int) -> tuple[Any, Any]:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        images = self.pairs[index].images()
        if self.training and min(images[0].shape[:2]) < self.gt_size:
            found = f"{self.pairs[index].blurry}: {size(images[0])}"
            raise ImageError(f"{found} is smaller than gt_size {self.gt_size}; lower gt_size")
        if self._cache is not None:
            self._cache[index] = images
        return images


class DrawSampler(Sampler[Draw]):
    """Endless stream of draws for training: a new order each time all images have been seen, all fixed by the seed.

    Draw `number` depends on nothing but the seed, so that a resumed run sees what an unbroken one would have.

    Args:
        size: number of images.
        seed: `manual_seed`.
        start: number of the first draw, over all processes together.
        rank, world_size: this process takes draws start + rank, start + rank + world_size, ...
    """

    def __init__(self, size: int, seed: int, start: int = 0, rank: int = 0, world_size: int = 1) -> None:
        self.size, self.seed = size, seed
        self.start, self.stride = start + rank, world_size

    def __iter__(self) -> Iterator[Draw]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        number = self.start
        while True:
            if number // self.size != epoch:
                epoch = number // self.size
                order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
            yield Draw(int(order[number % self.size]), number)
            number += self.stride
