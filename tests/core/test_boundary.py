"""The boundary for networks that aren't ours: what they do to their input, what they return, which output is the image.

Networks here work out x -> gain x on a few pixels; expected values are in the comments.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from reblur_plugin.core import objectives
from reblur_plugin.core.adapt import adapt
from reblur_plugin.core.boundary import (
    NetworkError,
    check_range,
    choose_output,
    evaluated,
    finest,
    image_from,
    images_of,
    output_from,
)
from reblur_plugin.core.joint import JointStep
from reblur_plugin.core.reblurability import reblurability_map
from reblur_plugin.core.updater import Updater
from reblur_plugin.errors import ReblurError


class Shift(nn.Module):
    """x -> gain (x - .5), in the caller's memory or not."""

    def __init__(self, gain: float, in_place: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        if self.in_place:
            x -= 0.5
            return self.gain * x
        return self.gain * (x - 0.5)


class Returns(nn.Module):
    """A gain, and what a function makes of the result."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.gain * x)


class Named(NamedTuple):
    image: Tensor
    mask: Tensor | None


def image(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def trained(in_place: bool, **choices: Any) -> tuple[list[float], list[Tensor]]:
    """Return the losses of two steps and the batch afterwards."""
    torch.manual_seed(0)
    networks = {"deblur": Shift(1.5, in_place), "reblur": Shift(0.7, in_place)}
    updaters = {name: Updater(net, torch.optim.SGD(net.parameters(), lr=0.1)) for name, net in networks.items()}
    step = JointStep(**updaters, **choices)
    batch = [torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4)]
    losses = [float(loss) for _ in range(2) for loss in step(*batch).values()]
    return losses, batch


class TestNetworksThatWorkInPlace:
    @pytest.mark.parametrize(
        "choices",
        [{}, {"deblur_first": True}, {"accumulate": 2}, {"sharp_reference": "real"}, {"sharp_reference": "none"}],
        ids=str,
    )
    def test_train_as_their_twins_that_do_not(self, choices: dict[str, Any]) -> None:
        losses, batch = trained(True, **choices)
        expected, untouched = trained(False, **choices)
        assert losses == expected
        assert_close(batch, untouched, rtol=0, atol=0)

    @pytest.mark.parametrize(
        "loss",
        [
            lambda net, x, y: objectives.blur_loss(net, x, y),
            lambda net, x, y: objectives.sharp_loss(net, x),
            lambda net, x, y: objectives.reblur_loss(net, x, y),
            lambda net, x, y: objectives.self_reblur_loss(net, x),
            lambda net, x, y: objectives.self_reblur_loss(net, x, y),
            lambda net, x, y: objectives.sharp_reference_image(net, x, "pseudo"),
        ],
    )
    def test_leave_the_images_of_every_equation_alone(self, loss: Callable[..., Tensor]) -> None:
        first, second = image(0.25, 0.75), image(1.0, 0.5)
        given = first.clone(), second.clone()
        assert_close(loss(Shift(0.7, True), *given), loss(Shift(0.7, False), first, second), rtol=0, atol=0)
        assert_close(given, (first, second), rtol=0, atol=0)

    def test_have_the_reblurability_of_what_they_compute(self) -> None:
        # |x - .5 - x| = .5 everywhere
        given = image(0.25, 0.75, 1.0)
        assert_close(reblurability_map(Shift(1.0, True), given), image(0.5, 0.5, 0.5))
        assert_close(given, image(0.25, 0.75, 1.0), rtol=0, atol=0)


class TestWhichOutputIsTheImage:
    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x,
            lambda x: [x],
            lambda x: (x,),
            lambda x: {"image": x},
            lambda x: OrderedDict(half=x[..., ::2], full=x),
            lambda x: (x[..., ::2], x),
        ],
    )
    def test_is_the_only_one_or_the_largest(self, function: Callable[[Tensor], Any]) -> None:
        assert_close(image_from(Returns(function), image(0.5, 1.0)), image(0.25, 0.5))

    @pytest.mark.parametrize(
        ("choice", "factor"),
        [("first", 1.0), ("last", 3.0), (0, 1.0), (1, 2.0), (2, 3.0)],
    )
    def test_of_several_stages_of_one_size_is_the_one_that_the_network_names(self, choice: Any, factor: float) -> None:
        network = Returns(lambda x: [x, 2 * x, 3 * x, x[..., ::2]])
        network.image_output = choice
        output = output_from(network, image(0.5, 1.0))
        assert_close(finest(output), factor * image(0.25, 0.5))
        assert sorted(stage.sum().item() for stage in output) == [0.25, 0.75, 1.5, 2.25]  # L_1 counts all of them
        assert_close(image_from(copy.deepcopy(network), image(0.5, 1.0)), factor * image(0.25, 0.5))

    def test_is_found_in_what_isn_t_an_image_once_the_network_names_it(self) -> None:
        for choice, function in (
            ("image", lambda x: {"mask": x > 0, "image": x, "loss": x.sum(), "other": None}),
            (0, lambda x: (x, x.new_zeros(1, 64, 1, 1))),
            (1, lambda x: [[x], x]),
            (0, lambda x: Named(x, None)),
            ("last", lambda x: (x.sum(), x)),
        ):
            network = Returns(function)
            choose_output(network, choice)
            output = output_from(network, image(0.5, 1.0))
            assert isinstance(output, Tensor)
            assert_close(output, image(0.25, 0.5))

    @pytest.mark.parametrize(
        ("function", "got"),
        [
            (lambda x: [x, x], r"0: \(1, 1, 1, 2\), 1: \(1, 1, 1, 2\)"),
            (lambda x: {"a": x, "b": 2 * x}, r"a: \(1, 1, 1, 2\), b: \(1, 1, 1, 2\)"),
            (lambda x: (x, None), r"0: \(1, 1, 1, 2\), 1: NoneType"),
            (lambda x: Named(x, x[:, 0]), r"0: \(1, 1, 1, 2\), 1: \(1, 1, 2\)"),
            (lambda x: (x, x.new_zeros(1, 64, 9, 9)), r"0: \(1, 1, 1, 2\), 1: \(1, 64, 9, 9\)"),
        ],
    )
    def test_is_asked_for_where_several_could_be_meant(self, function: Callable[[Tensor], Any], got: str) -> None:
        message = (
            rf"^Returns: expected one image or several scales of it, got {got}; say which one is the image: image_"
        )
        with pytest.raises(NetworkError, match=message):
            image_from(Returns(function), image(0.5, 1.0))

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x: None, r"^Returns: expected an image \(torch.Tensor\) or several, got NoneType$"),
            (lambda x: "image", r"expected an image \(torch.Tensor\) or several, got str$"),
            (lambda x: [], r"expected an image for an input of shape \(1, 1, 1, 2\), got nothing$"),
            (lambda x: {"a": 1}, r"expected an image for an input of shape \(1, 1, 1, 2\), got a: int$"),
            (lambda x: x[..., :1], r"expected an image of its input's shape \(1, 1, 1, 2\), got \(1, 1, 1, 1\); use a"),
            (lambda x: x.sum(), r"expected an image of its input's shape \(1, 1, 1, 2\), got \(\)"),
        ],
    )
    def test_is_missed_in_one_sentence(self, function: Callable[[Tensor], Any], message: str) -> None:
        for pass_ in (image_from, evaluated):
            with pytest.raises(NetworkError, match=message):
                pass_(Returns(function), image(0.5, 1.0))

    @pytest.mark.parametrize("choice", ["mask", 2, "other", -1])
    def test_can_t_be_another_thing(self, choice: Any) -> None:
        network = Returns(lambda x: {"image": x, "mask": x.sum(), 2: None})
        choose_output(network, choice)
        with pytest.raises(
            NetworkError, match=rf"^Returns: image_output: expected an output that is.*not {choice!r}; got"
        ):
            image_from(network, image(0.5, 1.0))

    @pytest.mark.parametrize("choice", [1.5, True, ["first"]])
    def test_is_named_by_a_word_or_a_number(self, choice: Any) -> None:
        with pytest.raises(NetworkError, match=r"^image_output: expected first, last, a number from 0 or a name, got"):
            choose_output(nn.Identity(), choice)

    def test_stays_what_the_class_says_where_no_choice_is_made(self) -> None:
        class Last(Returns):
            image_output = "last"

        network = Last(lambda x: (x, 3 * x))
        choose_output(network, None)
        assert_close(image_from(network, image(0.5, 1.0)), image(0.75, 1.5))

    def test_is_trained_scored_and_adapted(self) -> None:
        network = Returns(lambda x: [x, 3 * x])
        network.image_output = "last"
        result = adapt(network, nn.Conv2d(1, 1, 1), image(0.25, 0.5), steps=1, lr=1e-3)
        assert_close(result.initial, image(0.375, 0.75))
        step = JointStep(Updater(network, torch.optim.SGD(network.parameters(), lr=0.1)), None)
        # L_1 over both stages against S = 1: |.125 - 1| + |.375 - 1|
        assert_close(step(image(0.25), image(1.0))["l_1"], torch.tensor(0.875 + 0.625))

    def test_of_a_batch_has_its_channels(self) -> None:
        scales = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)]
        assert images_of(scales, torch.zeros(2, 3, 4, 4), None, "M_D") == scales
        with pytest.raises(NetworkError, match="M_D: expected an image for an input"):
            images_of([torch.zeros(2, 1, 4, 4)], torch.zeros(2, 3, 4, 4), None, "M_D")


class TestFinest:
    def test_a_single_tensor_is_its_own_finest_scale(self) -> None:
        single = image(0.5)
        assert finest(single) is single

    @pytest.mark.parametrize("container", [list, tuple])
    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
    def test_size_decides_not_order(self, order: tuple[int, ...], container: Callable) -> None:
        scales = [torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)]
        assert finest(container(scales[i] for i in order)) is scales[2]

    def test_both_sides_count(self) -> None:
        # areas 12, 10, 9: neither the tallest (1 x 10) nor the last is the finest
        scales = [torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 10, 1), torch.zeros(1, 1, 1, 9)]
        assert finest(scales) is scales[0]

    def test_channels_do_not_count(self) -> None:
        scales = [torch.zeros(1, 64, 2, 2), torch.zeros(1, 3, 3, 3)]
        assert finest(scales) is scales[1]


class TestRange:
    @pytest.mark.parametrize(
        ("values", "seen"),
        [
            ((0.0, 255.0), "0 to 255"),
            ((-1.0, 1.0), "-1 to 1"),
            ((0.1, 1.6), "0.1 to 1.6"),
            ((0.0, 65535.0), "0 to 6.55"),
        ],
    )
    def test_beyond_0_to_1_is_refused_with_what_was_seen(self, values: tuple[float, float], seen: str) -> None:
        given = image(*values)
        message = rf"expected values in \[0, 1\], got {seen}"
        step = JointStep(Updater(Returns(abs), torch.optim.SGD([nn.Parameter(given)])), None)
        with pytest.raises(ReblurError, match=rf"^blurry: {message}"):
            adapt(Returns(abs), nn.Identity(), given)
        with pytest.raises(ReblurError, match=rf"^JointStep: blurry: {message}"):
            step(given, image(0.0, 1.0))
        with pytest.raises(ReblurError, match=rf"^JointStep: sharp: {message}"):
            step(image(0.0, 1.0), given)
        with pytest.raises(ReblurError, match=rf"^image: {message}"):
            reblurability_map(nn.Identity(), given)

    def test_may_be_overshot_by_noise_and_resampling(self) -> None:
        check_range("blurry", image(-0.4, 1.4))
