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

    from reblur_plugin.pretrained.dmphn import convert

    count = convert(arguments.folder, arguments.out, arguments.network)
    sys.stdout.write(f"{arguments.out}: {count} tensors for DHN and DMPHN with upsample: deconv\n")
    return 0


if __name__ == "__main__":
    from reblur_plugin.cli import guarded

    sys.exit(guarded(main))
