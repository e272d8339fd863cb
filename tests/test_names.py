"""Names that become files: what is refused on every system, so that experiments can move between them."""

from __future__ import annotations

import pytest

from reblur_plugin.names import LONGEST, leads_out, problem

LONG = ["x" * (LONGEST + 1), "\u65e5" * 41]  # 121 letters, and 123 bytes


@pytest.mark.parametrize("name", ["a", "gopro_srn.n2+", "\u65e5" * 40, "com10", "console", ".hidden", "a b", "x" * 120])
def test_names_that_every_system_takes(name: str) -> None:
    assert problem(name) == ""


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "...", "a/b", "a\\b", "c:", "a\n", "a\0", "a?", "a.", "a ", " a", "CON", "nul.txt", "lpt1", *LONG],
)
def test_names_that_some_system_refuses(name: str) -> None:
    assert problem(name) != ""


@pytest.mark.parametrize("name", ["a/b", "a/..b", "a..", "a/b.png", "\u65e5"])
def test_names_with_folders_stay_inside(name: str) -> None:
    assert not leads_out(name)


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../../b", "..", "\\\\host\\a", "..\\a", "c:/a", "c:\\a", "c:a", "a\0b"]
)
def test_names_that_lead_out(name: str) -> None:
    assert leads_out(name)
