"""What two processes (gloo) tell each other in a step: each network's gradient once, and nothing else.

PyTorch's profiler sees every collective, also those that its own C++ code starts.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reblur_plugin

ORDERS = ["reblur_first", "deblur_first"]
FLOAT = 4  # bytes
STEPS = 3  # in the second one PyTorch agrees once upon the order of the gradients


def options(order: str, accumulate: int, is_distributed: bool, rank: int = 0) -> dict[str, Any]:
    descent = {"type": "SGD", "lr": 0.05}
    return {
        "is_train": True,
        "dist": is_distributed,
        "rank": rank,
        "world_size": 2,
        "num_gpu": 0,
        "path": {},
        "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 5, 6]},
        "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
        "train": {
            "optim_g": descent,
            "optim_r": descent,
            "scheduler": {"type": "MultiStepLR", "milestones": [9], "gamma": 0.5},
            "pixel_opt": {"type": "MultiScaleL1Loss"},
            "reblur_opt": {"order": order},
            "accumulate": accumulate,
            "ema_decay": 0.9,
            "grad_clip": 10.0,
        },
    }


def model_of(order: str, accumulate: int, is_distributed: bool, rank: int = 0) -> Any:
    reblur_plugin.register()
    from reblur_plugin.models.reblur_model import ReblurModel

    torch.manual_seed(1)
    return ReblurModel(options(order, accumulate, is_distributed, rank))


def batch(iteration: int) -> dict[str, torch.Tensor]:
    chance = torch.Generator().manual_seed(iteration)
    return {key: torch.rand(8, 3, 16, 16, generator=chance) for key in ("lq", "gt")}


def in_one_process(rank: int, port: int, folder: str) -> None:
    """Train in every order with half of each batch; note the last step's collectives and the weights."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    found: dict[str, Any] = {}
    for order in ORDERS:
        for accumulate in (1, 2):
            model = model_of(order, accumulate, True, rank)
            for iteration in range(1, STEPS + 1):
                model.feed_data({key: images[4 * rank : 4 * rank + 4] for key, images in batch(iteration).items()})
                watched = torch.profiler.profile(record_shapes=True) if iteration == STEPS else nullcontext()
                with watched as profile:
                    model.update_learning_rate(iteration)
                    model.optimize_parameters(iteration)
                    model.check()  # as before saving
            events = [event for event in profile.events() if event.name.startswith(("gloo:", "c10d::", "nccl:"))]
            found[f"{order} {accumulate}"] = {
                "started": [event.name for event in events if event.name.startswith("c10d::")],
                "done": [(event.name, event.input_shapes) for event in events if event.name.startswith("gloo:")],
                "weights": [
                    weight.tolist() for network in (model.net_g, model.net_r) for weight in network.parameters()
                ],
            }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("exchange")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(in_one_process, (port, str(folder)), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="gloo's events are seen on Linux")
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("order", ORDERS)
class TestAStep:
    def test_exchanges_each_networks_gradient_once_and_nothing_else(
        self, found: list[dict[str, Any]], order: str, accumulate: int
    ) -> None:
        model = model_of(order, accumulate, False)
        sizes = [sum(weight.numel() for weight in network.parameters()) for network in (model.net_g, model.net_r)]
        for process in found:
            seen = process[f"{order} {accumulate}"]
            assert seen["started"] == ["c10d::allreduce_"] * 2
            assert {name for name, _ in seen["done"]} == {"gloo:all_reduce"}
            moved = [FLOAT * sum(torch.Size(shape).numel() for shape in shapes) for _, shapes in seen["done"]]
            assert sorted(moved) == sorted(FLOAT * size for size in sizes)

    def test_is_that_of_one_process_with_the_whole_batch(
        self, found: list[dict[str, Any]], order: str, accumulate: int
    ) -> None:
        model = model_of(order, 1, False)
        for iteration in range(1, STEPS + 1):
            model.feed_data(batch(iteration))
            model.optimize_parameters(iteration)
        networks: list[nn.Module] = [model.net_g, model.net_r]
        expected = [weight.detach() for network in networks for weight in network.parameters()]
        for process in found:
            weights = [torch.tensor(values) for values in process[f"{order} {accumulate}"]["weights"]]
            torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)
