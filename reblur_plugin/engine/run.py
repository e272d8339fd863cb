"""What training and testing have in common: from checked options to a running BasicSR experiment."""

from __future__ import annotations

import logging
import os
import random
import resource
import subprocess
import sys
from datetime import timedelta
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reblur_plugin import __version__
from reblur_plugin.host import basicsr_version, get_root_logger, get_time_str
from reblur_plugin.options.reading import OptionError, Options, write

COLLECTIVE_TIMEOUT = timedelta(hours=2)  # uneven shares of a long validation must not end a run


def start(options: Options, root: Path, is_train: bool, launcher: str) -> Options:
    """Return the options as BasicSR's classes expect them, with processes joined, seeds set and paths filled in.

    Nothing is created on disk.

    Args:
        options: as checked by `checks.check`; not changed.
        root: folder of experiments/, results/ and tb_logger/.
        is_train: training or test.
        launcher: "none", "pytorch" (torchrun) or "slurm" (srun); NCCL with CUDA, else gloo.
    """
    _keep_early_messages()
    opt: Options = {**options, "path": dict(options["path"]), "val": dict(options.get("val") or {})}
    if not is_train:
        opt["val"].setdefault("suffix", None)  # BasicSR's own models read it without asking
    opt["resolved"] = options
    opt |= {"is_train": is_train, "root_path": str(root), "auto_resume": False}
    opt["dist"] = launcher != "none"
    if launcher == "slurm":
        _slurm_to_torchrun()
    opt["num_gpu"] = _gpus(options.get("num_gpu", "auto"), opt["dist"], "train" if is_train else "test")
    opt["rank"], opt["world_size"] = (
        _join(options.get("dist_params") or {}, opt["num_gpu"] > 0) if opt["dist"] else (0, 1)
    )
    if (options.get("train") or {}).get("amp") == "fp16" and is_train and not opt["num_gpu"]:
        get_root_logger().warning("train: amp: fp16 is far slower than float32 on a CPU; use auto, or leave it out")
    torch.backends.cudnn.benchmark = True  # as in BasicSR's pipelines: nearly all images are of one size
    opt["manual_seed"] = options.get("manual_seed", 0)
    seed_everything(opt["manual_seed"] + opt["rank"])
    opt["datasets"] = {name: _dataset(name, block, opt) for name, block in options["datasets"].items()}
    opt["path"] |= _folders(root, opt["name"], is_train)
    return opt


def _keep_early_messages() -> None:
    """Hold what is logged while things are built, until there is a folder for the log file."""
    logger = get_root_logger()
    logger.setLevel(logging.INFO)
    for handler in list(logger.handlers):
        if isinstance(handler, MemoryHandler):
            logger.removeHandler(handler)  # of a run that didn't get that far
        else:
            handler.setLevel(logging.WARNING)
    logger.addHandler(MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False))


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and PyTorch, on all devices, by one number or by several together."""
    seed = numbers[0] if len(numbers) == 1 else int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def open_folders(opt: Options, options: Options, archive: bool) -> logging.Logger:
    """Create the experiment's folders, store the resolved options there, and return the logger.

    Called last, when everything has been built. With `archive` an older experiment of that name moves aside, its
    curves with it.
    """
    main = Path(opt["path"]["experiments_root" if opt["is_train"] else "results_root"])
    moved = None
    try:
        if opt["rank"] == 0:
            if archive:
                moved = _move_aside([main, Path(opt["path"]["tb_logger"])] if opt["is_train"] else [main])
            for folder in {"models", "training_states", "visualization"} & opt["path"].keys():
                Path(opt["path"][folder]).mkdir(parents=True, exist_ok=True)
            write(options, main / f"{opt['name']}.yml")
    except OSError as error:
        raise OptionError(f"{main}: this folder can't be made ({error.strerror}); start somewhere else") from error
    phase = "train" if opt["is_train"] else "test"
    logger = get_root_logger()
    logger.setLevel(logging.INFO if opt["rank"] == 0 else logging.ERROR)
    for shown in logger.handlers:
        shown.setLevel(logging.INFO)
    if opt["rank"] == 0:
        handler = logging.FileHandler(main / f"{phase}_{opt['name']}_{get_time_str()}.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        for early in [early for early in logger.handlers if isinstance(early, MemoryHandler)]:
            early.setTarget(handler)
            early.flush()
            logger.removeHandler(early)
        logger.addHandler(handler)
    if moved:
        logger.info("The older run of this name is in %s now", moved)
    logger.info(
        "reblur_plugin %s, BasicSR %s, PyTorch %s, %s",
        __version__,
        basicsr_version(),
        torch.__version__,
        _device(opt),
    )
    return logger


def memory_in_gib() -> float:
    """Return the most memory that this process has held: the GPU's where there is one, else its own."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def finish(logger: logging.Logger) -> None:
    """Close the log file and leave the process group."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
        handler.close()
        logger.removeHandler(handler)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _slurm_to_torchrun() -> None:
    """Name slurm's numbers as torchrun does. The first node of the job is where processes meet."""
    try:
        nodes = os.environ["SLURM_NODELIST"]
        names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
        os.environ |= {name: os.environ[source] for name, source in names.items()}
    except KeyError as error:
        raise OptionError(f"--launcher slurm: {error.args[0]} isn't set; start with srun") from error
    if "MASTER_ADDR" not in os.environ:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        os.environ["MASTER_ADDR"] = shown.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")


