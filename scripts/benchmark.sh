#!/usr/bin/env bash
# Sets up what is missing, then measures everything in one go: scripts/benchmark.sh [cpu | cuda] [NAME] [arguments]
# (arguments that all four commands take: --quick, --repeats N, --threads N)
# JSON goes to benchmarks/results/NAME_*.json; NAME is the GPU's, or cpu1: one thread, so that other jobs disturb little.
# benchmarks/README.md says what the numbers should be.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"
device=${1:-$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')}
if [[ $device == cpu ]]; then
    export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
    name=${2:-cpu1}
else
    name=${2:-$("$python" -c 'import torch; print(torch.cuda.get_device_name().lower().replace(" ", "_"))')}
fi
for what in step tta data metrics; do
    printf '\n== %s\n' "$what"
    "$python" -m benchmarks "$what" --device "$device" --json "benchmarks/results/${name}_$what.json" "${@:3}"
done
