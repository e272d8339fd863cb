"""Option files of a reproduction's trainings and tests, and about how long each takes on one core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reproduction.jobs import Job

Options = dict[str, Any]
Sharp = Literal["none", "pseudo", "real"]

# Networks: what the option file says, and seconds of a pass over 1000 pixels on one core without bf16
_NARROW = {"type": "ResUNet", "num_blocks": 4, "num_feats": [24, 48, 72], "global_skip": True}
NETWORKS: dict[str, tuple[Options, float]] = {
    "narrow": (_NARROW, 0.0021),
    "small": (_NARROW | {"num_blocks": 6}, 0.0026),
    "dhn": ({"type": "DHN", "upsample": "deconv"}, 0.028),
    "dmphn": ({"type": "DMPHN", "upsample": "deconv"}, 0.028),
    "unet": ({"type": "ResUNet", "num_blocks": 8, "upsample": "pixelshuffle"}, 0.013),
}
_LEARNING = 3.5  # passes that a pass with its gradient is worth
_START = 4.0  # seconds
# The weight of L_Sharp over a training, which mustn't come early (D10)
_QUARTER = [(0.0, 0.25), (1.0, 0.25)]
_LATE = [(0.4, 0.0), (0.45, 0.25), (1.0, 0.25)]


@dataclass(frozen=True)
class Reblurring:
    """An M_R: its blocks (n1, n2), its channels, and by which sharp images L_Sharp trains it."""

    blocks: int = 2
    channels: int = 16
    sharp: Sharp = "pseudo"
    global_skip: bool = True

    @property
    def network(self) -> Options:
        """Its block in an option file."""
        return {
            "type": "ReblurNet",
            "num_blocks": self.blocks,
            "num_feat": self.channels,
            "global_skip": self.global_skip,
        }

    @property
    def cost(self) -> float:
        """Seconds of a pass over 1000 pixels."""
        return 0.0006 * self.blocks * (self.channels / 16) ** 1.7


@dataclass(frozen=True)
class Weights:
    """Weights of an M_D and an M_R, and the jobs that make them.

    Attributes:
        network: M_D, of `NETWORKS`.
        deblurring: its checkpoint; empty: none yet.
        reblurring: M_R; None: none.
        reblurring_file: its checkpoint; empty: none yet.
        needs: names of jobs.
    """

    network: str
    deblurring: str = ""
    reblurring: Reblurring | None = None
    reblurring_file: str = ""
    needs: tuple[str, ...] = ()

    @property
    def path(self) -> Options:
        """The block `path` of an option file."""
        files = {"pretrain_network_g": self.deblurring, "pretrain_network_r": self.reblurring_file}
        return {key: file for key, file in files.items() if file}


@dataclass(frozen=True)
class Length:
    """How a network is trained: seed, iterations, patches of a batch, and pixels on a side of each."""

    seed: int
    iterations: int
    patches: int
    size: int


def reblur_alone(name: str, start: Weights, length: Length) -> Job:
    """Return the training of an M_R on the results of an M_D that stays as it is (Table 1; D25).

    An M_R with weights has been trained by L_Blur alone; for others L_Sharp comes late.
    """
    assert start.reblurring
    network, cost = NETWORKS[start.network]
    sharp, own = start.reblurring.sharp, start.reblurring.cost
    train = {
        "freeze_deblur_net": True,
        "optim_r": {"type": "Adam", "lr": 1e-3 if start.reblurring_file else 2e-3},
        "reblur_opt": _reblur(start, length.iterations),
    }
    networks = {"network_g": network, "network_r": start.reblurring.network}
    passes = cost + _LEARNING * own
    if sharp != "none":
        passes += _LEARNING * own + (cost if sharp == "pseudo" else 0)
    return Job(name, "train", _training(start, length, networks, train), _cost(length, passes), start.needs)


def joint(name: str, start: Weights, length: Length, rate: float, adversarial: bool = False) -> Job:
    """Return the training of an M_D by L1; with an M_R by L1 + L_Reblur (Eq. 6), with `adversarial` by L_Adv too."""
    network, cost = NETWORKS[start.network]
    networks: Options = {"network_g": network}
    train: Options = {
        "ema_decay": 0.99,
        "optim_g": {"type": "Adam", "lr": rate},
        "pixel_opt": {"type": "MultiScaleL1Loss"},
    }
    passes = _LEARNING * cost
    if start.reblurring:
        networks["network_r"] = start.reblurring.network
        train["optim_r"] = {"type": "Adam", "lr": 2e-4 if start.reblurring_file else 8e-4}
        train["reblur_opt"] = {"loss_weight": 1.0, **_reblur(start, length.iterations)}
        passes += (cost if start.reblurring.sharp == "pseudo" else 0) + 3 * _LEARNING * start.reblurring.cost
    if adversarial:
        networks["network_d"] = {"type": "ReblurDiscriminator"}
        train["optim_d"] = {"type": "Adam", "lr": 1e-4}
        train["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.001}
        passes += 0.004
    return Job(name, "train", _training(start, length, networks, train), _cost(length, passes), start.needs)


def test(
    name: str,
    weights: Weights,
    sets: Mapping[str, Options],
    pixels: float,
    metrics: Options,
    tta: Options | None = None,
) -> Job:
    """Return the test of an M_D; with an M_R also what that does to L, with `tta` also adapted images.

    Args:
        name: of the job.
        weights: of both networks.
        sets: layout and folder of each data set by name.
        pixels: thousands of pixels of all images.
        metrics: option blocks by name.
        tta: options of adaptation.
    """
    network, cost = NETWORKS[weights.network]
    val: Options = {"save_img": True, "input_metrics": True, "metrics": metrics}
    options: Options = {
        "model_type": "ReblurModel",
        "num_gpu": "auto",
        "datasets": {
            f"test_{key}": {"name": key, "type": "DeblurPairDataset", **folder} for key, folder in sets.items()
        },
        "network_g": network,
        "path": weights.path,
        "val": val,
    }
    passes = cost + 0.01  # metrics
    if weights.reblurring:
        options["network_r"] = weights.reblurring.network
        val["reblurred"] = True
        val["metrics"] = metrics | {"left": {"type": "reblurability"}}
        passes += 5 * weights.reblurring.cost
    if tta is not None and weights.reblurring:
        val |= {"tta": tta, "adapted_steps": [1, 3]}
        passes += tta["steps"] * _LEARNING * (cost + weights.reblurring.cost) + 3 * (0.005 + weights.reblurring.cost)
    return Job(name, "test", options, _START + pixels * passes, weights.needs)


def pairs_in(folder: str) -> Options:
    """Return the keys of a data set in GOPRO's layout."""
    return {"layout": "gopro", "dataroot": folder, "blur_key": "blur"}


