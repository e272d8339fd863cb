"""Data sets of others name their images by paths; results stay within their folder all the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from reblur_plugin.errors import ReblurError
from reblur_plugin.evaluation.validation import _name

DATASET = SimpleNamespace(opt={"name": "theirs", "dataroot_lq": "/data/lq"})


@pytest.mark.parametrize(
    ("path", "name"),
    [("/data/lq/a/1.png", "a/1"), ("/elsewhere/1.png", "elsewhere/1"), ("../../data/1.png", "data/1"), ("1.png", "1")],
)
def test_a_path_becomes_a_name_within_the_folder(path: str, name: str) -> None:
    assert _name({"lq_path": path}, DATASET) == name


@pytest.mark.parametrize("name", ["../1", "/1", "a/../../1"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(ReblurError, match=r"^theirs: expected a name within its folder, got "):
        _name({"lq_path": "1.png", "name": name}, DATASET)
