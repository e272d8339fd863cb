#!/usr/bin/env bash
# Makes .gpu, which scripts/gpu_check.sh reads: scripts/prepare_gpu_check.sh [GOPRO_Large [SQUEEZENET.pth]]
# It holds what a machine with PyTorch and no network lacks: packages for its Python (PYTHON_VERSION, 3.12) on x86-64,
# the first pairs of GOPRO's test, and torchvision's SqueezeNet for LPIPS. Git ignores it: it is to be carried along.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$("$root/scripts/setup.sh")}
gpu=$root/.gpu
packages=(jsonschema jsonschema-specifications referencing rpds-py lmdb lpips platformdirs)
platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)
rm -rf "$gpu"
mkdir -p "$gpu/wheels" "$gpu/site"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
    --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --dest "$gpu/wheels" "${packages[@]}"
for wheel in "$gpu"/wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$gpu/site"; done
installed=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r "$installed"/basicsr "$installed"/basicsr-*.dist-info "$gpu/site" # pure Python, built by scripts/setup.sh
rm -r "$gpu/wheels"
find "$gpu/site" -name __pycache__ -prune -exec rm -r {} +
blurry=()
[[ -z ${1:-} ]] || blurry=("$1"/test/*/blur/*.png)
for picture in "${blurry[@]:0:8}"; do
    sequence=${picture%/blur/*} pair=$gpu/data/test/$(basename "${picture%/blur/*}")
    mkdir -p "$pair/blur_gamma" "$pair/sharp" # the names that option files ask for
    cp "$picture" "$pair/blur_gamma" && cp "$sequence/sharp/${picture##*/}" "$pair/sharp"
done
[[ -z ${2:-} ]] || cp "$2" "$gpu/squeeze.pth"
du -sh "$gpu"/*