def _training(start: Weights, length: Length, networks: Options, train: Options) -> Options:
    """Return a training's options; short ones need what the paper doesn't (D12)."""
    count = length.iterations
    scheduler = {"type": "MultiStepLR", "milestones": [count * 7 // 10, count * 9 // 10], "gamma": 0.3}
    shared = {"warmup_iter": min(50, count // 10), "grad_clip": 0.2, "amp": "auto", "channels_last": True}
    return {
        "model_type": "ReblurModel",
        "manual_seed": length.seed,
        "num_gpu": "auto",
        "datasets": {
            "train": {
                "type": "DeblurPairDataset",
                "layout": "packed",
                "dataroot": "data/packed",
                "augment": "flip",
                "gt_size": length.size,
                "batch_size_per_gpu": length.patches,
                "num_worker_per_gpu": 0,
            }
        },
        **networks,
        "path": start.path,
        "train": {"total_iter": count, "scheduler": scheduler, **shared, **train},
        "logger": {
            "print_freq": max(1, count // 50),
            "save_checkpoint_freq": max(1, count // 5),
            "keep_checkpoints": 1,
        },
    }


def _reblur(start: Weights, iterations: int) -> Options:
    """Return the block of L_Blur and L_Sharp."""
    assert start.reblurring
    if start.reblurring.sharp == "none":
        return {"sharp_reference": "none"}
    knots = _QUARTER if start.reblurring_file else _LATE
    schedule = [[round(part * iterations), weight] for part, weight in knots]
    return {"sharp_reference": start.reblurring.sharp, "sharp_weight": schedule}


def _cost(length: Length, passes: float) -> float:
    return _START + length.iterations * length.patches * length.size**2 / 1000 * passes
