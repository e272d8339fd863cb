"""docs/options.md: a table for each block of keys, made of `options.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterator

from reblur_plugin.options import schema
from reblur_plugin.options.values import Schema

_START = """# Option keys

Every key that an option file may hold. This page is made of `reblur_plugin/options/keys.py`, where each key is declared
once, by `python -m reblur_plugin.schema --markdown > docs/options.md`. [Training](training.md), [data](data.md),
[adaptation](adaptation.md) and [testing](testing.md) explain how keys work together; D-numbers are those of
[decisions.md](decisions.md). Networks, losses and metrics take the arguments of their classes as further keys.
"""
_HEAD = "| key | values | default | what it does |\n|---|---|---|---|\n"


def markdown() -> str:
    """Return the page."""
    tables: dict[str, list[str]] = {}  # blocks of the same keys share one
    for where, block in _blocks("", schema.training()):
        tables.setdefault(_table(block), []).append(f"`{where}`" if where else "The file")
    return _START + "".join(f"\n## {', '.join(names)}\n\n{_HEAD}{table}" for table, names in tables.items())


def _blocks(where: str, block: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield a block and those within it whose keys are described here."""
    block = block.get("then", block)
    keys = block.get("properties", {})
    if any("description" in rules for rules in keys.values()):
        yield where, block
    named = [*block.get("patternProperties", {}).values(), block.get("additionalProperties")]
    for name, rules in [*keys.items(), *(("NAME", rules) for rules in named if isinstance(rules, dict))]:
        yield from _blocks(f"{where}: {name}" if where else name, rules)


def _table(block: Schema) -> str:
    return "".join(
        f"| `{name}` | {_cell(rules['title'])} | {_default(name, rules, block)} | {_cell(rules['description'])} |\n"
        for name, rules in block["properties"].items()
    )


def _default(name: str, rules: Schema, block: Schema) -> str:
    if "default" in rules:
        return f"`{json.dumps(rules['default'])}`"
    return "required" if name in block.get("required", ()) else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
