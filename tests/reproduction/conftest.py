"""Reproductions are scripts: their modules are found beside `scripts/reproduce.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
