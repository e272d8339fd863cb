"""Importing BasicSR beside a torchvision that has lost one of its modules, and what is said where it can't be."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin import host
from reblur_plugin.host import HostError

REMOVED = "torchvision.transforms.functional_tensor"

# One interpreter (BasicSR takes seconds to import): prepare after a failed import, then once more.
SCENE = f"""
import importlib.util, json, sys

removed = importlib.util.find_spec({REMOVED!r}) is None
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
from torchvision.transforms.functional import rgb_to_grayscale as genuine
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


@pytest.fixture(scope="module")
def scene() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[1]
    finished = subprocess.run([sys.executable, "-W", "ignore", "-c", SCENE], cwd=root, capture_output=True, check=True)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


class TestPrepare:
    def test_it_mends_the_import_also_after_it_has_failed(self, scene: dict[str, Any]) -> None:
        if not scene["removed"]:
            pytest.skip("this torchvision still has the module")
        assert REMOVED in scene["first"]
        assert scene["networks"]

    def test_basicsr_gets_torchvisions_own_function(self, scene: dict[str, Any]) -> None:
        assert scene["genuine"]

    def test_no_stand_in_stays_behind(self, scene: dict[str, Any]) -> None:
        assert scene["stand_in"] is not scene["removed"]

    def test_a_second_call_changes_nothing(self, scene: dict[str, Any]) -> None:
        assert scene["unchanged"]

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
