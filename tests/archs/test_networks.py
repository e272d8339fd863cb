"""The networks against paper.md's tables: sizes to the last digit, and each forward pass written out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reblur_plugin.archs.complexity import count_macs, count_parameters
from reblur_plugin.archs.discriminator_arch import ReblurDiscriminator
from reblur_plugin.archs.dmphn_arch import DHN, DMPHN
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.core.boundary import finest
from reblur_plugin.errors import ReblurError

Weights = dict[str, Tensor]

# Published or derived by hand from the layer tables: network, parameters, G multiply-adds at 256x256 and at 1280x720.
SIZES = [
    (lambda: ResUNet(), 6_796_803, 32.94, 463.25),
    (lambda: ResUNet(upsample="deconv"), 5_911_491, 26.60, 374.1),
    (lambda: ResUNet(num_blocks=4), 4_141_059, 22.07, 310.4),
    (lambda: ResUNet(num_blocks=16), 12_108_291, 54.69, 769.0),
    (lambda: ResUNet(num_blocks=32), 22_731_267, 98.17, 1380.5),
    (lambda: SRN(upsample="deconv"), 6_881_251, 83.50, 1174.3),
    (lambda: SRN(), 7_086_339, 85.26, 1199.0),
    (lambda: DHN(), 7_232_524, 65.15, 916.1),
    (lambda: DMPHN(), 7_232_524, 65.15, 916.1),
    (lambda: DHN(upsample="pixelshuffle"), 8_052_876, 70.51, 991.6),
    (lambda: ReblurNet(num_blocks=1), 214_595, 14.05, 197.6),
    (lambda: ReblurNet(num_blocks=2), 419_523, 27.47, 386.3),
    (lambda: ReblurNet(num_blocks=3), 624_451, 40.89, 575.1),
    (lambda: ReblurNet(num_blocks=4), 829_379, 54.32, 763.8),
]
SMALL: list[tuple[str, Callable[[], nn.Module]]] = [
    ("unet", lambda: ResUNet(num_blocks=1, num_feats=(4, 6, 8))),
    ("unet_deconv", lambda: ResUNet(num_blocks=1, num_feats=(4, 6, 8), upsample="deconv")),
    ("unet_global_skip", lambda: ResUNet(num_blocks=1, num_feats=(4, 6, 8), global_skip=True)),
    ("srn", lambda: SRN(num_feats=(4, 6, 8))),
    ("srn_deconv", lambda: SRN(num_feats=(4, 6, 8), upsample="deconv")),
    ("dhn", lambda: DHN(num_feats=(4, 6, 8))),
    ("dhn_pixelshuffle", lambda: DHN(num_feats=(4, 6, 8), upsample="pixelshuffle")),
    ("dmphn", lambda: DMPHN(num_feats=(4, 6, 8))),
    ("reblur", lambda: ReblurNet(num_blocks=2, num_feat=4)),
]
EACH = pytest.mark.parametrize("build", [build for _, build in SMALL], ids=[name for name, _ in SMALL])


def conv(x: Tensor, w: Weights, name: str, stride: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)


def block(x: Tensor, w: Weights, first: str, second: str) -> Tensor:
    return x + conv(F.relu(conv(x, w, first)), w, second)


def weights_of(network: nn.Module) -> Weights:
    """Random float64 weights, biases included: the default ones are too small for a wrong activation to show."""
    network.double()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator).double() / parameter[0].numel() ** 0.5
    return network.state_dict()


def test_parameters_and_multiply_adds_are_the_published_ones() -> None:
    found = []
    for build, *_, gmac_720p in SIZES:
        with torch.device("meta"):
            network = build()
        digits = len(str(gmac_720p).split(".")[1])
        small, large = (count_macs(network, *size) / 1e9 for size in ((256, 256), (720, 1280)))
        found.append((build, count_parameters(network), round(small, 2), round(large, digits)))
    assert found == SIZES


def test_multiply_adds_are_counted_as_by_hand() -> None:
    # conv 3x3, 2 -> 5 channels, stride 2 on 8x6: 4*3 positions x 5*2*9; transposed 4x4, 5 -> 3: 4*3 inputs x 5*3*16.
    network = nn.Sequential(nn.Conv2d(2, 5, 3, 2, 1), nn.ConvTranspose2d(5, 3, 4, 2, 1))
    assert count_macs(network, 8, 6, channels=2) == 12 * 90 + 12 * 240


class TestEveryNetwork:
    @EACH
    def test_keeps_any_height_and_width(self, build: Callable[[], nn.Module]) -> None:
        sizes = [(2, 3, 16, 32), (2, 3, 17, 35), (2, 3, 5, 3), (2, 3, 1, 1)]
        assert [tuple(finest(build()(torch.rand(size))).shape) for size in sizes] == sizes

    @EACH
    def test_treats_the_images_of_a_batch_separately(self, build: Callable[[], nn.Module]) -> None:
        network = build()
        images = torch.rand(2, 3, 16, 16)
        together = finest(network(images))
        apart = torch.cat([finest(network(image[None])) for image in images])
        torch.testing.assert_close(together, apart)

    @EACH
    def test_every_weight_gets_gradient(self, build: Callable[[], nn.Module]) -> None:
        network = build()
        weights_of(network)
        finest(network(torch.rand(1, 3, 32, 32, dtype=torch.float64))).square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_refuses_an_unknown_upsampler(self) -> None:
        for network in (ResUNet, SRN, DHN):
            with pytest.raises(ReblurError, match=r"upsample: expected one of pixelshuffle, deconv, got 'bicubic'"):
                network(upsample="bicubic")


class TestResUNet:
    @staticmethod
    def by_table_s1(x: Tensor, w: Weights, blocks: int, skips: bool) -> Tensor:
        one = conv(x - 0.5, w, "head")
        two = conv(one, w, "down1", 2)
        three = conv(two, w, "down2", 2)
        for i in range(blocks):
            three = block(three, w, f"body.{i}.body.0", f"body.{i}.body.2")
        twenty = F.pixel_shuffle(conv(three, w, "up2.0"), 2) + (two if skips else 0)
        twenty_one = F.pixel_shuffle(conv(twenty, w, "up1.0"), 2) + (one if skips else 0)
        return conv(twenty_one, w, "tail") + 0.5

    def test_follows_table_s1(self) -> None:
        for skips in (True, False):
            network = ResUNet(num_blocks=2, num_feats=(4, 6, 8), skips=skips)
            w = weights_of(network)
            x = torch.rand(1, 3, 12, 20, dtype=torch.float64)
            torch.testing.assert_close(network(x), self.by_table_s1(x, w, 2, skips))

    def test_odd_sizes_are_padded_by_the_edge_and_cropped(self) -> None:
        network = ResUNet(num_blocks=1, num_feats=(4, 6, 8))
        w = weights_of(network)
        x = torch.rand(1, 3, 10, 7, dtype=torch.float64)
        padded = F.pad(x, (0, 1, 0, 2), mode="replicate")
        torch.testing.assert_close(network(x), self.by_table_s1(padded, w, 1, True)[..., :10, :7])

    def test_has_as_many_separate_blocks_as_asked_for(self) -> None:
        network = ResUNet(num_blocks=3, num_feats=(4, 6, 8))
        assert len({id(module) for module in network.body}) == 3

    def test_with_a_global_skip_it_starts_as_the_identity(self) -> None:
        x = torch.rand(1, 3, 9, 9)
        assert torch.equal(ResUNet(num_blocks=1, num_feats=(4, 6, 8), global_skip=True)(x), x)


class TestReblurNet:
    def test_follows_table_s3(self) -> None:
        network = ReblurNet(num_blocks=2, num_feat=4)
        w = weights_of(network)
        x = torch.rand(1, 3, 11, 13, dtype=torch.float64)
        features = conv(x - 0.5, w, "head")
        for i in range(2):
            features = block(features, w, f"body.{i}.body.0", f"body.{i}.body.2")
        torch.testing.assert_close(network(x), conv(features, w, "tail") + 0.5)

    def test_sees_as_far_as_its_kernels_reach(self) -> None:
        for blocks, pixels in ((1, 17), (2, 25)):
            network = ReblurNet(num_blocks=blocks, num_feat=2)
            for parameter in network.parameters():
                nn.init.constant_(parameter, 0.1)
            x = (torch.rand(1, 3, 41, 41) + 0.5).requires_grad_()  # positive behind the mean shift: no ReLU is shut
            network(x)[0, 0, 20, 20].backward()
            assert x.grad is not None
            assert int(x.grad.abs().sum((0, 1, 2)).count_nonzero()) == pixels

    def test_with_a_global_skip_it_starts_as_the_identity(self) -> None:
        x = torch.rand(1, 3, 9, 9)
        assert torch.equal(ReblurNet(num_feat=4, global_skip=True)(x), x)


class TestSRN:
    @staticmethod
    def stage(x: Tensor, w: Weights, name: str, stride: int) -> Tensor:
        x = F.relu(conv(x, w, f"{name}.0", stride))
        for i in (2, 3, 4):
            x = block(x, w, f"{name}.{i}.body.0", f"{name}.{i}.body.2")
        return x

    @staticmethod
    def blocks(x: Tensor, w: Weights, name: str) -> Tensor:
        for i in range(3):
            x = block(x, w, f"{name}.body.{i}.body.0", f"{name}.body.{i}.body.2")
        return x

    def one_scale(self, x: Tensor, w: Weights) -> Tensor:
        e1 = self.stage(x, w, "enc1", 1)
        e2 = self.stage(e1, w, "enc2", 2)
        e3 = self.stage(e2, w, "enc3", 2)
        d3 = F.relu(F.pixel_shuffle(conv(self.blocks(e3, w, "dec3"), w, "dec3.up.0"), 2)) + e2
        d2 = F.relu(F.pixel_shuffle(conv(self.blocks(d3, w, "dec2"), w, "dec2.up.0"), 2)) + e1
        return conv(self.blocks(d2, w, "dec1"), w, "dec1.tail")

    def test_follows_the_original_over_three_scales(self) -> None:
        network = SRN(num_feats=(4, 6, 8))
        w = weights_of(network)
        x = torch.rand(1, 3, 32, 16, dtype=torch.float64)
        quarter = F.interpolate(x, (8, 4), mode="bilinear", align_corners=False)
        half = F.interpolate(x, (16, 8), mode="bilinear", align_corners=False)
        i3 = self.one_scale(torch.cat((quarter, quarter), 1), w)
        i2 = self.one_scale(torch.cat((half, F.interpolate(i3, (16, 8), mode="bilinear", align_corners=False)), 1), w)
        i1 = self.one_scale(torch.cat((x, F.interpolate(i2, (32, 16), mode="bilinear", align_corners=False)), 1), w)
        for output, expected in zip(network(x), (i1, i2, i3), strict=True):
            torch.testing.assert_close(output, expected)

    def test_a_coarse_result_hands_on_no_gradient(self) -> None:
        # The finest image depends on the coarser ones by value only: its gradient is that of one pass with fixed input.
        network = SRN(num_feats=(4, 6, 8))
        w = weights_of(network)
        x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
        images = network(x)
        previous = F.interpolate(images[1].detach(), (16, 16), mode="bilinear", align_corners=False)
        weight = network.enc1[0].weight
        (gradient,) = torch.autograd.grad(images[0].sum(), weight)
        own = {**w, "enc1.0.weight": w["enc1.0.weight"].clone().requires_grad_()}
        self.one_scale(torch.cat((x, previous), 1), own).sum().backward()
        torch.testing.assert_close(gradient, own["enc1.0.weight"].grad)

    def test_gives_three_sizes_finest_first_or_the_finest_alone(self) -> None:
        x = torch.rand(1, 3, 17, 30)
        assert [image.shape[-2:] for image in SRN(num_feats=(4, 6, 8))(x)] == [(17, 30), (9, 15), (5, 8)]
        assert SRN(num_feats=(4, 6, 8), multi_scale_output=False)(x).shape == x.shape


class TestDHN:
    @staticmethod
    def encode(x: Tensor, w: Weights, level: int) -> Tensor:
        name = f"encoder_lv{level}.layer"
        for head, stride, blocks in ((1, 1, (2, 3)), (5, 2, (6, 7)), (9, 2, (10, 11))):
            x = conv(x, w, f"{name}{head}", stride)
            for i in blocks:
                x = block(x, w, f"{name}{i}.0", f"{name}{i}.2")
        return x

    @staticmethod
    def decode(x: Tensor, w: Weights, level: int) -> Tensor:
        name = f"decoder_lv{level}.layer"
        for blocks, up in (((13, 14), 16), ((17, 18), 20), ((21, 22), None)):
            for i in blocks:
                x = block(x, w, f"{name}{i}.0", f"{name}{i}.2")
            if up:
                x = F.conv_transpose2d(x, w[f"{name}{up}.weight"], w[f"{name}{up}.bias"], stride=2, padding=1)
        return conv(x, w, f"{name}24")

    def test_follows_the_five_lines_of_the_paper(self) -> None:
        network = DHN(num_feats=(4, 6, 8))
        w = weights_of(network)
        b = torch.rand(1, 3, 16, 24, dtype=torch.float64)
        x = b - 0.5
        f4 = self.encode(x, w, 4)
        f3 = self.encode(x + self.decode(f4, w, 4), w, 3) + f4
        f2 = self.encode(x + self.decode(f3, w, 3), w, 2) + f3
        f1 = self.encode(x + self.decode(f2, w, 2), w, 1) + f2
        torch.testing.assert_close(network(b), self.decode(f1, w, 1) + 0.5)

    def test_dmphn_does_the_same_on_1_2_4_and_8_patches(self) -> None:
        network = DMPHN(num_feats=(4, 6, 8))
        w = weights_of(network)
        b = torch.rand(1, 3, 32, 24, dtype=torch.float64)
        x = b - 0.5
        top, bottom = x.chunk(2, 2)
        quarters = [quarter for half in (top, bottom) for quarter in half.chunk(2, 3)]  # 2 x 2
        f4 = [torch.cat([self.encode(p, w, 4) for p in q.chunk(2, 2)], 2) for q in quarters]  # 8 patches, 4 x 2
        f3 = [
            torch.cat([self.encode(quarters[i] + self.decode(f4[i], w, 4), w, 3) + f4[i] for i in pair], 3)
            for pair in ((0, 1), (2, 3))
        ]
        f2 = torch.cat(
            [self.encode(h + self.decode(f, w, 3), w, 2) + f for h, f in zip((top, bottom), f3, strict=True)], 2
        )
        f1 = self.encode(x + self.decode(f2, w, 2), w, 1) + f2
        torch.testing.assert_close(network(b), self.decode(f1, w, 1) + 0.5)

    def test_both_have_the_same_weights(self) -> None:
        assert DHN().state_dict().keys() == DMPHN().state_dict().keys()


class TestReblurDiscriminator:
    def test_gives_one_logit_for_the_training_patch(self) -> None:
        assert ReblurDiscriminator()(torch.rand(2, 3, 256, 256)).shape == (2, 1, 1, 1)

    def test_has_ten_convolutions_without_bias_and_a_classifier(self) -> None:
        # 25 * (3*32 + 32*32 + 32*64 + 64*64 + 64*128 + 128*128 + 128*256 + 256*256 + 256*512 + 512*512) + 512
        assert count_parameters(ReblurDiscriminator()) == 25 * 523_360 + 512

    def test_a_grey_image_is_zero_behind_the_mean_shift_and_has_logit_zero(self) -> None:
        assert ReblurDiscriminator()(torch.full((1, 3, 8, 8), 0.5)).item() == 0

    def test_slopes_are_a_fifth_below_zero(self) -> None:
        network = ReblurDiscriminator()
        slopes = [module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)]
        assert slopes == [0.2] * 10
