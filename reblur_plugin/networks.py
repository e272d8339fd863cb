"""The networks of a checkpoint, for code of your own.

deblur_net, reblur_net = reblur_plugin.load("experiments/demo/models/net_g_latest.pth")
deblur_net, reblur_net = reblur_plugin.load("resunet-small")
reblur_plugin.adapt(deblur_net, reblur_net, blurry).image
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from reblur_plugin import checkpoints, registration
from reblur_plugin.checkpoints import CheckpointError
from reblur_plugin.pretrained.catalogue import must_be_named, named
from reblur_plugin.pretrained.fetching import fetch


class Networks(NamedTuple):
    """M_D and the M_R that was trained with it, in eval mode on the CPU; M_R is None where M_D was trained alone."""

    deblur_net: nn.Module
    reblur_net: nn.Module | None


def load(
    weights: str | Path,
    reblur_weights: str | Path | None = None,
    network: Mapping[str, Any] | None = None,
    adapted: bool = True,
) -> Networks:
    """Return the networks of `net_g_*.pth` and of the `net_r_*.pth` in its folder, as their training built them.

    Args:
        weights: a checkpoint of M_D with its origin, or of another project's network that spandrel knows; or a name
            (`python -m reblur_plugin.weights`), whose files are fetched if they aren't there.
        reblur_weights: M_R's; by default the file of the same ending in that folder.
        network: M_D as an option file's `network_g` names it, where the checkpoint doesn't tell.
        adapted: whether M_R is wanted; otherwise it is None.

    Raises:
        CheckpointError: if a file is missing, damaged, doesn't fit or doesn't tell of a network that is known here.
        WeightsError: if named weights can't be fetched.
    """
    registration.register()
    if (known := named(weights)) is not None:
        fetch(known)
        weights, reblur_weights = known.deblur_net, reblur_weights or known.reblur_net
    elif not Path(weights).suffix and Path(weights).name == str(weights) and not Path(weights).exists():
        must_be_named(str(weights))
    told = checkpoints.options(weights) if Path(weights).suffix.lower() != ".safetensors" else {}
    deblur_net = _deblur_net(weights, network, bool(told.get("network_g")))
    if adapted and reblur_weights is None and told.get("network_r"):
        path = Path(weights)
        if "net_g" not in path.name:
            raise CheckpointError(
                f"{path}: expected net_g_*.pth, whose M_R has the same ending; give reblur_weights, too"
            )
        reblur_weights = path.with_name(path.name.replace("net_g", "net_r", 1))
    if not adapted or reblur_weights is None:
        return Networks(deblur_net, None)
    return Networks(deblur_net, checkpoints.network(reblur_weights, "r"))


def _deblur_net(weights: str | Path, network: Mapping[str, Any] | None, is_ours: bool) -> nn.Module:
    if network is not None or is_ours:
        return checkpoints.network(weights, "g", network)
    if importlib.util.find_spec("spandrel") is None:
        raise CheckpointError(
            f"{weights}: doesn't tell which network it belongs to; pip install spandrel, which knows many by their "
            "weights (NAFNet, Uformer ...), or name it: --network '{type: ...}'"
        )
    try:
        return checkpoints.network(weights, "g", {"type": "SpandrelNet", "weights": str(weights)})
    except CheckpointError as error:
        raise CheckpointError(f"{error}; name it: --network '{{type: ...}}'") from error
