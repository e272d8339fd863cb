"""The root of everything that a user can cause; command lines print it as one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class ReblurError(ValueError):
    """`<what>: expected <x>, got <y>; <remedy>`."""


class MetricError(ReblurError):
    """A metric that can't be computed as the options ask."""


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the nearest known names, or all of them where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else f"; expected one of {', '.join(known)}"
