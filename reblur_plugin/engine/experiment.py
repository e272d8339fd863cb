"""An experiment on disk: its folders, the option file stored there, its log, and the older run of the same name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

import torch

from reblur_plugin.engine import processes
from reblur_plugin.errors import ReblurError
from reblur_plugin.files import locked, remove_parts
from reblur_plugin.host import basicsr_version, get_root_logger, get_time_str
from reblur_plugin.options.reading import OptionError, Options, write
from reblur_plugin.version import __version__


def folders(root: Path, name: str, is_train: bool) -> dict[str, str]:
    """Return the paths of a run's folders by BasicSR's names; nothing is created."""
    main = root / ("experiments" if is_train else "results") / name
    own = {"log": main, "visualization": main / "visualization"}
    if is_train:
        own |= {"experiments_root": main, "models": main / "models", "training_states": main / "training_states"}
        own |= {"tb_logger": root / "tb_logger" / name}
    else:
        own["results_root"] = main
    return {key: str(folder) for key, folder in own.items()}


def keep_early_messages() -> None:
    """Keep in memory what is logged from now on, until `opened` writes it to the log file."""
    logger = get_root_logger()
    logger.setLevel(logging.INFO)
    for handler in list(logger.handlers):
        if isinstance(handler, MemoryHandler):
            logger.removeHandler(handler)  # of a run that ended before its folders were made
        else:
            handler.setLevel(logging.WARNING)
    logger.addHandler(MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False))


@contextmanager
def opened(opt: Options, archive: bool) -> Iterator[logging.Logger]:
    """Create the experiment's folders, store `opt["resolved"]` there, and give the logger.

    To be entered when everything has been built. At the end the log file is closed and the process group left.

    Args:
        opt: from `preparation.prepare`.
        archive: whether an older experiment of this name moves to another, its curves with it.

    Raises:
        OptionError: if the folders can't be made.
        FileError: if another process trains or tests under this name.
    """
    main = Path(opt["path"]["experiments_root" if opt["is_train"] else "results_root"])
    with ExitStack() as held:

        def take() -> Path | None:
            held.enter_context(locked(main))
            return _make_folders(main, opt, archive)

        moved = _by_first_process(opt, take)
        logger = _open_log(main, opt)
        if moved:
            logger.info("The older run of this name is in %s now", moved)
        device = torch.cuda.get_device_name() if opt["num_gpu"] else f"CPU, {torch.get_num_threads()} threads"
        versions = __version__, basicsr_version(), torch.__version__, device
        logger.info("reblur_plugin %s, BasicSR %s, PyTorch %s, %s", *versions)
        try:
            yield logger
        finally:
            _close_log(logger)
            processes.leave()


def _by_first_process(opt: Options, act: Callable[[], Path | None]) -> Path | None:
    """Return what `act` gives in the first process, None in others; all raise what it refuses, so that none waits."""
    found, refusal = None, None
    if opt["rank"] == 0:
        try:
            found = act()
        except ReblurError as error:
            refusal = error
    if opt["world_size"] > 1:
        told = [None if refusal is None else str(refusal)]
        torch.distributed.broadcast_object_list(told, src=0)
        refusal = refusal or (OptionError(told[0]) if told[0] else None)
    if refusal is not None:
        raise refusal
    return found


def _close_log(logger: logging.Logger) -> None:
    for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
        handler.close()
        logger.removeHandler(handler)


def _make_folders(main: Path, opt: Options, archive: bool) -> Path | None:
    """Return where the older run is now, if it was moved."""
    try:
        moved = None
        if archive:
            moved = _move_aside([main, Path(opt["path"]["tb_logger"])] if opt["is_train"] else [main])
        remove_parts(main)
        for folder in {"models", "training_states", "visualization"} & opt["path"].keys():
            Path(opt["path"][folder]).mkdir(parents=True, exist_ok=True)
        write(opt["resolved"], main / f"{opt['name']}.yml")
        return moved
    except OSError as error:
        raise OptionError(f"{main}: this folder can't be made ({error.strerror}); start somewhere else") from error


def _move_aside(paths: list[Path]) -> Path | None:
    """Rename those `paths` that exist, all with one time stamp; return the first one's new name."""
    old = [path for path in paths if path.exists()]
    names = (f"_archived_{get_time_str()}{again}" for again in ["", *(f"_{number}" for number in range(2, 100))])
    ending = next(name for name in names if not any(Path(f"{path}{name}").exists() for path in old))
    for path in old:
        path.rename(f"{path}{ending}")
    return Path(f"{old[0]}{ending}") if old else None


def _open_log(main: Path, opt: Options) -> logging.Logger:
    """Return the logger; the first process also writes to a file, with what was logged before."""
    logger = get_root_logger()
    logger.setLevel(logging.INFO if opt["rank"] == 0 else logging.ERROR)
    for shown in logger.handlers:
        shown.setLevel(logging.INFO)
    if opt["rank"] == 0:
        phase = "train" if opt["is_train"] else "test"
        handler = logging.FileHandler(
            main / f"{phase}_{opt['name']}_{get_time_str()}.log", encoding="utf-8", errors="backslashreplace"
        )
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s: %(message)s"))
        for early in [early for early in logger.handlers if isinstance(early, MemoryHandler)]:
            early.setTarget(handler)
            early.flush()
            logger.removeHandler(early)
        logger.addHandler(handler)
    return logger
