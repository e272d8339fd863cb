"""`register()`: all our names in BasicSR's registries, once, and no import for effect anywhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reblur_plugin
from reblur_plugin import registration, version
from reblur_plugin.registration import RegistrationError

NAMES = {
    "ARCH_REGISTRY": {"ResUNet", "SRN", "DHN", "DMPHN", "SpandrelNet", "ReblurNet", "ReblurDiscriminator"},
    "LOSS_REGISTRY": {
        "MultiScaleL1Loss",
        "ReblurLoss",
        "BlurLoss",
        "SharpLoss",
        "SelfReblurLoss",
        "FrozenReblurLoss",
    },
    "METRIC_REGISTRY": {"reblur_lpips", "reblur_ssim", "reblur_niqe", "reblurability"},
    "DATASET_REGISTRY": {"DeblurPairDataset"},
    "MODEL_REGISTRY": {"ReblurModel"},
}


@pytest.fixture
def tables() -> dict[str, Any]:
    """Return BasicSR's registries after registration."""
    reblur_plugin.register()
    from basicsr.utils import registry

    return {name: getattr(registry, name) for name in NAMES}


class TestRegister:
    def test_all_names_are_there_and_belong_to_this_package(self, tables: dict[str, Any]) -> None:
        for table, names in NAMES.items():
            ours = {name for name, item in tables[table] if item.__module__.startswith("reblur_plugin.")}
            assert ours >= names

    def test_names_are_those_of_the_classes(self, tables: dict[str, Any]) -> None:
        for table, names in NAMES.items():
            assert {tables[table].get(name).__name__ for name in names} == names

    def test_calling_it_again_changes_nothing(self, tables: dict[str, Any]) -> None:
        before = {name: list(table) for name, table in tables.items()}
        registration.register()
        assert {name: list(table) for name, table in tables.items()} == before

    def test_basicsr_builds_our_classes_by_name(self, tables: dict[str, Any]) -> None:
        from basicsr.archs import build_network
        from basicsr.losses import build_loss

        assert type(build_network({"type": "ReblurNet", "num_blocks": 1, "num_feat": 4})).__name__ == "ReblurNet"
        assert type(build_loss({"type": "MultiScaleL1Loss"})).__name__ == "MultiScaleL1Loss"

    def test_a_name_that_another_package_has_taken_is_named_with_that_package(
        self, tables: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class SRN:
            __module__ = "another_plugin.archs"

        monkeypatch.setitem(tables["ARCH_REGISTRY"]._obj_map, "SRN", SRN)
        with pytest.raises(
            RegistrationError,
            match=r"^register: SRN is taken by another_plugin\.archs already; rename that class, or load one of the ",
        ):
            registration.register()
        assert tables["ARCH_REGISTRY"].get("SRN") is SRN


def run(code: str) -> Any:
    """Return what a fresh interpreter writes as JSON."""
    root = Path(__file__).resolve().parents[1]
    return json.loads(subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True).stdout)


class TestImport:
    def test_importing_the_package_loads_neither_torch_nor_basicsr(self) -> None:
        heavy = run(
            "import json, sys, reblur_plugin, reblur_plugin.registration, reblur_plugin.host, reblur_plugin.options\n"
            "import reblur_plugin.cli, reblur_plugin.train, reblur_plugin.test\n"
            "heavy = ('torch', 'torchvision', 'basicsr', 'numpy', 'cv2', 'lpips', 'skimage')\n"
            "print(json.dumps([name for name in heavy if name in sys.modules]))"
        )
        assert heavy == []

    def test_its_public_names_are_all_there(self) -> None:
        assert reblur_plugin.__version__ == version.__version__
        for name in set(reblur_plugin.__all__) - {"__version__"}:
            assert getattr(reblur_plugin, name).__name__ == name
            assert name in dir(reblur_plugin)

    def test_an_unknown_name_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match=r"^module 'reblur_plugin' has no attribute 'adpat'$"):
            reblur_plugin.adpat  # noqa: B018
