"""The processes of a run: how they meet, which devices they use, their random numbers and their memory."""

from __future__ import annotations

import os
import random
import subprocess
from datetime import timedelta

import numpy as np
import torch

from reblur_plugin.core import memory
from reblur_plugin.host import get_root_logger
from reblur_plugin.options.reading import OptionError, Options

COLLECTIVE_TIMEOUT = timedelta(hours=2)  # uneven shares of a long validation must not end a run


def join(options: Options, launcher: str, program: str) -> Options:
    """Return `dist`, `num_gpu`, `rank` and `world_size` as BasicSR's classes expect them; the processes have met then.

    `num_gpu` is how many GPUs are used: 0 is the CPU, and one process uses one GPU.

    Args:
        options: `num_gpu` and `dist_params` are read.
        launcher: "none", "pytorch" (torchrun) or "slurm" (srun); NCCL with CUDA, else gloo.
        program: "train" or "test", for the command in a warning.

    Raises:
        OptionError: if the launcher hasn't set its variables, or if `num_gpu` asks for more GPUs than there are.
    """
    if launcher == "slurm":
        slurm_to_torchrun()
    dist = launcher != "none"
    gpus = _gpus(options.get("num_gpu", "auto"), dist, program)
    rank, world_size = _meet(options.get("dist_params") or {}, gpus > 0) if dist else (0, 1)
    return {"dist": dist, "num_gpu": gpus, "rank": rank, "world_size": world_size}


def slurm_to_torchrun() -> None:
    """Set torchrun's variables from slurm's. The processes meet on the first node of the job."""
    try:
        nodes = os.environ["SLURM_NODELIST"]
        count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in os.environ else "SLURM_NTASKS"
        names = {"RANK": "SLURM_PROCID", "WORLD_SIZE": count, "LOCAL_RANK": "SLURM_LOCALID"}
        os.environ |= {name: os.environ[source] for name, source in names.items()}
    except KeyError as error:
        raise OptionError(f"--launcher slurm: {error.args[0]} isn't set; start with srun") from error
    if "MASTER_ADDR" not in os.environ:
        shown = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        os.environ["MASTER_ADDR"] = shown.stdout.split()[0]
    os.environ.setdefault("MASTER_PORT", "29500")


def _gpus(wanted: int | str, dist: bool, program: str) -> int:
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto" and not available and torch.cuda.device_count():
        said = "num_gpu: there is a GPU that PyTorch can't use, so the CPU computes; update its driver"
        get_root_logger().warning(said)
    if isinstance(wanted, int) and wanted > available and not (dist and available):  # srun may show each just one
        raise OptionError(f"num_gpu: expected at most {available} (what this machine has), got {wanted}; use auto")
    used = available if wanted == "auto" else min(int(wanted), available)
    if used > 1 and not dist:
        get_root_logger().warning(
            "num_gpu: one of %d GPUs is used; all: torchrun --nproc_per_node %d -m reblur_plugin.%s -opt FILE",
            *(used, used, program),
        )
        return 1
    return used


def _meet(dist_params: Options, cuda: bool) -> tuple[int, int]:
    """Return this process's number and how many there are, once all have started."""
    if not torch.distributed.is_available():
        raise OptionError("--launcher: expected a PyTorch that knows several processes, got one without; use none")
    if "RANK" not in os.environ:
        raise OptionError(
            "--launcher pytorch: expected to be started by torchrun; use torchrun -m reblur_plugin.train ..."
        )
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    fastest = "nccl" if cuda and torch.distributed.is_nccl_available() else "gloo"  # Windows has no NCCL
    backend = dist_params.get("backend", fastest) if cuda else "gloo"
    torch.distributed.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def leave() -> None:
    """Leave the process group, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def seed_everything(*numbers: int) -> None:
    """Seed Python, NumPy and PyTorch, on all devices, with one number or with several together."""
    seed = numbers[0] % 2**32 if len(numbers) == 1 else int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def memory_in_gib() -> float | None:
    """Return the most memory that this process has held: the GPU's if one is used, else its own, if the system says."""
    most = torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else memory.most_held()
    return None if most is None else most / 2**30
