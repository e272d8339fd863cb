"""The official DMPHN(1-2-4-8) checkpoints as one file of ours."""

from __future__ import annotations

from pathlib import Path

FILES = tuple(f"{kind}_lv{level}.pkl" for level in (1, 2, 3, 4) for kind in ("encoder", "decoder"))


def convert(folder: Path, out: Path, network: str = "DHN") -> int:
    """Write the eight published files as one that DHN and DMPHN load; return its number of tensors.

    Args:
        folder: of the published files.
        out: file to write.
        network: "DHN" or "DMPHN", what the file says it belongs to.

    Raises:
        CheckpointError: if one of them is missing, damaged or doesn't fit.
    """
    from reblur_plugin import checkpoints  # here: PyTorch is slow to load
    from reblur_plugin.archs.dmphn_arch import DHN

    joined = DHN()
    for name in FILES:
        checkpoints.load_weights(joined.get_submodule(name.removesuffix(".pkl")), folder / name)
    origin = {"options": {"network_g": {"type": network}}, "blur_kind": "blur"}
    checkpoints.save_network({"params": joined}, origin, out)
    return len(joined.state_dict())
