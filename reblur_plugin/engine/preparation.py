"""What training, test and check have in common: from checked options to something that can run."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import torch

from reblur_plugin import registration
from reblur_plugin.data.images import to_uint8
from reblur_plugin.data.pair_dataset import DeblurPairDataset
from reblur_plugin.engine import experiment, processes
from reblur_plugin.engine.batches import Batches
from reblur_plugin.errors import MetricError, ReblurError
from reblur_plugin.evaluation.scoring import Scorer, first_set
from reblur_plugin.evaluation.values import Measured, needs_own_net, needs_reference
from reblur_plugin.host import get_root_logger
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options import components
from reblur_plugin.options.reading import OptionError, Options, complete, in_iterations, metric_options

Datasets = dict[str, Any]  # by the names of their option blocks


def prepare(options: Options, root: Path, is_train: bool, launcher: str = "none") -> tuple[Options, Datasets]:
    """Return the options as BasicSR's classes expect them (`opt`), and the data sets of the training or the test.

    Classes are registered, processes have met, seeds are set. `opt["resolved"]` holds the options to be stored: all
    values filled in, lengths in iterations. Nothing is created on disk.

    Args:
        options: checked, as from `cli.read_options`; not changed.
        root: folder of experiments/, results/ and tb_logger/.
        is_train: training or test; a test needs no data set `train`.
        launcher: "none", "pytorch" under torchrun, or "slurm" under srun.

    Raises:
        ReblurError: for what is wrong with components, devices or data.
    """
    registration.register()
    if found := components.problems(options):
        raise OptionError("; ".join(found))
    options = complete(options)
    experiment.keep_early_messages()
    opt = _as_basicsr_expects(options, root, is_train)
    opt |= processes.join(options, launcher, "train" if is_train else "test")
    if (options.get("train") or {}).get("amp") == "fp16" and is_train and not opt["num_gpu"]:
        get_root_logger().warning("train: amp: fp16 is far slower than float32 on a CPU; use auto, or leave it out")
    torch.backends.cudnn.benchmark = True  # as in BasicSR's pipelines: nearly all images are of one size
    processes.seed_everything(opt["manual_seed"] + opt["rank"])
    blocks = {name: block for name, block in opt["datasets"].items() if is_train or block["phase"] != "train"}
    if not blocks:
        raise OptionError("datasets: expected a block test_... or val, got none")
    datasets = {name: components.build_dataset(name, block) for name, block in blocks.items()}
    if is_train:
        if wandb_project(opt) and importlib.util.find_spec("wandb") is None:
            raise OptionError("logger: wandb: the package wandb isn't installed; pip install wandb")
        opt |= _of_training(options, datasets, opt["world_size"])
    return opt, datasets


def _as_basicsr_expects(options: Options, root: Path, is_train: bool) -> Options:
    """Return `options` with all that BasicSR's classes read from them."""
    seed = options.get("manual_seed", 0)
    common = {"seed": seed, "scale": options.get("scale", 1)}
    datasets = {
        name: {"name": name, **common, **block, "phase": name.split("_")[0]}
        for name, block in options["datasets"].items()
    }
    val = options.get("val") or {}
    return {
        **options,
        "resolved": options,
        "is_train": is_train,
        "root_path": str(root),
        "auto_resume": False,
        "manual_seed": seed,
        "datasets": datasets,
        "val": dict(val) if is_train else {"suffix": None, **val},  # BasicSR's own models read it without asking
        "path": {**options["path"], **experiment.folders(root, options["name"], is_train)},
    }


def _of_training(options: Options, datasets: Datasets, world_size: int) -> Options:
    """Return what the data decide: lengths in iterations, what checkpoints say of them, what was validated on."""
    dataset = datasets["train"]
    resolved = in_iterations(options, len(dataset), world_size)
    found = {"train": resolved["train"], "resolved": resolved}
    found["validated"] = {
        other.opt["name"]: other.fingerprint() if isinstance(other, DeblurPairDataset) else str(len(other))
        for name, other in datasets.items()
        if name != "train"
    }
    if isinstance(dataset, DeblurPairDataset):
        found |= {"data_fingerprint": dataset.fingerprint(), "blur_kind": dataset.blur_kind}
    return found


def wandb_project(opt: Options) -> str | None:
    """Return the project of Weights & Biases that gets the curves, None without one."""
    return (opt["logger"].get("wandb") or {}).get("project") if opt["logger"]["use_tb_logger"] else None


def try_out(opt: Options, model: Any, batches: Batches, validated: Iterable[Any]) -> None:
    """Try what would end a training early before it has made anything: metrics, data, M_D on them.

    Raises:
        ReblurError: for what can't be used.
    """
    try_all_metrics(opt, validated)
    first = batches.first()
    if isinstance(model, ReblurModel):
        model.deblur(first["lq"][:1])


def try_all_metrics(opt: Options, datasets: Iterable[Any]) -> None:
    """Compute every metric on the first image of each data set, in the first process: a failure must show early.

    Raises:
        ReblurError: if a metric can't be computed or an image can't be read.
    """
    if opt["val"] and opt["rank"] == 0:
        for dataset in datasets:
            try_metrics(dataset, opt)


def try_metrics(dataset: Any, opt: dict[str, Any]) -> None:
    """Compute every metric once, on the first image: what a metric lacks must show before a long run, not after it.

    Raises:
        ReblurError: if a metric can't be computed or the image can't be read.
    """
    item = dataset[0]
    blurry = to_uint8(item["lq"])
    sharp = to_uint8(item["gt"]) if "gt" in item else None
    _check_best(opt, dataset.opt["name"], sharp is not None)
    for name, options in metric_options(opt).items():
        if opt.get("network_r") and needs_own_net(options):
            continue
        try:
            scores = Scorer({name: options}, torch.device("cpu"), None, 0).begin(Measured(blurry, sharp)).result()
        except ReblurError:
            raise
        except (TypeError, ValueError, LookupError, ArithmeticError, AssertionError, cv2.error) as error:
            raise MetricError(
                f"val: metrics: {name}: {options['type']} failed on {item['lq_path']}: {error}"
            ) from error
        if name in scores and math.isnan(scores[name]) and needs_reference(options["type"]):
            height, width = blurry.shape[:2]
            raise MetricError(
                f"val: metrics: {name}: expected a number, got nan on {item['lq_path']} of {width}x{height} pixels; "
                "lower crop_border or use larger images"
            )


def _check_best(opt: dict[str, Any], set_name: str, has_sharp: bool) -> None:
    best = opt["val"].get("best") if opt["is_train"] and set_name == first_set(opt) else None
    if best and not has_sharp and needs_reference(metric_options(opt)[best]["type"]):
        raise MetricError(
            f"val: best: {best} needs sharp images, and {set_name}, the first validation set, by which the best "
            "networks are chosen, has none; put a set with sharp images first"
        )
