"""The one door to BasicSR, and all that must be known of its faults.

    from reblur_plugin.host import build_network, get_root_logger

Importing this module loads nothing; a name of BasicSR's is looked up when it is asked for.
Works with BasicSR 1.4.2 as released and with its git master, which carries the same version number: so features are
probed, never versions.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from reblur_plugin.errors import ReblurError

_REMOVED = "torchvision.transforms.functional_tensor"
_HOME = {  # where BasicSR has what the adapters use
    "BaseModel": "models.base_model",
    "build_dataset": "data",
    "build_loss": "losses",
    "build_model": "models",
    "build_network": "archs",
    "calculate_metric": "metrics",
    "get_root_logger": "utils",
    "get_time_str": "utils",
    "init_tb_logger": "utils",
    "init_wandb_logger": "utils",
    "imresize": "utils.matlab_functions",
    "niqe": "metrics",  # the module, beside which its parameters are
    "to_y_channel": "metrics.metric_util",
    "registry": "utils",  # the module with the five tables
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    prepare()
    return getattr(importlib.import_module(f"basicsr.{_HOME[name]}"), name)


def basicsr_version() -> str:
    """Return the version that BasicSR says it is."""
    prepare()
    return str(importlib.import_module("basicsr.version").__version__)


class HostError(ReblurError):
    """BasicSR can't be used; the message says what to install."""


def prepare() -> None:
    """Make `import basicsr` work with today's torchvision; call it before any import of BasicSR. Idempotent.

    BasicSR 1.4.2 imports `rgb_to_grayscale` from a torchvision module that 0.17 removed. While BasicSR is imported, a
    stand-in with that one function is in its place; afterwards it is gone again.

    Raises:
        HostError: if BasicSR isn't installed or its import fails for another reason.
    """
    if "basicsr" in sys.modules:
        return
    if importlib.util.find_spec("basicsr") is None:
        raise HostError("BasicSR: not installed; run scripts/setup.sh, or pip install basicsr==1.4.2")
    stand_in = None
    try:
        if importlib.util.find_spec(_REMOVED) is None:
            stand_in = sys.modules[_REMOVED] = _functional_tensor()
        importlib.import_module("basicsr")
    except (ImportError, AttributeError) as error:  # the latter: built against another NumPy
        raise HostError(
            f"BasicSR: its import failed ({error}); run scripts/setup.sh to install what it needs"
        ) from error
    finally:
        if stand_in is not None:
            sys.modules.pop(_REMOVED, None)


def import_modules(names: Sequence[str]) -> None:
    """Import a user's modules after BasicSR has been made importable, so that they can use its registries.

    Raises:
        HostError: if there is no such module.
    """
    prepare()
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise HostError(
                f"--import {name}: no module named {error.name!r}; start in your project's folder or install it"
            ) from error


def _functional_tensor() -> ModuleType:
    from torchvision.transforms.functional import rgb_to_grayscale

    module = ModuleType(_REMOVED)
    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    return module
