"""Others' restoration networks (NAFNet, Uformer, FFTformer ...) by the library spandrel, which knows their weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from reblur_plugin import checkpoints
from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.files import at_home

_PREFIX = "net."


class SpandrelNet(nn.Module):
    """M_D from anybody's checkpoint: `(B, 3, H, W)` in [0, 1] to the deblurred `(B, 3, H, W)`, any H and W.

    Args:
        weights: a checkpoint (.pth, .ckpt, .pt, .safetensors) of a restoration network that spandrel finds by its
            content; or the state dict of a SpandrelNet.

    Raises:
        CheckpointError: if spandrel is missing, doesn't know the network, or knows it for something else.
    """

    def __init__(self, weights: str | Path | Mapping[str, Tensor]) -> None:
        super().__init__()
        found = _descriptor(weights)
        self.net: nn.Module = found.model.float().requires_grad_(True)
        self._requirements = found.size_requirements

    def forward(self, x: Tensor) -> Any:
        """Return what the network makes of the image; its edge is repeated as far as the network needs (D3)."""
        height, width = x.shape[-2:]
        right, bottom = self._requirements.get_padding(width, height)
        made = self.net(nn.functional.pad(x, (0, right, 0, bottom), mode="replicate") if right or bottom else x)
        return made[..., :height, :width] if isinstance(made, Tensor) else made


def _descriptor(weights: str | Path | Mapping[str, Tensor]) -> Any:
    if importlib.util.find_spec("spandrel") is None:
        raise CheckpointError("SpandrelNet: expected the package spandrel, which isn't installed; pip install spandrel")
    from spandrel import ImageModelDescriptor, ModelLoader, canonicalize_state_dict

    if isinstance(weights, Mapping):
        source, content = "SpandrelNet: its weights", dict(weights)
    else:
        source, content = str(weights), _read(weights)
    if content and all(name.startswith(_PREFIX) for name in content):
        content = {name.removeprefix(_PREFIX): value for name, value in content.items()}
    try:
        found = ModelLoader("cpu").load_from_state_dict(canonicalize_state_dict(content))
    except Exception as error:  # whatever a stranger's weights lead its detection to
        raise CheckpointError(f"{source}: expected weights of a network that spandrel knows, got others") from error
    if not isinstance(found, ImageModelDescriptor) or found.scale != 1:
        raise CheckpointError(
            f"{source}: expected one that keeps an image's size, got {found.architecture.name} for {found.purpose}"
            f" (scale {found.scale})"
        )
    if (found.input_channels, found.output_channels) != (3, 3):
        raise CheckpointError(
            f"{source}: expected a network for 3 colours, got {found.architecture.name} for {found.input_channels}"
        )
    return found


def _read(path: str | Path) -> dict[str, Tensor]:
    if Path(path).suffix.lower() != ".safetensors":
        return checkpoints.state_dict(path)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(at_home(path))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: missing, damaged or no file of safetensors ({error})") from error
