"""Make a small file of a trained network: its averaged weights in half precision, and what they come from.

    python scripts/ship_weights.py experiments/NAME/models/net_g_latest.pth reblur_plugin/pretrained/net_g_NAME.pth

Networks are built in float32 and take such weights as they are. Folders of the training aren't told.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Convert as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="net_g_*.pth or net_r_*.pth of a training")
    parser.add_argument("out", type=Path, help="file to write")
    arguments = parser.parse_args()

    from reblur_plugin import checkpoints

    origin = checkpoints.load(arguments.checkpoint)["origin"]
    told = {key: origin["options"][key] for key in ("network_g", "network_r") if key in origin["options"]}
    params = {name: value.half() for name, value in checkpoints.state_dict(arguments.checkpoint).items()}
    kept = {key: origin[key] for key in ("versions", "seed", "blur_kind", "iteration")}
    checkpoints.save({"params": params, "origin": {"options": told, **kept}}, arguments.out)
    sys.stdout.write(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB\n")
    return 0


if __name__ == "__main__":
    from reblur_plugin.cli import guarded

    sys.exit(guarded(main))
