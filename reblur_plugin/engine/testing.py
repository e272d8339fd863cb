"""Testing: every test set through M_D, adapted if the options say so, scored and shown."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.contrib.logging import logging_redirect_tqdm

from reblur_plugin.engine import experiment
from reblur_plugin.engine.preparation import prepare, try_all_metrics
from reblur_plugin.evaluation import records, variants
from reblur_plugin.evaluation.journal import Journal
from reblur_plugin.host import build_model
from reblur_plugin.models.reblur_model import ReblurModel
from reblur_plugin.options.reading import Options, metric_options

_TRIAL = 256  # pixels on a side of what is deblurred before a folder is made


def test(options: Options, root: Path, launcher: str = "none") -> bool:
    """Test with checked options; return whether the end was reached (False: interrupted). Arguments as for `prepare`.

    Pictures, a log and a table for each data set are written to results/NAME. A test that was interrupted or killed
    goes on when it is started again with the same options, checkpoints and data; else an older results/NAME is renamed.

    Raises:
        ReblurError: for everything that is wrong with options, data or checkpoints, before anything is created.
    """
    options = {**options, "val": {"save_img": True, **(options.get("val") or {})}}
    opt, named = prepare(options, root, False, launcher)
    datasets, results = list(named.values()), Path(opt["path"]["results_root"])
    journal = Journal(results / "journal", opt["rank"])
    opt["path"]["journal"] = str(journal.folder)
    model = build_model(opt)
    _try_out(opt, model, datasets)
    identity = _identity(opt["resolved"], datasets, model.device) if opt["rank"] == 0 else {}
    head = _head(opt, identity, datasets) if identity else {}
    different, older = journal.differences(identity), results.exists()
    with _interruptible(), experiment.opened(opt, archive=different != []) as logger:
        try:
            with logging_redirect_tqdm([logger]):
                logger.info(_plan(different, older, results))
                if opt["rank"] == 0:
                    journal.start(head)
                for dataset in datasets:
                    model.validation(DataLoader(dataset), opt["name"], None, opt["val"]["save_img"])
                if opt["rank"] == 0:
                    _write_records(results, head, journal)
                    journal.finish()
                logger.info("Results are in %s", results)
            return True
        except KeyboardInterrupt as stop:
            counts = sum(len(journal.entries(data.opt["name"])) for data in datasets), sum(map(len, datasets))
            reason = stop.args or ("stopped",)
            logger.info("%s: %d of %d images are done; the same command goes on from there", *reason, *counts)
            return False


def _try_out(opt: Options, model: Any, datasets: list[Any]) -> None:
    """Try before anything is created what would end the test early: metrics, M_D on an image, the bound of memory."""
    try_all_metrics(opt, datasets)
    if isinstance(model, ReblurModel):
        first = datasets[0][0]["lq"][None]
        model.deblur(first[..., :_TRIAL, :_TRIAL])
        model.plan(first)


def _plan(different: list[str] | None, older: bool, results: Path) -> str:
    """Return in a sentence whether this test goes on with an older one, and why not."""
    if different == []:
        return f"Going on with the unfinished test in {results}"
    if not older:
        return f"Starting a test in {results}"
    why = f"it is unfinished, but of other {', '.join(different)}" if different else "it is finished"
    return f"Starting anew: what was in {results} has moved aside, since {why}"


def _identity(options: Options, datasets: list[Any], device: torch.device) -> dict[str, Any]:
    """Return all that the results depend on; what is large as a hash."""
    weights = {key: path for key, path in options["path"].items() if key.startswith("pretrain_network")}
    blocks = (options["val"].get("metrics") or {}).items()
    weights |= {f"metric {name}": block["weights"] for name, block in blocks if block.get("weights")}
    options_hash = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return {
        "options": options_hash,
        "checkpoints": {key: variants.fingerprint_of(path) for key, path in weights.items() if path},
        "data": {
            data.opt["name"]: data.fingerprint() if hasattr(data, "fingerprint") else len(data) for data in datasets
        },
        "device": variants.device_name(device),
        "versions": variants.versions(),
    }


def _head(opt: Options, identity: dict[str, Any], datasets: list[Any]) -> records.Head:
    """Return what each record says of its run."""
    own = identity["checkpoints"].get("pretrain_network_r")
    found = {name: asdict(variants.variant(block, own)) for name, block in metric_options(opt).items()}
    kinds = {data.opt["name"]: getattr(data, "blur_kind", "") for data in datasets}
    names = [data.opt["name"] for data in datasets]
    return {
        "run": opt["name"],
        "program": "test",
        "datasets": names,
        "metrics": found,
        "blur_kinds": kinds,
        **identity,
    }


def _write_records(results: Path, head: records.Head, journal: Journal) -> None:
    """Write records of all images; another model than ours leaves no entries."""
    found = [
        record
        for dataset in head["datasets"]
        for record in records.records_of(head["run"], dataset, journal.entries(dataset), head)
    ]
    if found:
        records.write(results, head["run"], found, head)


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
