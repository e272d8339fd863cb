"""Networks rebuilt from a checkpoint of ReblurModel alone, which carries the options of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import nn

from reblur_plugin import checkpoints, registration
from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.host import build_network


def restored(weights: str | Path, label: Literal["g", "r"]) -> nn.Module:
    """Return M_D (label "g") or M_R ("r") of `net_<label>_*.pth`, in eval mode on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, doesn't fit or doesn't tell of a network that is known here.
    """
    registration.register()
    block = checkpoints.options(weights).get(f"network_{label}")
    if not isinstance(block, dict):
        raise CheckpointError(
            f"{weights}: doesn't tell which network it belongs to; "
            f"expected net_{label}_*.pth from reblur_plugin's training"
        )
    try:
        network: nn.Module = build_network(block)
    except KeyError as error:
        raise CheckpointError(
            f"{weights}: belongs to a network {block.get('type')!r} that isn't known here; give its module by --import"
        ) from error
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{weights}: {block.get('type')} can't take the options in it: {error}") from error
    checkpoints.load_weights(network, weights)
    return network.eval()
