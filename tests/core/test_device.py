"""A device that isn't there is a sentence."""

from __future__ import annotations

import pytest
import torch

from reblur_plugin.core.device import DeviceError, device_named


def test_a_device_of_this_machine_is_taken() -> None:
    assert device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:77", "banana"])
def test_a_device_that_is_not_there_is_a_sentence(name: str) -> None:
    with pytest.raises(
        DeviceError, match=rf"--device: expected a device of this machine, got '{name}' \(.+\); try cpu"
    ):
        device_named(name)
