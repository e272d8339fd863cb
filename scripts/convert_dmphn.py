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
    arguments = parser.parse_args()

    from reblur_plugin import checkpoints
    from reblur_plugin.archs.dmphn_arch import DHN

    weights = {}
    for part in (f"{kind}_lv{level}" for level in (1, 2, 3, 4) for kind in ("encoder", "decoder")):
        weights |= {
            f"{part}.{name}": value for name, value in checkpoints.state_dict(arguments.folder / f"{part}.pkl").items()
        }
    checkpoints.save({"params": weights}, arguments.out)
    try:
        checkpoints.load_weights(DHN(), arguments.out)
    except checkpoints.CheckpointError:
        arguments.out.unlink()
        raise
    sys.stdout.write(f"{arguments.out}: {len(weights)} tensors for DHN and DMPHN with upsample: deconv\n")
    return 0


if __name__ == "__main__":
    from reblur_plugin.cli import guarded

    sys.exit(guarded(main))
