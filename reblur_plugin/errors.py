"""The root of everything that a user can cause; command lines print it as one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def building(where: str, name: Any, kind: type[ReblurError]) -> Iterator[None]:
    """Turn whatever a class raises that is built of a user's block into one sentence with the block's place.

    Args:
        where: the block's place in the file, such as "train: pixel_opt".
        name: of the class.
        kind: of the error.

    Raises:
        ReblurError: as they come, or of that kind.
    """
    try:
        yield
    except ReblurError:
        raise
    except Exception as error:  # it may be anybody's class
        said = " ".join(str(error).split()) if isinstance(error, (TypeError, ValueError, AssertionError)) else ""
        raise kind(f"{where}: {name} can't take these options: {said or repr(error)}") from error
