"""Tiles cover a photograph once, blend into one image, and reach as far as a network looks.

Checkpointing changes what is remembered, not what comes out.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from reblur_plugin.archs.dmphn_arch import DHN, DMPHN
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core.boundary import finest
from reblur_plugin.core.parts import ALIGN, REACH, VISIBLE, Mosaic, Tiling, checkpointed, cut, halo, pixels, seam
from reblur_plugin.errors import ReblurError

NETWORKS = {
    "U-Net": lambda: ResUNet(2, (8, 8, 8)),
    "SRN": lambda: SRN((4, 4, 4)),
    "DHN": lambda: DHN(num_feats=(4, 4, 4)),
}
SIZES = [(1, 1), (3, 5), (16, 16), (17, 47), (100, 64), (33, 250)]


def looking(radius: int) -> nn.Conv2d:
    """Return the mean over nine pixels, the farthest `radius` rows and columns away."""
    layer = nn.Conv2d(1, 1, 3, padding=radius, dilation=radius, bias=False)
    nn.init.constant_(layer.weight, 1 / 9)
    return layer


class TestCut:
    @pytest.mark.parametrize(("height", "width"), SIZES)
    @pytest.mark.parametrize("tiling", [Tiling(), Tiling(2, 3, 16), Tiling(9, 1, 32)])
    def test_own_pixels_cover_the_photograph_once(self, height: int, width: int, tiling: Tiling) -> None:
        seen = torch.zeros(height, width)
        tiles = cut(height, width, tiling)
        for tile in tiles:
            tile.own(tile.crop(seen)).add_(1)
            assert tile.rows.start % ALIGN == tile.columns.start % ALIGN == 0
            assert tile.share == tile.own(tile.crop(seen)).numel() / (height * width)
        assert torch.equal(seen, torch.ones(height, width))
        assert sum(tile.share for tile in tiles) == pytest.approx(1)
        sizes = [tile.crop(seen).numel() for tile in tiles]
        assert pixels(height, width, tiling) == (max(sizes), sum(sizes))

    def test_tiles_have_the_halo_where_there_is_any_image(self) -> None:
        # 80 pixels are 5 blocks of 16, in two tiles: 2 and 3 blocks
        first, second = (tile.columns for tile in cut(16, 80, Tiling(1, 2, 16)))
        assert (first.start, first.own_start, first.own_stop, first.stop) == (0, 0, 32, 48)
        assert (second.start, second.own_start, second.own_stop, second.stop) == (16, 32, 80, 80)

    def test_a_small_photograph_has_fewer_tiles(self) -> None:
        assert len(cut(10, 40, Tiling(4, 4, 16))) == 3

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ({"rows": 0}, "tiling: expected at least one row and column, got 0 and 1"),
            ({"halo": 0}, "tiling: expected a halo that is a multiple of 16 pixels, got 0"),
            ({"halo": 24}, "tiling: expected a halo that is a multiple of 16 pixels, got 24"),
        ],
    )
    def test_refusals(self, choices: dict[str, int], message: str) -> None:
        with pytest.raises(ReblurError, match=f"^{message}$"):
            Tiling(**choices)


class TestMosaic:
    @pytest.mark.parametrize(("height", "width"), SIZES)
    @pytest.mark.parametrize("tiling", [Tiling(), Tiling(2, 3, 16), Tiling(9, 9, 16)])
    def test_tiles_of_an_image_make_that_image(self, height: int, width: int, tiling: Tiling) -> None:
        image = torch.rand(1, 2, height, width, dtype=torch.float64)
        tiles = cut(height, width, tiling)
        mosaic = Mosaic(tiles)
        for tile in tiles:
            mosaic.put(tile, tile.crop(image).clone())
        torch.testing.assert_close(mosaic.image(), image)

    def test_two_tiles_are_blended_along_a_straight_line(self) -> None:
        # the border is at 16; 8 pixels on each side the second tile's share rises from 0 to 1: 1/32, 3/32, ...
        tiles = cut(1, 32, Tiling(1, 2, 16))
        mosaic = Mosaic(tiles)
        for value, tile in enumerate(tiles):
            mosaic.put(tile, torch.full((1, 1, 1, 32), float(value)))
        expected = torch.cat([torch.zeros(8), (torch.arange(16) + 0.5) / 16, torch.ones(8)])
        torch.testing.assert_close(mosaic.image().reshape(-1), expected)

    def test_half_precision_is_blended_in_float32(self) -> None:
        tiles = cut(1, 32, Tiling(1, 2, 16))
        mosaic = Mosaic(tiles)
        for tile in tiles:
            mosaic.put(tile, torch.full((1, 1, 1, 32), 1.0, dtype=torch.bfloat16))
        assert mosaic.image().dtype == torch.float32


class TestHalo:
    LIKE = torch.zeros(1, 1, 1, 1)

    @pytest.mark.parametrize(("radius", "expected"), [(1, 32), (16, 32), (17, 48), (40, 64), (65, 96)])
    def test_is_the_radius_in_steps_of_16_and_16_for_blending(self, radius: int, expected: int) -> None:
        assert halo(looking(radius), 1, self.LIKE) == expected

    def test_of_two_networks_in_a_row_adds_up(self) -> None:
        assert halo(nn.Sequential(looking(17), looking(17)), 1, self.LIKE) == 64

    def test_sees_what_carries_no_gradient(self) -> None:
        far = looking(40)
        assert halo(lambda image: image + far(image).detach(), 1, self.LIKE) == 64

    def test_of_a_network_that_sees_everything_is_capped(self) -> None:
        def brighter(image: Tensor) -> Tensor:
            return image + image.mean() * 10

        assert halo(brighter, 1, self.LIKE) == REACH + ALIGN

    @pytest.mark.parametrize("kernel", [(3, 1), (1, 3)])
    def test_is_that_of_the_direction_in_which_a_network_looks_farther(self, kernel: tuple[int, int]) -> None:
        layer = nn.Conv2d(1, 1, kernel, padding="same", dilation=40, bias=False)
        assert halo(layer, 1, self.LIKE) == 64

    def test_surroundings_of_no_visible_weight_do_not_count(self) -> None:
        far = looking(40)
        assert halo(lambda image: image + 1e-5 * far(image), 1, self.LIKE) == 32

    def test_leaves_chance_alone(self) -> None:
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        halo(nn.Identity(), 1, self.LIKE)
        assert torch.equal(torch.rand(1), expected)


class Everywhere(nn.Module):
    """x + mean of x - .5."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean(dim=(2, 3), keepdim=True) - 0.5