def _gpus(wanted: int | str, is_shared: bool, program: str) -> int:
    """Return how many GPUs are used, in BasicSR's sense: 0 is the CPU, and one process drives one.

    Raises:
        OptionError: if they aren't there.
    """
    available = torch.cuda.device_count()
    if isinstance(wanted, int) and wanted > available and not (is_shared and available):  # srun may show each just one
        raise OptionError(f"num_gpu: expected at most {available} (what this machine has), got {wanted}; use auto")
    used = available if wanted == "auto" else min(int(wanted), available)
    if used > 1 and not is_shared:
        get_root_logger().warning(
            "num_gpu: one of %d GPUs is used; all: torchrun --nproc_per_node %d -m reblur_plugin.%s -opt FILE "
            "--launcher pytorch",
            *(used, used, program),
        )
        return 1
    return used


def _join(dist_params: Options, cuda: bool) -> tuple[int, int]:
    """Meet the other processes; return this one's number and how many there are."""
    if "RANK" not in os.environ:
        raise OptionError(
            "--launcher pytorch: expected to be started by torchrun; use torchrun -m reblur_plugin.train ..."
        )
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    backend = dist_params.get("backend", "nccl") if cuda else "gloo"
    torch.distributed.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def _dataset(name: str, block: dict[str, Any], opt: Options) -> dict[str, Any]:
    block = {"name": name, "seed": opt["manual_seed"], "scale": opt.get("scale", 1), **block}
    return block | {"phase": name.split("_")[0]}


def _folders(root: Path, name: str, is_train: bool) -> dict[str, str]:
    main = root / ("experiments" if is_train else "results") / name
    if not is_train:
        return {"results_root": str(main), "log": str(main), "visualization": str(main / "visualization")}
    return {
        "experiments_root": str(main),
        "models": str(main / "models"),
        "training_states": str(main / "training_states"),
        "log": str(main),
        "visualization": str(main / "visualization"),
        "tb_logger": str(root / "tb_logger" / name),
    }


def _move_aside(folders: list[Path]) -> Path | None:
    """Rename what is there of `folders`, all by one time stamp; return the first one's new name."""
    old = [folder for folder in folders if folder.exists()]
    names = (f"_archived_{get_time_str()}{again}" for again in ["", *(f"_{number}" for number in range(2, 100))])
    ending = next(name for name in names if not any(Path(f"{folder}{name}").exists() for folder in old))
    for folder in old:
        folder.rename(f"{folder}{ending}")
    return Path(f"{old[0]}{ending}") if old else None


def _device(opt: Options) -> str:
    return torch.cuda.get_device_name() if opt["num_gpu"] else f"CPU, {torch.get_num_threads()} threads"
