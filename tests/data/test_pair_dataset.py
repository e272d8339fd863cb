"""Items and the stream of draws. Each test image tells where a pixel came from: red is x, green y, blue the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from reblur_plugin.data.images import ImageError
from reblur_plugin.data.layouts import DatasetError
from reblur_plugin.data.pair_dataset import DeblurPairDataset, Draw, DrawSampler

WIDTH, HEIGHT, COUNT, SHARP = 40, 30, 3, 100  # SHARP is added to the blue of sharp images
Item = dict[str, Any]
Make = Callable[..., DeblurPairDataset]


def write(path: Path, blue: int, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Write an image whose pixel at (x, y) is (x, y, blue)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:height, :width]
    Image.fromarray(np.stack((x, y, np.full_like(x, blue)), axis=2).astype(np.uint8)).save(path)


def levels(image: Tensor) -> np.ndarray[Any, Any]:
    return (image * 255).round().to(torch.int64).numpy()


def place(item: Item) -> tuple[int, int, int]:
    """Return left, top and number of the image that a patch was cut from."""
    left, top, number = levels(item["lq"])[:, 0, 0]
    return int(left), int(top), int(number)


def same(first: Item, second: Item) -> bool:
    return torch.equal(first["lq"], second["lq"]) and torch.equal(first["gt"], second["gt"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for index in range(COUNT):
        write(tmp_path / "sequence" / "blur_gamma" / f"{index}.png", index)
        write(tmp_path / "sequence" / "sharp" / f"{index}.png", index + SHARP)
    return tmp_path


@pytest.fixture
def training(root: Path) -> Make:
    def make(**options: Any) -> DeblurPairDataset:
        block = {"phase": "train", "dataroot": str(root), "gt_size": 8, "augment": "none", "seed": 5}
        return DeblurPairDataset(block | options)

    return make


class TestItems:
    def test_whole_pairs_are_given_outside_training(self, root: Path) -> None:
        for phase in ("val", "test"):
            dataset = DeblurPairDataset({"phase": phase, "dataroot": str(root), "gt_size": 8})
            assert len(dataset) == COUNT
            item = dataset[1]
            assert set(item) == {"name", "lq", "gt", "lq_path", "gt_path"}
            assert item["name"] == "sequence/1"
            assert item["lq_path"] == str(root / "sequence" / "blur_gamma" / "1.png")
            assert item["gt_path"] == str(root / "sequence" / "sharp" / "1.png")
            assert item["lq"].dtype == torch.float32
            y, x = np.mgrid[:HEIGHT, :WIDTH]
            np.testing.assert_array_equal(levels(item["lq"]), np.stack((x, y, np.full_like(x, 1))))
            np.testing.assert_array_equal(levels(item["gt"]), np.stack((x, y, np.full_like(x, 1 + SHARP))))

    def test_photographs_have_no_sharp_image(self, root: Path) -> None:
        folder = root / "sequence" / "sharp"
        item = DeblurPairDataset({"phase": "test", "layout": "photographs", "dataroot": str(folder)})[2]
        assert set(item) == {"name", "lq", "lq_path"}
        assert item["name"] == "2"
        assert levels(item["lq"])[2, 0, 0] == 2 + SHARP

    def test_patches_of_both_images_come_from_the_same_place(self, training: Make) -> None:
        dataset = training()
        for number in range(20):
            item = dataset[Draw(number % COUNT, number)]
            left, top, image = place(item)
            y, x = np.mgrid[top : top + 8, left : left + 8]
            np.testing.assert_array_equal(levels(item["lq"]), np.stack((x, y, np.full_like(x, image))))
            np.testing.assert_array_equal(levels(item["gt"]), np.stack((x, y, np.full_like(x, image + SHARP))))

    def test_training_augments_as_nah_does_where_nothing_else_is_said(self, root: Path) -> None:
        options = {"phase": "train", "dataroot": str(root), "gt_size": 8, "seed": 5}
        draws = [Draw(0, number) for number in range(4)]
        by_itself, nah, plain = (
            DeblurPairDataset(options | choice) for choice in ({}, {"augment": "nah"}, {"augment": "none"})
        )
        assert all(same(by_itself[draw], nah[draw]) for draw in draws)
        assert not any(same(by_itself[draw], plain[draw]) for draw in draws)

    def test_a_test_set_is_never_augmented(self, root: Path) -> None:
        item = DeblurPairDataset({"phase": "val", "dataroot": str(root), "augment": "nah"})[0]
        assert levels(item["lq"])[:, 0, 0].tolist() == [0, 0, 0]
        assert item["lq"].shape == (3, HEIGHT, WIDTH)

    def test_an_image_of_the_patch_size_is_taken_whole(self, training: Make) -> None:
        item = training(gt_size=HEIGHT)[Draw(0, 0)]
        assert item["lq"].shape == (3, HEIGHT, HEIGHT)
        assert place(item)[1] == 0

    def test_the_cache_reads_each_file_once_and_gives_the_same(self, root: Path, training: Make) -> None:
        fresh, cached = training(augment="nah"), training(augment="nah", cache=True)
        draws = [Draw(1, number) for number in range(4)]
        expected = [fresh[draw] for draw in draws]
        first = cached[draws[0]]
        (root / "sequence" / "sharp" / "1.png").unlink()
        assert same(first, expected[0])
        assert all(same(cached[draw], item) for draw, item in zip(draws, expected, strict=True))

    def test_writing_into_an_item_leaves_the_cache_alone(self, root: Path) -> None:
        dataset = DeblurPairDataset({"phase": "val", "dataroot": str(root), "cache": True})
        dataset[0]["lq"].fill_(7)
        assert dataset[0]["lq"].max() <= 1


class TestDraw:
    def test_a_patch_depends_on_nothing_but_seed_and_number(self, training: Make) -> None:
        draws = [Draw(number % COUNT, number) for number in range(6)]
        torch.manual_seed(1)
        np.random.seed(1)
        expected = [training(augment="nah")[draw] for draw in draws]
        torch.manual_seed(2)
        np.random.seed(2)
        dataset = training(augment="nah")
        for draw, item in reversed(list(zip(draws, expected, strict=True))):
            assert same(dataset[draw], item)

    def test_a_patch_leaves_the_global_randomness_alone(self, training: Make) -> None:
        torch.manual_seed(1)
        training(augment="nah")[Draw(0, 0)]
        drawn = torch.rand(3)
        torch.manual_seed(1)
        assert torch.equal(drawn, torch.rand(3))

    def test_other_numbers_and_other_seeds_give_other_patches(self, training: Make) -> None:
        by_number = [place(training()[Draw(0, number)]) for number in range(40)]
        by_seed = [place(training(seed=seed)[Draw(0, 0)]) for seed in range(40)]
        # 40 draws out of 33 * 23 = 759 places: about one pair of them falls together
        assert len(set(by_number)) > 30
        assert len(set(by_seed)) > 30

    def test_every_place_can_be_drawn(self, training: Make) -> None:
        dataset = training(gt_size=29, cache=True)  # 12 * 2 places
        places = {place(dataset[Draw(0, number)])[:2] for number in range(300)}
        assert places == {(left, top) for left in range(12) for top in range(2)}


class TestPlainIndex:
    def test_two_items_of_one_index_differ(self, training: Make) -> None:
        dataset = training()
        assert len({place(dataset[0]) for _ in range(20)}) > 10

    def test_torch_seeds_them(self, training: Make) -> None:
        dataset = training(augment="nah")
        items = []
        for _ in range(2):
            torch.manual_seed(3)
            items.append(dataset[0])
        assert same(*items)

    def test_with_workers_epochs_and_workers_differ(self, training: Make) -> None:
        # BasicSR reseeds its workers alike in every epoch, so that crops repeat for ever
        torch.manual_seed(0)
        loader = DataLoader(training(), batch_size=None, sampler=[0] * 8, num_workers=2)
        first, second = ([place(item) for item in loader] for _ in range(2))
        assert first != second
        assert len(set(first)) >= 6  # eight draws out of 759 places, four by each worker
        assert first[0::2] != first[1::2]


class TestDrawSampler:
    def test_every_epoch_has_each_image_once(self) -> None:
        stream = list(islice(DrawSampler(7, seed=0), 35))
        assert [draw.number for draw in stream] == list(range(35))
        for epoch in range(5):
            assert sorted(draw.image for draw in stream[7 * epoch : 7 * epoch + 7]) == list(range(7))

    def test_the_order_changes_with_the_epoch_and_the_seed(self) -> None:
        stream = [draw.image for draw in islice(DrawSampler(20, seed=0), 60)]
        orders = {tuple(stream[start : start + 20]) for start in (0, 20, 40)}
        orders.add(tuple(draw.image for draw in islice(DrawSampler(20, seed=1), 20)))
        assert len(orders) == 4
        assert tuple(range(20)) not in orders

    def test_the_seed_fixes_the_stream(self) -> None:
        streams = [list(islice(DrawSampler(5, seed=3), 20)) for _ in range(2)]
        assert streams[0] == streams[1]

    def test_a_sampler_can_be_run_through_again(self) -> None:
        sampler = DrawSampler(5, seed=3)
        assert list(islice(sampler, 12)) == list(islice(sampler, 12))

    def test_a_resumed_stream_goes_on_where_it_stopped(self) -> None:
        unbroken = list(islice(DrawSampler(7, seed=2), 30))
        for start in (1, 6, 7, 13):
            assert list(islice(DrawSampler(7, seed=2, start=start), 30 - start)) == unbroken[start:]

    def test_processes_share_the_stream_out(self) -> None:
        for start in (0, 9):
            alone = list(islice(DrawSampler(7, seed=2), start + 30))[start:]
            shares = [list(islice(DrawSampler(7, 2, start, rank, 3), 10)) for rank in range(3)]
            assert [draw for turn in zip(*shares, strict=True) for draw in turn] == alone

    def test_processes_together_see_each_image_once_an_epoch(self) -> None:
        shares = [islice(DrawSampler(6, 0, 0, rank, 2), 9) for rank in range(2)]
        assert Counter(draw.image for share in shares for draw in share) == dict.fromkeys(range(6), 3)

    def test_a_resumed_run_sees_the_batches_of_an_unbroken_one(self, training: Make) -> None:
        def batches(start: int, count: int, workers: int) -> list[Item]:
            sampler = DrawSampler(COUNT, seed=5, start=start)
            return list(islice(DataLoader(training(augment="nah"), 2, sampler=sampler, num_workers=workers), count))

        unbroken = batches(0, 5, workers=0)
        resumed = batches(3 * 2, 2, workers=1)  # after three batches of two
        assert all(same(*pair) for pair in zip(unbroken[3:], resumed, strict=True))


class TestFingerprint:
    @pytest.fixture
    def fingerprint(self, root: Path) -> Callable[[], str]:
        return lambda: DeblurPairDataset({"phase": "val", "dataroot": str(root)}).fingerprint()

    def test_it_is_the_same_wherever_the_data_lie(self, root: Path, fingerprint: Callable[[], str]) -> None:
        found = fingerprint()
        assert fingerprint() == found
        moved = root.rename(root.with_name(f"{root.name}_moved"))
        assert DeblurPairDataset({"phase": "val", "dataroot": str(moved)}).fingerprint() == found

    def test_another_file_of_either_kind_changes_it(self, root: Path, fingerprint: Callable[[], str]) -> None:
        found = [fingerprint()]
        for kind in ("blur_gamma", "sharp"):
            with (root / "sequence" / kind / "1.png").open("ab") as file:
                file.write(b"x")
            found.append(fingerprint())
        assert len(set(found)) == 3

    def test_a_missing_pair_changes_it(self, root: Path, fingerprint: Callable[[], str]) -> None:
        found = fingerprint()
        for kind in ("blur_gamma", "sharp"):
            (root / "sequence" / kind / "2.png").unlink()
        assert fingerprint() != found

    def test_photographs_have_one(self, root: Path, fingerprint: Callable[[], str]) -> None:
        options = {"phase": "test", "layout": "photographs", "dataroot": str(root / "sequence" / "sharp")}
        assert DeblurPairDataset(options).fingerprint() not in ("", fingerprint())


class TestRefusals:
    def test_partners_of_other_size_are_named_with_both_sizes(self, root: Path) -> None:
        write(root / "sequence" / "sharp" / "1.png", 1, width=44)
        dataset = DeblurPairDataset({"phase": "val", "dataroot": str(root)})
        assert dataset[0]["lq"].shape == (3, HEIGHT, WIDTH)
        with pytest.raises(
            ImageError, match=r"blur_gamma/1\.png: expected the size of its sharp partner 44x30, got 40x30"
        ):
            dataset[1]

    def test_an_image_below_the_patch_size_is_named_with_its_size(self, training: Make) -> None:
        dataset = training(gt_size=32)
        with pytest.raises(ImageError, match=r"blur_gamma/0\.png: 40x30 is smaller than gt_size 32; lower gt_size"):
            dataset[Draw(0, 0)]

    def test_a_damaged_image_is_named(self, root: Path) -> None:
        (root / "sequence" / "sharp" / "2.png").write_bytes(b"")
        with pytest.raises(ImageError, match=r"sharp/2\.png: expected an image, got an empty file"):
            DeblurPairDataset({"phase": "val", "dataroot": str(root)})[2]

    def test_training_asks_for_a_patch_size(self, training: Make) -> None:
        for size in (None, 0, -8, 8.0, "8", [8, 8]):
            with pytest.raises(
                DatasetError, match=r"gt_size: expected the side of a training patch such as 256, got (None|\S+)"
            ):
                training(gt_size=size)

    def test_an_unknown_augmentation_is_refused_with_the_known_ones(self, training: Make) -> None:
        with pytest.raises(DatasetError, match=r"augment: expected one of nah, flip, none, got 'flips'"):
            training(augment="flips")

    def test_training_on_photographs_is_refused(self, training: Make) -> None:
        with pytest.raises(DatasetError, match=r"layout: training needs sharp images; photographs have none"):
            training(layout="photographs")
