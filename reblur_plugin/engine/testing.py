"""The test loop: every test set through M_D, adapted where the options ask for it, scored and shown."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import DataLoader

from reblur_plugin import host, registration
from reblur_plugin.engine import run
from reblur_plugin.engine.components import check_components
from reblur_plugin.models.validation import try_metrics
from reblur_plugin.options import OptionError, Options, complete

host.prepare()

from basicsr.data import build_dataset  # noqa: E402 - after host.prepare()
from basicsr.models import build_model  # noqa: E402


def test(options: Options, root: Path, launcher: str = "none") -> None:
    """Test by checked options: pictures, a log and a table for each data set in results/NAME.

    Args:
        options: from `options.read` and `options.check`.
        root: folder that gets results/.
        launcher: "none", or "pytorch" under torchrun.

    Raises:
        ReblurError: for everything that is wrong with options, data or checkpoints, before anything is created.
    """
    registration.register()
    check_components(options)
    options = complete({**options, "val": {"save_img": True, **(options.get("val") or {})}})
    opt = run.start(options, root, False, launcher)
    blocks = {name: block for name, block in opt["datasets"].items() if block["phase"] != "train"}
    if not blocks:
        raise OptionError("datasets: expected a block test_... or val, got none")
    datasets = [build_dataset(block) for block in blocks.values()]
    model = build_model(opt)
    if opt["rank"] == 0:
        for dataset in datasets:
            try_metrics(dataset, opt)
    logger = run.open_folders(opt, options, archive=True)
    try:
        for dataset in datasets:
            model.validation(DataLoader(dataset), opt["name"], None, opt["val"].get("save_img", True))
        logger.info("Results are in %s", opt["path"]["results_root"])
    finally:
        run.finish(logger)
