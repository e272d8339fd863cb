"""Table 1 at small scale: the better deblurred, the harder to reblur. Run again, it goes on.

    python scripts/table1.py -o report/table1
    python scripts/table1.py --train GOPRO_Large/train --test GOPRO_Large/test -o report/table1

Trains narrow U-Nets with more and more ResBlocks by L1, then an M_R on the results of each by L_Blur alone. The report
has PSNR of L against S, of M_R(L) against B, and of L against B, which makes a part of the relation trivial.
Without folders it takes the demo's data: photographs that scikit-image ships, with simulated shake.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Narrower and shorter than the demo's; without M_R, M_D's block has nothing of it
L1 = ["network_r=null", "train:optim_r=null", "train:reblur_opt=null"]
REBLUR = ["train:freeze_deblur_net=true", "train:optim_g=null", "train:pixel_opt=null", "train:ema_decay=null"]
REBLUR += ["train:reblur_opt={sharp_reference: none}"]  # L_Blur alone (D25)


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="pairs to train on, in GOPRO's layout")
    parser.add_argument("--test", type=Path, metavar="FOLDER", help="pairs of other scenes")
    parser.add_argument("--blur-key", default="blur", help="kind of their blur (default blur)")
    parser.add_argument(
        "--blocks", nargs="+", type=int, default=[1, 2, 4, 8], metavar="N", help="ResBlocks of each U-Net"
    )
    parser.add_argument("--iterations", type=int, default=2400, help="of each U-Net (default 2400)")
    parser.add_argument("--reblur-iterations", type=int, default=800, help="of each M_R (default 800)")
    parser.add_argument("-o", "--out", type=Path, default=Path("report/table1"), help="folder of the report")
    arguments = parser.parse_args()
    if (arguments.train is None) != (arguments.test is None):
        parser.error("give both --train and --test, or neither for the demo's data")
    if arguments.train is None:
        arguments.train, arguments.test = Path("datasets/demo/train"), Path("datasets/demo/test")
        _run(ROOT / "scripts" / "make_demo_data.py", "datasets/demo")
    results = [_result(blocks, arguments) for blocks in arguments.blocks]
    _run("-m", "reblur_plugin.report", *results, "-o", arguments.out, "--title", "Table 1 at small scale")
    sys.stdout.write((arguments.out / "tables" / "inverse_relation.md").read_text(encoding="utf-8"))
    return 0


def _result(blocks: int, arguments: argparse.Namespace) -> Path:
    """Train and test one U-Net and its M_R; return the test's folder."""
    deblurring, reblurring = f"table1_unet{blocks}_l1", f"table1_reblur_on_unet{blocks}"
    data = [f"datasets:train:dataroot={arguments.train}", f"datasets:train:blur_key={arguments.blur_key}"]
    data += ["datasets:val=null", "val=null", f"network_g:num_blocks={blocks}"]
    weights = f"path:pretrain_network_g=experiments/{deblurring}/models/net_g_latest.pth"
    length = _length(arguments.iterations), _length(arguments.reblur_iterations)
    _train(deblurring, [*data, *L1, *length[0]])
    _train(reblurring, [*data, *REBLUR, *length[1], weights])
    found = Path("results") / f"{reblurring}_test"
    if not (found / "summary.json").is_file():
        changes = [
            f"name={found.name}",
            f"network_g:num_blocks={blocks}",
            weights,
            "val:tta=null",
            "val:reblurred=true",
        ]
        changes += [f"path:pretrain_network_r=experiments/{reblurring}/models/net_r_latest.pth"]
        changes += [f"datasets:test:dataroot={arguments.test}", f"datasets:test:blur_key={arguments.blur_key}"]
        _run("-m", "reblur_plugin.test", "-opt", ROOT / "options" / "demo_tta.yml", "--force_yml", *changes)
    return found


def _length(iterations: int) -> list[str]:
    milestones = [iterations * 7 // 10, iterations * 9 // 10]
    return [
        f"train:total_iter={iterations}",
        f"train:scheduler={{type: MultiStepLR, milestones: {milestones}, gamma: 0.3}}",
    ]


def _train(name: str, changes: Sequence[str]) -> None:
    options = ROOT / "options" / "demo.yml"
    _run("-m", "reblur_plugin.train", "-opt", options, "--auto_resume", "--force_yml", f"name={name}", *changes)


def _run(*command: object) -> None:
    done = subprocess.run([sys.executable, *map(str, command)], check=False)
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    sys.exit(main())
