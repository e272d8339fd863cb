"""The device that computes, and what it is good at."""

from __future__ import annotations

import torch

from reblur_plugin.errors import ReblurError


class DeviceError(ReblurError):
    """A device that this machine hasn't got."""


def device_named(name: str) -> torch.device:
    """Return the device that `--device` names; "auto" takes a GPU if there is one.

    Raises:
        DeviceError: if this machine hasn't got it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"--device: expected a device of this machine, got {name!r} ({reason}); try cpu") from error
    return torch.device(name)


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether the device has units for bf16: elsewhere it is emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported()
