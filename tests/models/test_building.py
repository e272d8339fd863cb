"""Low precision by name, averaged weights, and the compiler that `compile: true` needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from reblur_plugin.models.building import autocast_type, move_average, require_compiler
from reblur_plugin.models.criteria import ReblurModelError

CPU = torch.device("cpu")


class TestPrecision:
    def test_names_give_types(self) -> None:
        assert [autocast_type(name, CPU) for name in ("bf16", "fp16", None)] == [torch.bfloat16, torch.float16, None]

    def test_automatic_precision_is_low_where_the_device_has_units_for_it(
        self, bf16_units: Callable[[bool], None]
    ) -> None:
        for has_units in (True, False):
            bf16_units(has_units)
            assert autocast_type("auto", CPU) is (torch.bfloat16 if has_units else None)

    def test_another_name_is_refused(self) -> None:
        with pytest.raises(ReblurModelError, match=r"^train: amp: expected bf16, fp16, auto or nothing, got 'fp8'$"):
            autocast_type("fp8", CPU)


class TestMoveAverage:
    def test_weights_move_and_buffers_are_copied(self) -> None:
        averaged, network = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
        nn.init.constant_(network.weight, 3.0)
        network.running_mean.fill_(5.0)
        network.num_batches_tracked.fill_(7)
        move_average(averaged, network, 0.75)
        found = averaged.weight.item(), averaged.running_mean.item(), averaged.num_batches_tracked.item()
        assert found == (0.75 * 1 + 0.25 * 3, 5.0, 7)


class TestCompiler:
    """PyTorch takes the one that CXX names, else the usual one alone."""

    MESSAGE = r"^train: compile: expected a C\+\+ compiler, found no {}; install it, or leave the key out$"

    def test_without_the_named_one_it_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("shutil.which", lambda name: None)
        monkeypatch.setenv("CXX", "my-c++ -O1")
        with pytest.raises(ReblurModelError, match=self.MESSAGE.format(r"my-c\+\+")):
            require_compiler()
        monkeypatch.setattr("shutil.which", lambda name: "there" if name == "my-c++" else None)
        require_compiler()
        monkeypatch.delenv("CXX")
        with pytest.raises(ReblurModelError, match=self.MESSAGE.format(".+")):
            require_compiler()

    def test_its_path_may_hold_blanks_and_backslashes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        path = r"C:\Program Files\VC\bin\cl.exe"
        monkeypatch.setattr("shutil.which", lambda name: name if name == path else None)
        monkeypatch.setenv("CXX", path)
        require_compiler()
