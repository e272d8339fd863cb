"""What docs/adaptation.md shows runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import torch

import reblur_plugin

_TEXT = (Path(__file__).resolve().parent.parent / "docs" / "adaptation.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL)


def test_its_python_runs(tmp_path: Path) -> None:
    networks = """
import torch
deblur_net, reblur_net = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
blurry = torch.rand(1, 3, 8, 8)
frames = [blurry, blurry]
import reblur_plugin
"""
    assert len(_BLOCKS) > 1
    for block in _BLOCKS:
        (tmp_path / "script.py").write_text(networks + block, encoding="utf-8")
        runpy.run_path(str(tmp_path / "script.py"))


def test_its_links_lead_to_headings_of_the_page_of_keys(root: Path) -> None:
    page = (root / "docs" / "options.md").read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", found.lower()).replace(" ", "-") for found in re.findall(r"^## (.*)", page, re.M)
    }
    found = {
        (path.name, anchor)
        for path in (root / "docs").glob("*.md")
        for anchor in re.findall(r"\(options\.md#(.*?)\)", path.read_text(encoding="utf-8"))
    }
    assert {name for name, _ in found} >= {"adaptation.md", "data.md", "testing.md"}
    assert {anchor for _, anchor in found} <= headings


def test_a_plan_is_made_as_it_says() -> None:
    networks = [torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]
    blurry = torch.rand(1, 3, 8, 8)
    plan = reblur_plugin.Adapter(*networks, steps=1).plan(blurry)
    assert reblur_plugin.adapt(*networks, blurry, steps=1, plan=plan).plan is plan
