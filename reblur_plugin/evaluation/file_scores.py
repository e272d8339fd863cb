"""The scores of a picture's file against its sharp partner's: what `evaluate` asks of each process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from reblur_plugin.data.images import ImageError, decode_image, to_float
from reblur_plugin.data.pairs import size
from reblur_plugin.evaluation.pictures import Picture
from reblur_plugin.evaluation.values import Measured, Metrics, chosen, value
from reblur_plugin.evaluation.variants import fingerprint_of_pixels

_LOGGER = logging.getLogger("basicsr")


class FileScores(NamedTuple):
    """What is known of a file: its scores, the messages of the log, fingerprints of its and of the sharp pixels."""

    values: dict[str, float]
    messages: list[tuple[int, str]]
    pixels: dict[str, str]


def score_files(image: Path, reference: Path | None, metrics: Metrics, device: str) -> FileScores:
    """Return the scores of a picture's file; of one without reference those that need none.

    Raises:
        ReblurError: if a file can't be read, both differ in size, or a metric can't be computed.
    """
    found = picture_in(image)
    pixels, sharp = {"result": fingerprint_of_pixels(found)}, None
    if reference is not None:
        sharp = picture_in(reference)
        if found.shape != sharp.shape:
            raise ImageError(f"{image}: expected the size of {reference}, {size(sharp)}, got {size(found)}; left out")
        pixels["sharp"] = fingerprint_of_pixels(sharp)
    measured, place = Measured(found, sharp), torch.device(device)
    with log_kept() as messages:
        wanted = chosen(metrics, sharp is not None).items()
        return FileScores({name: value(measured, options, place) for name, options in wanted}, messages, pixels)


def picture_in(path: Path) -> Picture:
    """Return a file's picture in 8 bits; 16 bits are rounded.

    Raises:
        ImageError: if it can't be read.
    """
    stored: Any = decode_image(path)
    return stored if stored.dtype == np.uint8 else (to_float(stored) * 255).round().astype(np.uint8)


@contextmanager
def log_kept() -> Iterator[list[tuple[int, str]]]:
    """Yield a list that gets the levels and messages of BasicSR's log as they are logged within the block."""
    messages: list[tuple[int, str]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append((record.levelno, record.getMessage()))

    handler = Kept()
    _LOGGER.addHandler(handler)
    try:
        yield messages
    finally:
        _LOGGER.removeHandler(handler)
