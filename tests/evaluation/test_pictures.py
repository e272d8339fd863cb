"""The comparison picture: 480 pixels a column; a title of 28, the whole image, then a fourfold zoom on the detail."""

from __future__ import annotations

import numpy as np
import pytest

from reblur_plugin.evaluation.pictures import Picture, comparison, heat_map, with_kernel

PANEL, TITLE = 480, 28
FRAME = (255, 210, 0)


def flat(level: int, height: int = 64, width: int = 96) -> Picture:
    return np.full((height, width, 3), level, dtype=np.uint8)


def detailed(top: int, left: int) -> Picture:
    """Return a grey 64x96 image with a checkerboard in the window of a quarter of its height and width: 16x24."""
    image = flat(128)
    y, x = np.mgrid[:16, :24]
    image[top : top + 16, left : left + 24] = np.where((x + y) % 2, 255, 0)[..., None]
    return image


class TestComparison:
    # 96x64 on 480: 320 rows for the whole image; a crop of 24x16 the same
    def test_it_has_a_column_an_image(self) -> None:
        picture = comparison({"blurry": flat(10), "deblurred": flat(20), "sharp": detailed(0, 0)})
        assert picture.shape == (TITLE + 320 + 320, 3 * PANEL, 3)
        assert picture.dtype == np.uint8

    def test_columns_keep_the_order_of_the_images(self) -> None:
        picture = comparison({"a": flat(10), "b": flat(20), "c": flat(30)})
        crops = picture[TITLE + 320 :]
        for column, level in enumerate((10, 20, 30)):
            assert np.unique(crops[:, column * PANEL : (column + 1) * PANEL]).tolist() == [level]

    def test_each_column_has_its_title_in_black_on_white(self) -> None:
        titles = comparison({"a": flat(0), "bbbbbbbb": flat(0)})[:TITLE]
        ink = [(255 - titles[:, start : start + PANEL].astype(int)).sum() for start in (0, PANEL)]
        assert titles.max() == 255
        assert titles.min() < 60
        assert 0 < ink[0] < ink[1]

    @pytest.mark.parametrize(("top", "left"), [(0, 0), (16, 40), (48, 72), (5, 11)])
    def test_the_crop_shows_where_the_last_image_has_its_detail(self, top: int, left: int) -> None:
        shown = flat(0)
        shown[top : top + 16, left : left + 24] = 200
        picture = comparison({"shown": shown, "sharp": detailed(top, left)})
        crop = picture[TITLE + 320 :, :PANEL]
        # the strongest edges may lie a pixel beside the checkerboard: at most 2 * 20 / 480 and 2 * 20 / 320 of black
        assert (crop[..., 0] > 190).mean() > 0.85

    def test_the_crop_is_framed_in_the_whole_image(self) -> None:
        picture = comparison({"shown": flat(0), "sharp": detailed(16, 40)})
        whole = picture[TITLE : TITLE + 320, :PANEL]
        y, x = np.nonzero((whole == FRAME).all(axis=2))
        # five times 16...31 and 40...63; one pixel aside as above
        assert abs(y.min() - 80) <= 5
        assert abs(y.max() - 159) <= 5
        assert abs(x.min() - 200) <= 5
        assert abs(x.max() - 319) <= 5

    def test_the_images_stay_as_they_are(self) -> None:
        images = {"blurry": flat(10), "sharp": detailed(8, 8)}
        before = {name: image.copy() for name, image in images.items()}
        comparison(images)
        for name, image in images.items():
            np.testing.assert_array_equal(image, before[name])

    @pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 300), (37, 41)])
    def test_images_of_every_size_are_shown(self, size: tuple[int, int]) -> None:
        height, width = size
        picture = comparison({"blurry": flat(10, height, width), "sharp": flat(20, height, width)})
        crop = max(round(max(height // 4, 1) * PANEL / max(width // 4, 1)), 1)
        assert picture.shape == (TITLE + max(round(height * PANEL / width), 1) + crop, 2 * PANEL, 3)


class TestHeatMap:
    def test_it_goes_from_viridis_dark_blue_to_its_yellow_and_stays_there(self) -> None:
        # matplotlib's viridis(0.0), viridis(0.5), viridis(1.0): (68, 1, 84), (33, 145, 140), (253, 231, 37)
        picture = heat_map(np.array([[-1.0, 0.0, 8.0, 16.0, 99.0]]), top=16)
        expected = np.array([[(68, 1, 84), (68, 1, 84), (33, 145, 140), (253, 231, 37), (253, 231, 37)]])
        assert np.abs(picture.astype(int) - expected).max() <= 2


class TestKernel:
    def test_it_stands_at_the_bottom_right_and_leaves_the_rest(self) -> None:
        kernel = np.zeros((3, 3))
        kernel[0, 2] = 0.5
        kernel[1, 1] = 0.25
        image = flat(10, 96, 128)
        picture = with_kernel(image, kernel)
        # a quarter of 96: 24 pixels, 8 for each value of the kernel
        np.testing.assert_array_equal(picture[:71], image[:71])
        np.testing.assert_array_equal(picture[:, :103], image[:, :103])
        inset = picture[72:, 104:]
        assert [inset[12, 12].tolist(), inset[4, 20].tolist(), inset[20, 4].tolist()] == [[128] * 3, [255] * 3, [0] * 3]
        assert image.max() == 10
