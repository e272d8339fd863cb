"""The folder that is a Space: what it needs is in it, and its app file starts the page for everybody."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from reblur_plugin.app import __main__ as command


@pytest.fixture
def space(root: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "space"
    done = subprocess.run([root / "scripts" / "make_space.sh", folder], capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}\n"
    return folder


def test_what_it_needs_is_in_it(space: Path, root: Path) -> None:
    assert {path.name for path in space.iterdir()} == {
        "Dockerfile",
        "README.md",
        "app.py",
        "plugin",
        "requirements.txt",
    }
    assert "./plugin[app]" in (space / "requirements.txt").read_text().splitlines()
    package = space / "plugin" / "reblur_plugin"
    for name in ("app/page/page.js", "app/examples/cars.jpg", "viewer/viewer.js", "pretrained/net_g_resunet-small.pth"):
        assert (package / name).read_bytes() == (root / "reblur_plugin" / name).read_bytes()
    assert list(space.rglob("__pycache__")) == []
    assert (space / "README.md").read_text().startswith("---\n")  # what a Space reads


def test_its_app_file_starts_the_page_for_everybody(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setattr(command, "main", lambda: told.extend(sys.argv[1:]) or 0)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(space / "app.py"))
    assert ended.value.code == 0
    settings = command._settings(command._parser().parse_args(told))
    assert (settings.password, settings.hosts, settings.in_frames) == (None, ("*",), True)
    assert f"EXPOSE {told[told.index('--port') + 1]}\n" in (space / "Dockerfile").read_text()


def test_one_that_is_there_is_left_alone(space: Path, root: Path) -> None:
    done = subprocess.run([root / "scripts" / "make_space.sh", space], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "expected a new folder" in done.stderr
