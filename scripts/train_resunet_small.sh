#!/usr/bin/env bash
# Trains the weights that this project ships: data, M_D by L1, then M_D and M_R together. Run again, it goes on.
#   scripts/train_resunet_small.sh FOLDER   FOLDER: photographs, {GOPRO_Large_all,GOPRO_averaged,GOPRO,REDS}/train
# With those of docs/photographs.md: 2604 shaken pairs, 75 others eight times each; a pack of 17 GB, 25 minutes of a core.
set -euo pipefail

data=$(cd "$1" && pwd)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"
pairs=datasets/resunet_small_pairs

make() { # name, source, settings: pairs made once, or gone on with
    "$python" -m reblur_plugin.data synthesise "$2" "$pairs/$1" "${@:3}"
}

shake() { # name, source, pairs of each photograph: in both kinds of blur, half with noise, a third through JPEG
    local settings=(--count "$3" --poses 21)
    make "$1_linear" "$2" "${settings[@]}" --shake 2-32 --gamma 1 --seed 1
    make "$1_turned" "$2" "${settings[@]}" --shake 4-40 --gamma 1 --seed 2 --rotation .01
    make "$1_jpeg" "$2" "${settings[@]}" --shake 2-32 --gamma 1 --seed 3 --noise 1 --jpeg 70-95
    make "$1_gamma" "$2" "${settings[@]}" --shake 2-32 --seed 4 --noise 1
    make "$1_lights" "$2" "${settings[@]}" --shake 2-25 --seed 5 --highlights 2
    make "$1_gamma_jpeg" "$2" "${settings[@]}" --shake 2-32 --seed 6 --noise 2 --jpeg 60-95
}

if [ ! -e datasets/resunet_small/index.json ]; then
    sharp=$pairs/sharp # one folder of all that is sharp
    mkdir -p "$sharp"
    for folder in "$data"/GOPRO/train/*/sharp "$data"/GOPRO_averaged/train/*/sharp "$data"/REDS/train/train_sharp/*; do
        for picture in "$folder"/*; do ln -sf "$picture" "$sharp/$(tr / _ <<<"${picture#"$data"/}")"; done
    done
    shake photographs "$data/photographs" 3
    shake frames "$sharp" 2
    make averaged "$data/GOPRO_Large_all/train" --frames 7-13 --stride 3
    make averaged_linear "$data/GOPRO_Large_all/train" --frames 7-13 --stride 3 --gamma 1
    rm -rf "$pairs/joined" # links
    "$python" scripts/join_pairs.py "$pairs/joined" "$pairs"/photographs_* "$pairs"/frames_* \
        8x"$pairs/averaged" 8x"$pairs/averaged_linear" 8x"$data/GOPRO_averaged/train" 8x"$data/GOPRO/train" 8x"$data/REDS/train"
    "$python" -m reblur_plugin.data pack "$pairs/joined" datasets/resunet_small --blur-key blur
fi
"$python" -m reblur_plugin.train -opt options/resunet_small_l1.yml --auto_resume
"$python" -m reblur_plugin.train -opt options/resunet_small_n2.yml --auto_resume
