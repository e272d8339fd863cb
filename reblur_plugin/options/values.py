"""What the values of a key may be, as JSON Schemas: the words from which `options.keys` is made.

Every one has a `title`, which is used in the message "KEY: expected TITLE, got VALUE".
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from reblur_plugin.names import LONGEST

Schema = dict[str, Any]


MOST = 10**12  # of anything that is counted


def entry(kind: str | list[str], title: str, **rules: Any) -> Schema:
    """Return values of a JSON type."""
    return {"type": kind, "title": title, **rules}


def choice(*values: Any) -> Schema:
    """Return these values and no others."""
    return {"enum": list(values), "title": f"one of {', '.join(map(str, values))}"}


def block(keys: Schema, required: tuple[str, ...] = ()) -> Schema:
    """Return a block of these keys and no others."""
    found = {"type": "object", "title": "a block of keys", "properties": keys, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def key(values: Schema, does: str, **default: Any) -> Schema:
    """Return a key: its values, the sentence that says what it does and, where it has one, its `default`."""
    return {**values, "description": does, **default}


def attributes(of: type) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute; nothing under `python -OO`."""
    _, _, section = (inspect.getdoc(of) or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(said.split()) for name, said in found}


COUNT = entry("integer", "a whole number > 0", minimum=1, maximum=MOST)
NATURAL = entry("integer", "a whole number >= 0", minimum=0, maximum=MOST)
SEED = entry("integer", "a whole number >= 0", minimum=0, maximum=2**32 - 1)
POSITIVE = entry("number", "a number > 0", exclusiveMinimum=0)
WEIGHT = entry("number", "a number >= 0", minimum=0)
FLAG = entry("boolean", "true or false")
TEXT = entry("string", "text")
FILE = entry("string", "a file's path")
NAME = entry("string", "letters, digits, _ . + -", pattern=r"^(?!\.+$)[A-Za-z0-9_.+-]+$(?!\n)", maxLength=LONGEST)
OPEN = entry("object", "a block of keys")
COMPONENT = OPEN | {"properties": {"type": TEXT}}  # of a registered class, whose signature checks the rest
PERCENT = {"type": "string", "pattern": r"^\d+(\.\d+)?%$(?!\n)", "title": "a percentage such as 50%"}
SEQUENCES = entry(
    "array", "a list of sequences", items=entry("string", "the name of a sequence, in quotes if it is a number")
)
SIZE = {
    "type": ["integer", "string", "null"],
    "minimum": 1,
    "pattern": r"^(?=.*[1-9])\d+\.?\d* ?[KMGTkmgt]?([iI]?[Bb])?$(?!\n)",
    "title": "bytes > 0 or a size such as 4G",
}
KNOTS = {  # of `core.schedule.PiecewiseLinear`
    "anyOf": [
        WEIGHT,
        {
            "type": "array",
            "minItems": 1,
            "items": {"type": "array", "prefixItems": [NATURAL, WEIGHT], "minItems": 2, "maxItems": 2},
        },
    ],
    "title": "a number >= 0 or a list of [iteration, weight]",
}
MILESTONES = {
    "type": "array",
    "items": {"anyOf": [COUNT, PERCENT], "title": "an iteration or a percentage such as 50%"},
    "title": "a list of iterations or percentages",
}
