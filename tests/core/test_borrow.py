"""Networks that are lent to the adaptation: what is held, what comes back, and who waits for whom."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune, spectral_norm, weight_norm
from torch.testing import assert_close

from reblur_plugin.core.adapt import AdaptError, adapt
from reblur_plugin.core.borrow import chosen_names

Wrap = Callable[[nn.Module], nn.Module]
BLURRY = torch.tensor([0.25, 0.75]).reshape(1, 1, 1, 2)


def convolution() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(1, 1, 3, padding=1)


def adapted(deblur_net: nn.Module, reblur_net: nn.Module | None = None, **choices: Any) -> Tensor:
    """Return the image after large steps."""
    reblur_net = reblur_net or convolution()
    given = {"steps": 2, "lr": 1e-2, "histogram": "none", "max_change": None} | choices
    return adapt(deblur_net, reblur_net, BLURRY, **given).image


class Moved(nn.Module):
    """x -> (fixed + free) x."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed, self.free = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.5))
        self.seen: list[tuple[float, float]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((self.fixed.item(), self.free.item()))
        return (self.fixed + self.free) * x


class TestHeldWeights:
    def test_stay_while_the_others_adapt(self) -> None:
        network = Moved()
        network.fixed.requires_grad_(False)
        adapted(network)
        assert {fixed for fixed, _ in network.seen} == {0.5}
        assert len({free for _, free in network.seen}) == 3  # two updates
        assert (network.fixed.requires_grad, network.free.requires_grad) == (False, True)

    def test_are_no_choice_where_all_are_held(self) -> None:
        # A network that was set aside for inference, such as an average
        network = Moved().requires_grad_(False)
        adapted(network)
        assert all(len({seen[i] for seen in network.seen}) == 3 for i in (0, 1))
        assert not any(weight.requires_grad for weight in network.parameters())

    def test_can_t_be_chosen_by_name(self) -> None:
        network = Moved()
        network.fixed.requires_grad_(False)
        assert chosen_names(network, ["f*"]) == ["free"]
        with pytest.raises(AdaptError, match=r"^parameters: 'fix\*' names weights that are held: requires_grad is Fal"):
            chosen_names(network, ["free", "fix*"])


class Caches(nn.Module):
    """A network that keeps tensors as plain attributes and fills an empty buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.last, self.total = None, torch.zeros(())
        self.register_buffer("mask", None)

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.gain * x
        self.new = self.last.detach()
        self.total += self.last.detach().sum()
        self.mask = x > 0
        return self.last


class TestPlainAttributes:
    @pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
    @pytest.mark.parametrize(
        "wrap",
        [weight_norm, spectral_norm, lambda layer: prune.l1_unstructured(layer, "weight", amount=2)],
        ids=["weight_norm", "spectral_norm", "prune"],
    )
    def test_that_are_computed_from_weights_come_back(self, wrap: Any) -> None:
        network = wrap(convolution()).eval()
        expected = network(BLURRY).detach()
        before = network.weight
        values = before.detach().clone()
        image = adapted(network)
        assert not torch.equal(image, expected)  # it has adapted
        assert network.weight is before
        assert_close(network.weight.detach(), values, rtol=0, atol=0)
        assert_close(network(BLURRY).detach(), expected, rtol=0, atol=0)

    def test_are_as_before(self) -> None:
        network = Caches()
        total = network.total
        adapted(network)
        assert network.last is None
        assert network.mask is None
        assert network.total is total
        assert total == 0
        assert not hasattr(network, "new")


class Waits(nn.Module):
    """A network that says when its first pass begins, and then waits for an event, though not for long."""

    def __init__(self, inner: nn.Module, begins: threading.Event, until: threading.Event) -> None:
        super().__init__()
        self.inner, self.begins, self.until = inner, begins, until

    def forward(self, x: Tensor) -> Tensor:
        if not self.begins.is_set():
            self.begins.set()
            self.until.wait(0.2)
        return self.inner(x)


class TestThreads:
    """The second thread comes while the first adapts, and would end after it."""

    def images(
        self, networks: Callable[[Callable[[nn.Module], nn.Module]], tuple[nn.Module, nn.Module]]
    ) -> list[Tensor]:
        """Return what both threads find; `networks` makes M_D and M_R of one, of which one is wrapped to wait."""
        first, second, first_is_done = threading.Event(), threading.Event(), threading.Event()
        given = [
            networks(lambda network: Waits(network, first, second)),
            networks(lambda network: Waits(network, second, first_is_done)),
        ]
        found: dict[int, Tensor] = {}

        def run(number: int) -> None:
            found[number] = adapted(*given[number])
            first_is_done.set()

        threads = [threading.Thread(target=run, args=(number,)) for number in (0, 1)]
        threads[0].start()
        assert first.wait(5)
        threads[1].start()
        for thread in threads:
            thread.join()
        return [found[0], found[1]]

    def check(self, images: list[Tensor], *shared: nn.Module) -> None:
        for image in images:
            assert_close(image, adapted(convolution(), convolution()), rtol=0, atol=0)
        for network in shared:
            assert network.training
            assert all(weight.requires_grad and weight.grad is None for weight in network.parameters())
            assert_close(list(network.parameters()), list(convolution().parameters()), rtol=0, atol=0)

    def test_that_share_m_r_leave_it_as_it_was(self) -> None:
        reblur_net = convolution()
        self.check(self.images(lambda wrapped: (wrapped(convolution()), reblur_net)), reblur_net)

    def test_that_share_m_d_each_begin_with_its_own_weights(self) -> None:
        deblur_net = convolution()
        self.check(self.images(lambda wrapped: (deblur_net, wrapped(convolution()))), deblur_net)

    def test_that_share_a_part_alone_wait_too(self) -> None:
        part = convolution()
        self.check(self.images(lambda wrapped: (wrapped(part), convolution())), part)

    def test_one_may_adapt_within_its_own_adaptation(self) -> None:
        deblur_net, reblur_net = convolution(), convolution()
        inner: list[Tensor] = []

        def tick() -> None:
            if not inner:
                inner.append(adapted(convolution(), reblur_net))

        adapted(deblur_net, reblur_net, tick=tick)
        assert len(inner) == 1
