"""ReblurModel's step saves passes and gradients; the plain step, written out here, gives the same gradients."""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import reblur_plugin
from reblur_plugin import host
from reblur_plugin.archs.dmphn_arch import DHN
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.archs.srn_arch import SRN
from reblur_plugin.errors import ReblurError

host.prepare()
reblur_plugin.register()

from reblur_plugin.models import joint_training  # noqa: E402 - after host.prepare()
from reblur_plugin.models.reblur_model import ReblurModel  # noqa: E402 - after host.prepare()

ORDERS = ["reblur_first", "deblur_first", "simultaneous"]
NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "ResUNet": (ResUNet, {"num_blocks": 1, "num_feats": (4, 6, 8)}),
    "SRN": (SRN, {"num_feats": (4, 6, 8)}),
    "DHN": (DHN, {"num_feats": (4, 6, 8)}),
}
REBLUR_NET = {"num_blocks": 2, "num_feat": 4}
# The sum over a batch is formed in parts, or in another memory layout.
ROUNDING = {"rtol": 1e-4, "atol": 1e-7}
RATE = 0.05  # plain descent: a step of another size or a gradient at other weights shows
LAMBDA, SHARP = 0.5, 0.25  # not 1, so that a weight at the wrong place shows


@pytest.fixture(params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def images() -> dict[str, Tensor]:
    return {"lq": torch.rand(4, 3, 16, 16), "gt": torch.rand(4, 3, 16, 16)}


def options(name: str, order: str, **train: Any) -> dict[str, Any]:
    descent = {"type": "SGD", "lr": RATE}
    reblur = {"loss_weight": LAMBDA, "sharp_weight": SHARP, "order": order}
    opt = {"is_train": True, "dist": False, "rank": 0, "world_size": 1, "num_gpu": 0, "path": {}}
    return opt | {
        "network_g": {"type": name, **NETWORKS[name][1]},
        "network_r": {"type": "ReblurNet", **REBLUR_NET},
        "train": {
            "optim_g": descent,
            "optim_r": descent,
            "scheduler": {"type": "MultiStepLR", "milestones": [100], "gamma": 0.5},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": reblur,
            **train,
        },
    }


def trained(opt: dict[str, Any], images: dict[str, Tensor], iterations: int = 2) -> ReblurModel:
    torch.manual_seed(1)
    model = ReblurModel(copy.deepcopy(opt))
    for iteration in range(1, iterations + 1):
        model.feed_data(images)
        model.optimize_parameters(iteration)
    return model


def gradients(model: ReblurModel) -> list[Tensor]:
    return [weight.grad for network in (model.net_g, model.net_r) for weight in network.parameters()]


def weights(*networks: nn.Module) -> list[Tensor]:
    return [weight.detach() for network in networks for weight in network.parameters()]


def plain(
    name: str, order: str, images: dict[str, Tensor], iterations: int = 2, dtype: torch.dtype | None = None
) -> tuple[nn.Module, nn.Module]:
    """Return M_D and M_R after some iterations: each gradient by itself from its loss, by nothing that is shared."""
    torch.manual_seed(1)
    kind, arguments = NETWORKS[name]
    deblur_net, reblur_net = kind(**arguments), ReblurNet(**REBLUR_NET)
    blurry, sharp = images["lq"], images["gt"]

    def low() -> torch.autocast:
        return torch.autocast("cpu", dtype=dtype, enabled=dtype is not None)

    def deblurred(image: Tensor) -> list[Tensor]:
        with low():
            output = deblur_net(image)
        return [output] if isinstance(output, Tensor) else output

    def deblur_loss() -> Tensor:
        scales = deblurred(blurry)
        l_1 = sum(
            F.l1_loss(scale, F.interpolate(sharp, size=scale.shape[-2:], mode="bilinear") if index else sharp)
            for index, scale in enumerate(scales)
        )
        with low():
            return l_1 + LAMBDA * F.l1_loss(reblur_net(scales[0]), reblur_net(sharp))

    def reblur_loss(image: Tensor) -> Tensor:
        pseudo_sharp = deblurred(sharp)[0].detach()
        with low():
            l_blur = F.l1_loss(reblur_net(image), blurry)
            torch.clear_autocast_cache()  # at one cast of the weights both gradients would be added in bf16
            return l_blur + SHARP * F.l1_loss(reblur_net(pseudo_sharp), pseudo_sharp)

    def gradient(loss: Tensor, network: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, tuple(network.parameters()))

    def descend(network: nn.Module, gradient: tuple[Tensor, ...]) -> None:
        with torch.no_grad():
            for weight, slope in zip(network.parameters(), gradient, strict=True):
                weight.add_(slope, alpha=-RATE)

    for _ in range(iterations):
        image = deblurred(blurry)[0].detach()  # with deblur_first L_Blur sees L from before M_D's update (D9)
        if order == "reblur_first":
            descend(reblur_net, gradient(reblur_loss(image), reblur_net))
            descend(deblur_net, gradient(deblur_loss(), deblur_net))
        elif order == "deblur_first":
            descend(deblur_net, gradient(deblur_loss(), deblur_net))
            descend(reblur_net, gradient(reblur_loss(image), reblur_net))
        else:
            both = gradient(deblur_loss(), deblur_net), gradient(reblur_loss(image), reblur_net)
            descend(deblur_net, both[0])
            descend(reblur_net, both[1])
    return deblur_net, reblur_net


class TestAgainstThePlainStep:
    @pytest.mark.parametrize("order", ORDERS)
    def test_float32_weights_are_equal_bit_for_bit(self, name: str, order: str, images: dict[str, Tensor]) -> None:
        model = trained(options(name, order), images)
        expected = weights(*plain(name, order, images))
        assert all(map(torch.equal, weights(model.net_g, model.net_r), expected))

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("train", [{"channels_last": True}, {"accumulate": 2}, {"accumulate": 4}], ids=str)
    def test_other_layouts_and_parts_differ_by_rounding(
        self, name: str, order: str, images: dict[str, Tensor], train: dict[str, Any]
    ) -> None:
        model = trained(options(name, order, **train), images, iterations=1)
        expected = weights(*plain(name, order, images, iterations=1))
        torch.testing.assert_close(weights(model.net_g, model.net_r), expected, **ROUNDING)

    def test_the_orders_are_different(self, images: dict[str, Tensor]) -> None:
        found = [weights(*plain("ResUNet", order, images)) for order in ORDERS]
        for a, b in ((0, 1), (0, 2), (1, 2)):
            assert any(not torch.equal(*pair) for pair in zip(found[a], found[b], strict=True))


class TestSharedPass:
    def test_a_loss_that_is_not_finite_is_noticed(
        self, images: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shared = joint_training.blur_and_reblur_loss
        monkeypatch.setattr(
            joint_training, "blur_and_reblur_loss", lambda *given: (shared(*given)[0], shared(*given)[1] * torch.nan)
        )
        monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: None)  # weights stay finite
        model = trained(options("ResUNet", "simultaneous"), images, iterations=1)
        with pytest.raises(ReblurError, match="loss: expected finite numbers, got nan or infinity since iteration 1"):
            model.check()

    def test_gradients_are_taken_outside_autocast(
        self, images: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        enabled = []
        gradient = torch.autograd.grad
        monkeypatch.setattr(
            torch.autograd,
            "grad",
            lambda *given, **named: (enabled.append(torch.is_autocast_enabled("cpu")), gradient(*given, **named))[1],
        )
        trained(options("ResUNet", "simultaneous", amp="bf16"), images, iterations=1)
        assert enabled == [False]


class TestMixedPrecision:
    @pytest.mark.parametrize("order", ORDERS)
    def test_bf16_weights_are_equal_bit_for_bit(self, name: str, order: str, images: dict[str, Tensor]) -> None:
        found = trained(options(name, order, amp="bf16"), images)
        expected = weights(*plain(name, order, images, dtype=torch.bfloat16))
        assert all(map(torch.equal, weights(found.net_g, found.net_r), expected))

    @pytest.mark.parametrize("order", ORDERS)
    def test_parts_of_a_batch_have_gradients_too(self, order: str, images: dict[str, Tensor]) -> None:
        model = trained(options("ResUNet", order, amp="bf16", accumulate=2), images, iterations=1)
        exact = trained(options("ResUNet", order), images, iterations=1)
        for network in ("net_g", "net_r"):
            found, expected = (
                torch.cat([weight.grad.flatten() for weight in getattr(trainee, network).parameters()])
                for trainee in (model, exact)
            )
            assert (found - expected).norm() < 0.05 * expected.norm()

    @pytest.mark.parametrize("order", ORDERS)
    def test_weights_are_cast_once_between_two_updates(self, order: str, images: dict[str, Tensor]) -> None:
        torch.manual_seed(1)
        model = ReblurModel(options("ResUNet", order, amp="bf16"))
        labels = {
            weight.data_ptr(): label
            for label, network in (("M_D", model.net_g), ("M_R", model.net_r))
            for weight in network.parameters()
        }
        casts: list[int] = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in labels:
                    casts.append(args[0].data_ptr())
                return func(*args, **(kwargs or {}))

        model.feed_data(images)
        with Watch():
            model.optimize_parameters(1)
        # In an update of its own M_D sees M_R held, whose casts aren't kept: M_R(L) and M_R(S).
        expected = {"M_D": 1 if order != "deblur_first" else 2, "M_R": 1 if order == "simultaneous" else 3}
        assert {pointer: casts.count(pointer) for pointer in labels} == {
            pointer: expected[label] for pointer, label in labels.items()
        }

    def test_each_loss_has_the_scale_of_the_network_that_it_moves(self, images: dict[str, Tensor]) -> None:
        opt = options("ResUNet", "simultaneous", amp="fp16")
        torch.manual_seed(1)
        model = ReblurModel(opt)
        model.updaters["g"].scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        model.feed_data(images)
        model.optimize_parameters(1)
        exact = gradients(trained(options("ResUNet", "simultaneous"), images, iterations=1))
        for found, expected in zip(gradients(model), exact, strict=True):
            assert (found - expected).norm() < 0.05 * expected.norm()  # another scale would be 512 times as far


class TestPasses:
    """What is computed: passes of each network with and without a graph, and gradients for M_R's weights."""

    @pytest.fixture
    def passes(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[type, bool], int]:
        counts: dict[tuple[type, bool], int] = {}

        def counting(kind: type[nn.Module], forward: Callable[..., Any]) -> Callable[..., Any]:
            def counted(self: nn.Module, *arguments: Any) -> Any:
                key = (kind, torch.is_grad_enabled())
                counts[key] = counts.get(key, 0) + 1
                return forward(self, *arguments)

            return counted

        for kind in (ResUNet, ReblurNet):
            monkeypatch.setattr(kind, "forward", counting(kind, kind.forward))
        return counts

    @pytest.mark.parametrize(("order", "with_graph"), [("reblur_first", 3), ("deblur_first", 3), ("simultaneous", 2)])
    def test_no_pass_and_no_graph_is_needless(
        self, passes: dict[tuple[type, bool], int], images: dict[str, Tensor], order: str, with_graph: int
    ) -> None:
        trained(options("ResUNet", order), images, iterations=1)
        # M_D: L with a graph, S_hat without; M_R: S without, L once or twice and S_hat with a graph
        expected = {(ResUNet, True): 1, (ResUNet, False): 1, (ReblurNet, True): with_graph, (ReblurNet, False): 1}
        assert passes == expected

    @pytest.mark.parametrize("without", [{"sharp_weight": 0.0}, {"sharp_reference": "none"}], ids=str)
    @pytest.mark.parametrize("order", ORDERS)
    def test_without_l_sharp_no_pass_is_made_for_it(
        self, passes: dict[tuple[type, bool], int], images: dict[str, Tensor], order: str, without: dict[str, Any]
    ) -> None:
        opt = options("ResUNet", order)
        opt["train"]["reblur_opt"] |= without
        assert "l_r_sharp" not in trained(opt, images, iterations=1).log_dict
        with_graph = 1 if order == "simultaneous" else 2
        assert passes == {(ResUNet, True): 1, (ReblurNet, True): with_graph, (ReblurNet, False): 1}

    @pytest.mark.parametrize("order", ORDERS)
    def test_m_r_gets_weight_gradient_of_its_own_loss_alone(
        self, images: dict[str, Tensor], order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weight_gradients = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func is torch.ops.aten.convolution_backward.default:
                    size, wants_weight = tuple(args[2].shape), args[-1][1]
                    weight_gradients.append(wants_weight and size == (5, 3, 5, 5))
                return func(*args, **(kwargs or {}))

        monkeypatch.setitem(REBLUR_NET, "num_feat", 5)  # its first layer's shape occurs nowhere else
        model = ReblurModel(options("ResUNet", order))
        model.feed_data(images)
        with Watch():
            model.optimize_parameters(1)
        assert sum(weight_gradients) == 2  # of L_Blur and L_Sharp; L_Reblur's would be a third

    @pytest.mark.parametrize("order", ORDERS)
    def test_m_r_remembers_one_pass_at_a_time(
        self, images: dict[str, Tensor], order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        remembered: list[weakref.ref[Tensor]] = []
        alive: list[int] = []
        forward = ReblurNet.forward

        def watched(self: ReblurNet, image: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return forward(self, image)
            alive.append(sum(output() is not None for output in remembered))
            inner = self.head(image - 0.5)
            remembered.append(weakref.ref(inner))
            return self.tail(self.body(inner)) + 0.5

        monkeypatch.setattr(ReblurNet, "forward", watched)
        trained(options("ResUNet", order), images, iterations=1)
        assert alive == [0] * (2 if order == "simultaneous" else 3)


class TestCompiled:
    @pytest.fixture(autouse=True)
    def quick_backend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Translate without a C compiler: the graph and its gradients are traced as for any backend."""
        torch._dynamo.reset()
        monkeypatch.setenv("CXX", sys.executable)  # found, never run
        monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="aot_eager"))

    @pytest.mark.parametrize("order", ORDERS)
    def test_takes_the_same_step(self, images: dict[str, Tensor], order: str) -> None:
        compiled = trained(options("ResUNet", order, compile=True), images)
        expected = trained(options("ResUNet", order), images)
        torch.testing.assert_close(
            weights(compiled.net_g, compiled.net_r), weights(expected.net_g, expected.net_r), **ROUNDING
        )

    def test_compiles_all_but_an_m_r_whose_graph_serves_twice(self, images: dict[str, Tensor]) -> None:
        for order, expected in (("reblur_first", True), ("simultaneous", False)):
            model = ReblurModel(options("ResUNet", order, compile=True))
            assert model.net_g._compiled_call_impl is not None
            assert (model.net_r._compiled_call_impl is not None) is expected
        assert ReblurModel(options("ResUNet", "reblur_first")).net_g._compiled_call_impl is None

    def test_without_a_compiler_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        monkeypatch.setenv("CXX", "my-c++ -O1")
        with pytest.raises(ReblurError, match=r"train: compile: expected a C\+\+ compiler, found no my-c\+\+; install"):
            ReblurModel(options("ResUNet", "reblur_first", compile=True))
        monkeypatch.setattr("shutil.which", lambda name: "there" if name == "my-c++" else None)
        ReblurModel(options("ResUNet", "reblur_first", compile=True))
        monkeypatch.delenv("CXX")
        with pytest.raises(ReblurError, match="train: compile: expected a C"):  # PyTorch looks for the usual one alone
            ReblurModel(options("ResUNet", "reblur_first", compile=True))

    def test_names_of_weights_stay(self) -> None:
        compiled = ReblurModel(options("ResUNet", "reblur_first", compile=True))
        plain_model = ReblurModel(options("ResUNet", "reblur_first"))
        for network in ("net_g", "net_r"):
            state = getattr(compiled, network).state_dict()
            assert list(state) == list(getattr(plain_model, network).state_dict())
            getattr(plain_model, network).load_state_dict(state)

    def test_photographs_are_deblurred_uncompiled(
        self, images: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = trained(options("ResUNet", "reblur_first", compile=True), images, iterations=1)
        frames = torch._dynamo.utils.counters["frames"]["total"]
        deblurred = model.deblur(torch.rand(1, 3, 20, 36))
        model.reblur(deblurred)
        assert torch._dynamo.utils.counters["frames"]["total"] == frames > 0
