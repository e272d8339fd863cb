"""A plugin for BasicSR: "Clean Images are Hard to Reblur" (Nah, Son, Lee, Lee; arXiv 2104.12665).

    import reblur_plugin
    reblur_plugin.register()                                  # our classes in BasicSR's registries
    reblur_plugin.adapt(deblur_net, reblur_net, blurry)       # Algorithm 1, for any two networks
    reblur_plugin.load("net_g_latest.pth")                    # the networks of a checkpoint

Importing the package changes nothing and loads neither torch nor BasicSR.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "AdaptConfig": "core.adapt",
    "AdaptError": "core.adapt",
    "Adaptation": "core.adapt",
    "Adapter": "core.adapt",
    "JointStep": "core.joint",
    "adapt": "core.adapt",
    "load": "networks",
    "OptionError": "options.reading",
    "Updater": "core.updater",
    "register": "registration",
    "__version__": "version",
}
__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
