"""The root of everything that a user can cause; command lines print it as one sentence, without a traceback."""

from __future__ import annotations


class ReblurError(ValueError):
    """`<what>: expected <x>, got <y>; <remedy>`."""


class MetricError(ReblurError):
    """A metric that can't be computed as the options ask."""
