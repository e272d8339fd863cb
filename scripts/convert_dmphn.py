"""Turn the official DMPHN(1-2-4-8) checkpoints into one file for DHN and DMPHN.

    python scripts/convert_dmphn.py CHECKPOINT_FOLDER OUT.pth

CHECKPOINT_FOLDER holds encoder_lv1.pkl ... decoder_lv4.pkl as published; OUT.pth serves as `pretrain_network_g`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the eight published files")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument(
        "--network", choices=("DMPHN", "DHN"), default="DMPHN", help="what reblur_plugin.deblur runs it as (DMPHN)"
    )
    arguments = parser.parse_args()

    from reblur_plugin import checkpoints
    from reblur_plugin.archs.dmphn_arch import DHN, DMPHN

    network = {"DMPHN": DMPHN, "DHN": DHN}[arguments.network]()
    for part in (f"{kind}_lv{level}" for level in (1, 2, 3, 4) for kind in ("encoder", "decoder")):
        checkpoints.load_weights(network.get_submodule(part), arguments.folder / f"{part}.pkl")
    origin = {"options": {"network_g": {"type": arguments.network}}}
    checkpoints.save_network({"params": network}, origin, arguments.out)
    sys.stdout.write(f"{arguments.out}: {len(network.state_dict())} tensors for DHN and DMPHN with upsample: deconv\n")
    return 0


if __name__ == "__main__":
    from reblur_plugin.cli import guarded

    sys.exit(guarded(main))
