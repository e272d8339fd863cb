"""Training states: which one a training goes on from, and which are forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reblur_plugin.checkpoints import save
from reblur_plugin.training_states import find, forget


class TestFind:
    @pytest.fixture
    def opt(self, tmp_path: Path) -> dict[str, Any]:
        """Options of an experiment with states of iterations 8, 9, 10 and 11, the last one without its network."""
        for number in (8, 9, 10, 11):
            state = {"iter": number, "draws": 0, "to_validate": False, "updaters": {}, "best": {}}
            save(state, tmp_path / "training_states" / f"{number}.state")
            if number < 11:
                save({"params": {"weight": torch.zeros(1)}}, tmp_path / "models" / f"net_g_{number}.pth")
        path = {"training_states": str(tmp_path / "training_states")}
        return {"path": path, "train": {"total_iter": 20}, "network_g": {"type": "SRN"}}

    def test_the_newest_is_that_of_the_largest_number(self, opt: dict[str, Any]) -> None:
        state, networks, notes = find(opt, auto_resume=True)
        assert state is not None
        assert state["iter"] == 10
        assert networks["pretrain_network_g"].endswith("net_g_10.pth")
        assert [note.split(":")[0] for note in notes] == ["skipped 11.state"]

    def test_without_auto_resume_there_is_none(self, opt: dict[str, Any]) -> None:
        assert find(opt, auto_resume=False) == (None, {}, [])


class TestForget:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        states, models = tmp_path / "training_states", tmp_path / "models"
        states.mkdir()
        models.mkdir()
        for number in (5, 10, 100):
            (states / f"{number}.state").touch()
            for label in ("g", "r"):
                (models / f"net_{label}_{number}.pth").touch()
        for name in ("net_g_latest.pth", "net_g_best.pth", "net_g_15.pth", "other_5.pth"):
            (models / name).touch()
        for name in ("mine.state", "copy5.state"):
            (states / name).touch()
        return states, models

    @pytest.mark.parametrize(("keep", "kept"), [(1, {100}), (2, {10, 100}), (3, {5, 10, 100}), (9, {5, 10, 100})])
    def test_the_newest_states_stay_with_their_networks(
        self, folders: tuple[Path, Path], keep: int, kept: set[int]
    ) -> None:
        states, models = folders
        forget(states, models, keep)
        others = {"net_g_latest.pth", "net_g_best.pth", "net_g_15.pth", "other_5.pth"}
        assert {path.name for path in states.iterdir()} == {"mine.state", "copy5.state"} | {
            f"{number}.state" for number in kept
        }
        assert {path.name for path in models.iterdir()} == others | {
            f"net_{label}_{number}.pth" for label in ("g", "r") for number in kept
        }

    def test_before_the_first_state_there_is_nothing_to_forget(self, tmp_path: Path) -> None:
        forget(tmp_path / "none", tmp_path, 1)
        assert list(tmp_path.iterdir()) == []