class Gated(nn.Module):
    """Squeeze and excitation: channels are weighted by their means over the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1), nn.Sigmoid())
        nn.init.normal_(self.gate[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class LeftHalf(nn.Module):
    """Only the left half changes: where a pixel stands counts, not what is around it."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return torch.cat([x[..., :half] + 0.25, x[..., half:]], dim=-1)


class TestSeam:
    LIKE = torch.zeros(1, 3, 1, 1)

    @pytest.mark.parametrize(
        "network",
        [Everywhere(), Gated(), LeftHalf(), nn.InstanceNorm2d(3), nn.AdaptiveMaxPool2d(1), DMPHN(num_feats=(4, 4, 4))],
        ids=lambda network: type(network).__name__,
    )
    def test_is_visible_where_a_network_sees_the_whole_image(self, network: nn.Module) -> None:
        if isinstance(network, DMPHN):  # ends of patches, made plain
            for part in network.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.normal_(part.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        chain = network if not isinstance(network, nn.AdaptiveMaxPool2d) else lambda x: x * network(x)
        assert seam(chain, 3, self.LIKE, 48) > VISIBLE

    def test_is_the_difference_of_the_means(self) -> None:
        # Strips of 2 (48 + 80) = 256 and 512 pixels that brighten by .8. Of the longer a tile sees 256 + 48 = 304:
        # .8 (1/2 - 152/512) = .1625; of the shorter 128 + 48 = 176: .8 (1/2 - 88/256) = .125
        assert seam(Everywhere(), 3, self.LIKE, 48) == pytest.approx(0.8 * (0.5 - 152 / 512), abs=2e-3)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_is_none_where_the_halo_holds_all_that_a_network_sees(self, name: str) -> None:
        network = NETWORKS[name]()

        def chain(image: Tensor) -> Tensor:
            return finest(network(image))

        assert seam(chain, 3, self.LIKE, halo(chain, 3, self.LIKE)) < 1e-5

    def test_is_seen_where_the_halo_is_too_small(self) -> None:
        assert seam(looking(40), 1, torch.zeros(1), 16) > VISIBLE

    @pytest.mark.parametrize("far", [200, 500])
    def test_is_seen_where_a_network_looks_beyond_the_largest_halo(self, far: int) -> None:
        network = looking(far)
        assert seam(network, 1, torch.zeros(1), halo(network, 1, torch.zeros(1))) > VISIBLE

    @pytest.mark.parametrize("stride", [32, 64])
    def test_is_seen_where_strides_are_larger_than_the_grid_of_tiles(self, stride: int) -> None:
        def blocks(x: Tensor) -> Tensor:
            height, width = x.shape[-2:]
            padded = nn.functional.pad(x, (0, -width % stride, 0, -height % stride), mode="replicate")
            means = nn.functional.avg_pool2d(padded, stride).repeat_interleave(stride, 2).repeat_interleave(stride, 3)
            return x + 0.5 * (x - means[..., :height, :width])

        assert seam(blocks, 3, self.LIKE, halo(blocks, 3, self.LIKE)) > VISIBLE

    def test_is_seen_in_either_direction(self) -> None:
        for dim in (2, 3):

            def centred(x: Tensor, dim: int = dim) -> Tensor:
                return x - x.mean(dim=dim, keepdim=True)

            assert seam(centred, 3, self.LIKE, 48) > VISIBLE


def gradients(network: nn.Module, depth: int | None, image: Tensor) -> tuple[list[Tensor], int]:
    """Return the gradient of every weight, and the bytes that autograd was given to keep before the backward pass."""
    network.zero_grad()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), checkpointed(network, depth):
        loss = finest(network(image)).square().mean()
        size = sum(kept.values())
        loss.backward()
    return [weight.grad.clone() for weight in network.parameters() if weight.grad is not None], size


