"""The networks of a checkpoint, for code of your own.

deblur_net, reblur_net = reblur_plugin.load("experiments/demo/models/net_g_latest.pth")
reblur_plugin.adapt(deblur_net, reblur_net, blurry).image
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from reblur_plugin import checkpoints, registration
from reblur_plugin.checkpoints import CheckpointError


class Networks(NamedTuple):
    """M_D and the M_R that was trained with it, in eval mode on the CPU; M_R is None where M_D was trained alone."""

    deblur_net: nn.Module
    reblur_net: nn.Module | None


def load(weights: str | Path, reblur_weights: str | Path | None = None) -> Networks:
    """Return the networks of `net_g_*.pth` and of the `net_r_*.pth` in its folder, as their training built them.

    Args:
        weights: a checkpoint of M_D with its origin.
        reblur_weights: M_R's; by default the file of the same ending in that folder.

    Raises:
        CheckpointError: if a file is missing, damaged, doesn't fit or doesn't tell of a network that is known here.
    """
    registration.register()
    deblur_net = checkpoints.network(weights, "g")
    if reblur_weights is None and checkpoints.options(weights).get("network_r"):
        path = Path(weights)
        if "net_g" not in path.name:
            raise CheckpointError(
                f"{path}: expected net_g_*.pth, whose M_R has the same ending; give reblur_weights, too"
            )
        reblur_weights = path.with_name(path.name.replace("net_g", "net_r", 1))
    return Networks(deblur_net, None if reblur_weights is None else checkpoints.network(reblur_weights, "r"))
