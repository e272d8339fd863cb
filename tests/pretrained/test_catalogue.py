"""The weights that have a name: what the list says is so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import reblur_plugin
from reblur_plugin import checkpoints, cli, weights
from reblur_plugin.pretrained.catalogue import Named, WeightsError, cache, catalogue, must_be_named, named

SHIPPED = [one for one in catalogue() if not one.remotes]


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REBLUR_CACHE", str(tmp_path / "cache"))


def test_a_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("resunet-small").write_bytes(b"a file of that name")
    assert isinstance(named("resunet-small"), Named)
    assert named("./resunet-small") is None
    with pytest.raises(WeightsError, match=r"^weights: nothing is named 'dhn-offical'; did you mean dhn-official\?$"):
        must_be_named("dhn-offical")


def test_the_list_tells_name_licence_size_and_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for words in ([], ["list"]):
        monkeypatch.setattr(sys, "argv", ["weights", *words])
        assert cli.guarded(weights.main) == 0
        said = capsys.readouterr().out
        assert "dhn-official: DHN" in said
        assert "29.0 MB, to be fetched: python -m reblur_plugin.weights fetch dhn-official" in said
        assert "licence: Apache-2.0" in said
        assert f"MB, {SHIPPED[0].deblur_net}" in said
        assert said.endswith(f"Fetched weights lie in {tmp_path}/cache\n")


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REBLUR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache().name == "reblur_plugin"


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.name)
def test_shipped_weights_are_small_and_load_in_float32(one: Named) -> None:
    assert one.deblur_net.stat().st_size + one.reblur_net.stat().st_size < 8e6
    networks = reblur_plugin.load(one.name)
    for network, path in zip(networks, (one.deblur_net, one.reblur_net), strict=True):
        assert {value.dtype for value in network.parameters()} == {torch.float32}
        stored = checkpoints.state_dict(path)
        assert {value.dtype for value in stored.values()} == {torch.float16}
        assert all(torch.equal(value.float(), network.state_dict()[name]) for name, value in stored.items())


def test_every_m_r_is_part_of_the_package_and_small() -> None:
    reblur_plugin.register()
    for one in catalogue():
        assert one.reblur_net.stat().st_size < 2e6
        assert type(checkpoints.network(one.reblur_net, "r")).__name__ == "ReblurNet"