class TestCheckpointing:
    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.parametrize("depth", [0, 1, 2, 3])
    def test_gradients_are_the_same_to_the_bit(self, name: str, depth: int) -> None:
        network, image = NETWORKS[name](), torch.rand(1, 3, 24, 20)
        expected, _ = gradients(network, None, image)
        found, _ = gradients(network, depth, image)
        assert len(found) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

    @pytest.mark.parametrize(("name", "depth"), [("U-Net", 0), ("SRN", 1), ("DHN", 1)])
    def test_less_is_remembered(self, name: str, depth: int) -> None:
        network, image = NETWORKS[name](), torch.rand(1, 3, 64, 64)
        assert gradients(network, depth, image)[1] < 0.8 * gradients(network, None, image)[1]

    def test_parts_inside_module_lists_are_found(self) -> None:
        class Listed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(2))

            def forward(self, image: Tensor) -> Tensor:
                for block in self.blocks:
                    image = block(image)
                return image

        network = Listed()
        runs: list[int] = []
        for block in network.blocks:
            block[0].register_forward_hook(lambda *_: runs.append(1))
        gradients(network, 1, torch.rand(1, 3, 4, 4))
        assert len(runs) == 4  # each block once more in the backward pass

    def test_single_layers_are_not_computed_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        runs: list[int] = []
        forward = nn.Conv2d.forward
        monkeypatch.setattr(nn.Conv2d, "forward", lambda layer, image: (runs.append(1), forward(layer, image))[1])
        gradients(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), 1, torch.rand(1, 3, 4, 4))
        assert len(runs) == 2

    def test_the_network_is_given_back_as_it_was_also_after_an_exception(self) -> None:
        network = ResUNet(1, (4, 4, 4))

        def own(image: Tensor) -> Tensor:
            return image

        network.body.forward = own
        network.tail.register_forward_hook(lambda *_: pytest.fail("stopped"))
        with checkpointed(network, 1), pytest.raises(pytest.fail.Exception):
            network(torch.rand(1, 3, 8, 8))
        assert network.body.__dict__["forward"] is own
        assert not any("forward" in part.__dict__ for part in network.modules() if part is not network.body)

    def test_a_part_that_changes_its_input_is_refused(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)))
        message = "checkpointing: Sequential changes its input in place and can't be computed twice; leave it out"
        with pytest.raises(ReblurError, match=message):
            gradients(network, 1, torch.rand(1, 3, 4, 4))
