"""All that must be known of BasicSR's faults. Import BasicSR through `prepare()`; nothing else mentions them.

Works with BasicSR 1.4.2 as released and with its git master, which carries the same version number: so features are
probed, never versions.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

from reblur_plugin.errors import ReblurError

_REMOVED = "torchvision.transforms.functional_tensor"


class HostError(ReblurError):
    """BasicSR can't be used; the message says what to install."""


def prepare() -> None:
    """Make `import basicsr` work beside today's torchvision; call it before any import of BasicSR. Idempotent.

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


def _functional_tensor() -> ModuleType:
    from torchvision.transforms.functional import rgb_to_grayscale

    module = ModuleType(_REMOVED)
    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    return module
