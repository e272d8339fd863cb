"""Names that become files and folders: what every system takes as one, and what leads nowhere else."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

LONGEST = 120  # bytes: experiments' files have further letters, and systems take 255
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_REFUSED = '<>:"/\\|?*'


def problem(name: str) -> str:
    """Return why `name` can't be that of a file or folder on every system; empty if it can."""
    if not name or name.strip(".") == "":
        return "it is empty or leads to another folder"
    if found := {letter for letter in name if letter in _REFUSED or ord(letter) < 32}:
        return f"it holds {' '.join(sorted(map(repr, found)))}"
    if name.endswith((".", " ")) or name.startswith(" "):
        return "it begins or ends with a blank, or ends with a dot"
    if name.split(".")[0].lower() in _RESERVED:
        return "Windows keeps it for a device"
    return f"it has more than {LONGEST} bytes" if len(os.fsencode(name)) > LONGEST else ""


def leads_out(name: str) -> bool:
    """Return whether a name with sub-folders, in POSIX's or Windows' writing, leads out of the folder it is put in."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0] or "\0" in name
