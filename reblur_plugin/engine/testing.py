"""The test loop: every test set through M_D, adapted where the options ask for it, scored and shown."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm

from reblur_plugin import __version__, registration
from reblur_plugin.engine import run
from reblur_plugin.evaluation.journal import Journal
from reblur_plugin.evaluation.scoring import try_metrics, with_directions
from reblur_plugin.host import build_model
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options.components import build_dataset, check_components
from reblur_plugin.options.reading import OptionError, Options, complete

_TRIAL = 256  # pixels on a side of what is deblurred before a folder is touched


def test(options: Options, root: Path, launcher: str = "none") -> bool:
    """Test by checked options: pictures, a log and tables for each data set in results/NAME.

    A test that was interrupted or killed goes on when it is started again with the same options, checkpoints and data;
    otherwise an older results/NAME moves aside.

    Args:
        options: from `reading.read` and `checks.check`.
        root: folder that gets results/.
        launcher: "none", "pytorch" under torchrun, or "slurm" under srun.

    Returns:
        Whether it ran to its end (False: interrupted).

    Raises:
        ReblurError: for everything that is wrong with options, data or checkpoints, before anything is created.
    """
    registration.register()
    check_components(options)
    options = with_directions(complete({**options, "val": {"save_img": True, **(options.get("val") or {})}}))
    opt = run.start(options, root, False, launcher)
    journal = Journal(Path(opt["path"]["results_root"]) / "journal", opt["rank"])
    opt["path"]["journal"] = str(journal.folder)
    blocks = {name: block for name, block in opt["datasets"].items() if block["phase"] != "train"}
    if not blocks:
        raise OptionError("datasets: expected a block test_... or val, got none")
    datasets = [build_dataset(name, block) for name, block in blocks.items()]
    model = build_model(opt)
    if opt["rank"] == 0:
        for dataset in datasets:
            try_metrics(dataset, opt)
    if isinstance(model, ReblurModel):
        first = datasets[0][0]["lq"][None]
        model.deblur(first[..., :_TRIAL, :_TRIAL])
        model.plan(first)
    identity = _identity(options, datasets, model.device) if opt["rank"] == 0 else {}
    different = journal.differences(identity)
    older = Path(opt["path"]["results_root"]).exists()
    with _interruptible():
        logger = run.open_folders(opt, options, archive=different != [])
        try:
            with logging_redirect_tqdm([logger]):
                logger.info(_plan(different, older, opt["path"]["results_root"]))
                if opt["rank"] == 0:
                    journal.start(identity)
                for dataset in datasets:
                    model.validation(DataLoader(dataset), opt["name"], None, opt["val"]["save_img"])
                if opt["rank"] == 0:
                    journal.finish()
                logger.info("Results are in %s", opt["path"]["results_root"])
        except KeyboardInterrupt as stop:
            done = sum(len(journal.entries(dataset.opt["name"])) for dataset in datasets)
            logger.info(
                "%s: %d of %d images are done; the same command goes on from there",
                *(stop.args or ("stopped",)),
                done,
                sum(map(len, datasets)),
            )
            return False
        finally:
            run.finish(logger)
    return True


def _plan(different: list[str] | None, older: bool, folder: str) -> str:
    """Return in a sentence whether this test goes on or starts anew, and why."""
    if different == []:
        return f"Going on with the unfinished test in {folder}"
    if not older:
        return f"Starting a test in {folder}"
    why = f"it is unfinished, but of other {', '.join(different)}" if different else "it is finished"
    return f"Starting anew: what was in {folder} has moved aside, since {why}"


def _identity(options: Options, datasets: list[Any], device: torch.device) -> dict[str, Any]:
    """Return all that the results depend on; what is large as a hash."""
    weights = [path for key, path in options["path"].items() if key.startswith("pretrain_network")]
    weights += [block.get("weights") for block in (options["val"].get("metrics") or {}).values()]
    files = [Path(path).expanduser() for path in weights if path]
    return {
        "options": _hash(json.dumps(options, sort_keys=True, default=str).encode()),
        "checkpoints": [_hash(path.read_bytes()) for path in files if path.is_file()],
        "data": [dataset.fingerprint() if hasattr(dataset, "fingerprint") else len(dataset) for dataset in datasets],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": [__version__, str(torch.__version__)],
    }


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does: at once, since the journal knows what is done."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
