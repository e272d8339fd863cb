"""NIQE: BasicSR's number where there is one, nan and a warning where its function would crash."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reblur_plugin import host
from reblur_plugin.metrics.niqe_metric import _nearest, _table, reblur_niqe

ORDER_OF_SUMS = 1e-7  # OpenCV may add 49 products in another order than SciPy
FLOAT32_LUMA = 1e-6  # BasicSR computes the luma in float32


class Messages(logging.Handler):
    """Keeps what BasicSR's logger is told; that one doesn't hand messages on once it has been set up."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.WARNING
        self.texts.append(record.getMessage())


@pytest.fixture
def messages() -> Iterator[list[str]]:
    logger, handler = logging.getLogger("basicsr"), Messages()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def photograph(shared: Path) -> NDArray[np.uint8]:
    """Return a photograph of 300x200 pixels, BGR."""
    return cv2.imread(str(shared / "data" / "kodak24_500" / "kodim01.png"))[:200, :300]


class TestNiqe:
    def test_a_photograph_gets_basicsrs_number_with_the_border_left_out(
        self, photograph: NDArray[np.uint8], messages: list[str]
    ) -> None:
        host.prepare()
        from basicsr.metrics.niqe import calculate_niqe

        assert reblur_niqe(photograph) == pytest.approx(float(calculate_niqe(photograph, 0)), rel=ORDER_OF_SUMS, abs=0)
        expected = float(calculate_niqe(photograph[3:-3, 3:-3], 0))
        assert reblur_niqe(photograph, crop_border=3) == pytest.approx(expected, rel=ORDER_OF_SUMS, abs=0)
        assert messages == []

    def test_whole_frames_get_basicsrs_number(self, shared: Path) -> None:
        host.prepare()
        from basicsr.metrics.niqe import calculate_niqe

        for path in sorted((shared / "data" / "GOPRO_Large" / "test").rglob("*.png")):
            frame = cv2.imread(str(path))
            assert reblur_niqe(frame) == pytest.approx(float(calculate_niqe(frame, 0)), rel=ORDER_OF_SUMS, abs=0), path

    def test_a_fit_looks_up_what_a_search_over_all_would_find(self, rng: np.random.Generator) -> None:
        rising = _table()[1]
        assert (np.diff(rising) > 0).all()  # what a bisection needs
        targets = [*rng.uniform(rising[0] - 0.1, rising[-1] + 0.1, 500), *rising[::700], math.nan, 0.0, 1.0]
        targets += [(rising[7] + rising[8]) / 2, np.float32(0.5)]
        assert [_nearest(rising, target) for target in targets] == [
            int(np.argmin((rising - target) ** 2)) for target in targets
        ]

    def test_basicsr_may_hand_the_sharp_image_over(self, photograph: NDArray[np.uint8]) -> None:
        assert reblur_niqe(photograph, np.zeros_like(photograph)) == reblur_niqe(photograph)

    def test_it_is_measured_on_the_luma_of_a_bgr_image(self, photograph: NDArray[np.uint8]) -> None:
        host.prepare()
        from basicsr.metrics.niqe import calculate_niqe

        # BT.601 on [0, 255], rounded as in the original
        blue, green, red = (photograph[..., channel].astype(np.float64) for channel in range(3))
        luma = (16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255).round()
        expected = float(calculate_niqe(luma, 0, input_order="HW"))
        assert reblur_niqe(photograph) == pytest.approx(expected, rel=FLOAT32_LUMA, abs=0)
        assert abs(reblur_niqe(photograph[..., ::-1]) - expected) > 1e-3

    def test_two_blocks_are_enough(self, photograph: NDArray[np.uint8], messages: list[str]) -> None:
        assert math.isfinite(reblur_niqe(photograph[:96, :192]))
        assert messages == []

    @pytest.mark.parametrize(("height", "width", "border"), [(96, 191, 0), (95, 300, 0), (191, 191, 0), (96, 194, 2)])
    def test_fewer_than_two_blocks_give_nan_and_a_warning(
        self, photograph: NDArray[np.uint8], messages: list[str], height: int, width: int, border: int
    ) -> None:
        assert math.isnan(reblur_niqe(photograph[:height, :width], crop_border=border))
        size = f"{width - 2 * border}x{height - 2 * border}"
        assert messages == [f"NIQE: expected at least two blocks of 96x96 pixels, got {size}; left out"]

    @pytest.mark.parametrize("level", [0, 77, 255])
    def test_a_flat_image_gives_nan_and_one_warning(self, messages: list[str], level: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # NumPy's own must not reach the user
            assert math.isnan(reblur_niqe(np.full((200, 210, 3), level, dtype=np.uint8)))
        assert messages == ["NIQE: the image of 210x200 pixels has no texture to measure; left out"]
