"""Importing BasicSR beside a torchvision that has lost one of its modules, and what is said where it can't be."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin import host
from reblur_plugin.host import HostError

REMOVED = "torchvision.transforms.functional_tensor"
PRESENT = "torchvision.transforms.functional"

# One interpreter (BasicSR takes seconds to import): prepare, after an import of its own if asked for, then once more.
SCENE = f"""
import importlib.util, json, sys

removed = importlib.util.find_spec({REMOVED!r}) is None
first = "not tried"
if "try" in sys.argv:
    try:
        import basicsr
        first = "imported"
    except ImportError as error:
        first = str(error)
from reblur_plugin import host
host.prepare()
import basicsr
from basicsr.data.degradations import rgb_to_grayscale
from basicsr.utils import registry
from {PRESENT} import rgb_to_grayscale as genuine
modules = dict(sys.modules)
host.prepare()
print(json.dumps({{
    "removed": removed,
    "first": first,
    "genuine": rgb_to_grayscale is genuine,
    "stand_in": {REMOVED!r} in sys.modules,
    "networks": "EDSR" in registry.ARCH_REGISTRY,
    "unchanged": modules == sys.modules,
}}))
"""


def played(*arguments: str, path: Path | None = None) -> dict[str, Any]:
    """Return what the scene finds in an interpreter of its own, with the packages in `path` first."""
    root = Path(__file__).resolve().parents[1]
    first = [str(place) for place in (path, root, os.environ.get("PYTHONPATH")) if place]
    command = [sys.executable, "-W", "ignore", "-c", SCENE, *arguments]
    finished = subprocess.run(
        command, cwd=root, env={**os.environ, "PYTHONPATH": os.pathsep.join(first)}, capture_output=True, check=True
    )
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def faults(scene: dict[str, Any]) -> list[str]:
    """Return what isn't as it must be, whichever BasicSR and torchvision were found."""
    holds = {
        "an import fails for the lack of the removed module alone": scene["first"] in ("imported", "not tried")
        or (scene["removed"] and REMOVED in scene["first"]),
        "BasicSR is whole": scene["networks"],
        "it has torchvision's own function": scene["genuine"],
        "no stand-in stays": not (scene["removed"] and scene["stand_in"]),
        "a second call changes nothing": scene["unchanged"],
    }
    return [fact for fact, is_so in holds.items() if not is_so]


def fake_packages(folder: Path, source: str, removed: bool) -> Path:
    """Write a BasicSR that imports its function from `source`, and a torchvision with or without the removed module."""
    function = "def rgb_to_grayscale(image): ...\n"
    files = {
        "torchvision/__init__.py": "",
        "torchvision/transforms/__init__.py": "",
        "torchvision/transforms/functional.py": function,
        "basicsr/__init__.py": "from basicsr.data import degradations\n",
        "basicsr/data/__init__.py": "",
        "basicsr/data/degradations.py": f"from {source} import rgb_to_grayscale\n",
        "basicsr/utils/__init__.py": "",
        "basicsr/utils/registry.py": "ARCH_REGISTRY = {'EDSR': object}\n",
    }
    if not removed:
        files["torchvision/transforms/functional_tensor.py"] = f"from {PRESENT} import rgb_to_grayscale\n"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


class TestPrepare:
    def test_it_mends_the_import_also_after_it_has_failed(self) -> None:
        # the installed BasicSR: the released one fails first, git's master doesn't
        assert faults(played("try")) == []

    def test_release_and_master_are_imported_beside_every_torchvision(self, tmp_path: Path) -> None:
        found = {}
        for source, removed, first in product((REMOVED, PRESENT), (True, False), ([], ["try"])):
            path = fake_packages(tmp_path / f"{source}_{removed}", source, removed)
            scene = played(*first, path=path)
            failing = source == REMOVED and removed  # the released BasicSR beside today's torchvision
            expected = "not tried" if not first else f"No module named '{REMOVED}'" if failing else "imported"
            if faults(scene) or (scene["first"], scene["removed"]) != (expected, removed):
                found[(source, removed, *first)] = (faults(scene), scene)
        assert found == {}

    def test_where_basicsr_is_imported_already_nothing_is_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(name: str) -> None:
            raise AssertionError(f"looked for {name}")

        host.prepare()
        monkeypatch.setattr(importlib.util, "find_spec", never)
        monkeypatch.setattr(importlib, "import_module", never)
        host.prepare()


class TestPrepareRefuses:
    @pytest.fixture
    def without_basicsr(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        """Take BasicSR out of sys.modules for this test."""
        monkeypatch.delitem(sys.modules, "basicsr", raising=False)
        return monkeypatch

    def test_a_basicsr_that_is_not_installed_is_named_with_the_remedy(
        self, without_basicsr: pytest.MonkeyPatch
    ) -> None:
        genuine = importlib.util.find_spec

        def hidden(name: str, package: str | None = None) -> ModuleSpec | None:
            return None if name == "basicsr" else genuine(name, package)

        without_basicsr.setattr(importlib.util, "find_spec", hidden)
        with pytest.raises(
            HostError, match=r"^BasicSR: not installed; run scripts/setup\.sh, or pip install basicsr==1\.4\.2$"
        ):
            host.prepare()

    def test_an_import_that_fails_otherwise_is_named_with_its_reason(self, without_basicsr: pytest.MonkeyPatch) -> None:
        def broken(name: str) -> None:
            assert name == "basicsr"
            assert hasattr(sys.modules[REMOVED], "rgb_to_grayscale")
            raise ModuleNotFoundError("No module named 'distutils'")

        without_basicsr.setattr(importlib, "import_module", broken)
        stays = importlib.util.find_spec(REMOVED) is not None
        with pytest.raises(
            HostError, match=r"^BasicSR: its import failed \(No module named 'distutils'\); run scripts/setup\.sh to"
        ):
            host.prepare()
        assert (REMOVED in sys.modules) is stays
