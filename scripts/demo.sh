#!/usr/bin/env bash
# From nothing to deblurred photographs: sets up, deblurs a real one with the shipped weights, then trains a small M_D
# and M_R of its own and adapts to photographs that they never saw.
set -euo pipefail
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # threads that wait leave the cores to others

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"

echo "1/4 a real blurry photograph, deblurred and adapted with the weights that are part of this project (seconds)"
"$python" -m reblur_plugin.deblur docs/blurry.jpg -o results/photograph --weights resunet-small --compare --overwrite
echo "Picture: results/photograph/blurry_comparison.png"

echo "2/4 data: photographs that scikit-image ships, blurred by a simulated camera shake"
"$python" scripts/make_demo_data.py datasets/demo

echo "3/4 training M_D and M_R (minutes, a quarter of an hour without bf16; after Ctrl-C, start again to go on)"
"$python" -m reblur_plugin.train -opt options/demo.yml --auto_resume

echo "4/4 deblurring and adapting to photographs that were not trained on"
lpips=()
if "$python" -c 'from reblur_plugin.metrics.lpips_metric import load_lpips; load_lpips("alex")' 2>/dev/null; then
    lpips=(--force_yml "val:metrics:lpips={type: reblur_lpips, net: alex}")
else
    echo "LPIPS is left out: the weights of its AlexNet can't be downloaded here"
fi
"$python" -m reblur_plugin.test -opt options/demo_tta.yml "${lpips[@]}"
echo "Pictures: results/demo_tta/visualization/photographs/*/*_comparison.png"
