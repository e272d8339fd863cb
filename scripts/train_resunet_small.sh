#!/usr/bin/env bash
# Trains the weights that this project ships: data, M_D by L1, then M_D and M_R together. Run again, it goes on.
#   scripts/train_resunet_small.sh FOLDER   FOLDER: photographs/, GOPRO_Large_all/train, GOPRO/train, REDS/{train_blur,train_sharp}
set -euo pipefail

data=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"

if [ ! -e datasets/resunet_small ]; then
    mix=datasets/resunet_small_pairs
    "$python" -m reblur_plugin.data synthesise "$data/photographs" "$mix/shaken" --shake 2-40 --count 5 --noise 1
    "$python" -m reblur_plugin.data synthesise "$data/GOPRO_Large_all/train" "$mix/averaged" --frames 7-13 --stride 4
    "$python" scripts/join_pairs.py "$mix/joined" "$mix/shaken" 5x"$mix/averaged" 5x"$data/GOPRO/train" 5x"$data/REDS"
    "$python" -m reblur_plugin.data pack "$mix/joined" datasets/resunet_small --blur-key blur
fi
"$python" -m reblur_plugin.train -opt options/resunet_small_l1.yml --auto_resume
"$python" -m reblur_plugin.train -opt options/resunet_small_n2.yml --auto_resume
