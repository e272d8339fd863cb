"""Lets BasicSR 1.4.2 build under Python 3.13 and later.

Its setup.py runs `exec(...)` inside a function and reads the result from `locals()`. Since PEP 667 (Python 3.13) such
an `exec` writes to a snapshot that nobody sees again: `KeyError: '__version__'`. Here it writes to the frame itself,
whose names a later `locals()` shows, as before 3.13.

Python imports the first `sitecustomize` it finds at start-up. scripts/setup.sh puts this folder on PYTHONPATH for the
single pip call that builds BasicSR, and nowhere else; a sitecustomize of the system is passed over for that call.
"""

import builtins
import sys
from collections.abc import Mapping
from typing import Any

_exec = builtins.exec


def _exec_in_callers_frame(
    source: Any, /, globals: dict[str, Any] | None = None, locals: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Run `source` as the built-in does, but where no namespaces are given in the calling frame's own."""
    caller = sys._getframe(1)
    if globals is None:
        globals = caller.f_globals
        if locals is None:
            locals = caller.f_locals
    _exec(source, globals, locals, **options)


if sys.version_info >= (3, 13):
    builtins.exec = _exec_in_callers_frame
