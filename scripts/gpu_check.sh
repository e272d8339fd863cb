#!/usr/bin/env bash
# All that only a GPU shows, in the minutes in which one is at hand: scripts/gpu_check.sh [DEVICE] [SECONDS IN ALL]
# Each part has its own time and may fail. OUT (gpu_out) gets summary.txt, check.json, tests.txt, train.txt, step.json,
# tta.json, compile.json and log.txt, the ends of all logs. PARTS="check step" runs these alone, on what is there.
# TINY=1 tries it out on a CPU: small sizes, no compiling. PYTHON names the interpreter.
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
device=${1:-cuda:0} total=${2:-550} tiny=${TINY:-} parts=${PARTS:-}
gpu=$root/.gpu work=${WORK:-${TMPDIR:-/tmp}/gpu_check}
mkdir -p "${OUT:=$PWD/gpu_out}" "$work"
out=$(cd "$OUT" && pwd)
[[ -n $parts ]] || rm -f "$out"/{summary,log,tests,train}.txt "$out"/{check,step,tta,compile}.json
python=${PYTHON:-$([[ -x $root/.venv/bin/python ]] && echo "$root/.venv/bin/python" || echo python3)}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
export TORCHINDUCTOR_CACHE_DIR=$work/inductor TRITON_CACHE_DIR=$work/triton
has_all='import importlib.util as u; assert all(map(u.find_spec, ("basicsr", "jsonschema", "lmdb", "lpips", "platformdirs")))'
"$python" -c "$has_all" 2>/dev/null || PYTHONPATH=$PYTHONPATH:$gpu/site

part() { # name, most seconds, command...
    local name=$1 most=$2 left=$((total - SECONDS)) begin=$SECONDS status
    shift 2
    [[ -z $parts || " $parts " == *" $name "* ]] || return 0
    ((left >= most)) || most=$left
    ((most >= 5)) || { echo "$name: left out, no time" | tee -a "$out/summary.txt" && return; }
    printf '\n=== %s (at %d s, at most %d s)\n' "$name" "$SECONDS" "$most"
    (cd "$work" && timeout -k 5 "$most" "$@") >"$work/$name.log" 2>&1
    status=$?
    tail -n 20 "$work/$name.log" | cut -c1-240
    echo "$name: exit $status after $((SECONDS - begin)) s" | tee -a "$out/summary.txt"
    { printf '\n=== %s: exit %s\n' "$name" "$status" && tail -c 300000 "$work/$name.log"; } >>"$out/log.txt"
}

data=$work/data # written by the part check
small=() quick=() forms=() iterations=200 resumed=240 batch=16 size=256 workers=8 shown=50
if [[ -n $tiny ]]; then
    iterations=2 resumed=3 batch=2 size=32 workers=1 shown=1 quick=(--quick --repeats 1 --no-memory --networks U-Net)
    small=(network_g:num_blocks=1 "network_g:num_feats=[4, 4, 4]" network_r:num_blocks=1 network_r:num_feat=4)
fi
scores="psnr: {type: calculate_psnr, crop_border: 0}, ssim: {type: reblur_ssim}, niqe: {type: reblur_niqe}"
[[ ! -e $gpu/squeeze.pth ]] || scores+=", lpips: {type: reblur_lpips, net: squeeze, weights: $gpu/squeeze.pth}"
small+=(num_gpu=$([[ $device == cpu ]] && echo 0 || echo 1) "val:metrics={$scores}")
train=("$python" -m reblur_plugin.train -opt "$root/options/gopro_unet_n2.yml" --force_yml "${small[@]}"
    datasets:train:dataroot="$data/train" datasets:train:gt_size=$size datasets:train:batch_size_per_gpu=$batch
    datasets:train:num_worker_per_gpu=$workers datasets:train:cache=true datasets:val:dataroot="$data/test"
    val:val_freq=$iterations val:metrics:rb="{type: reblurability}" logger:print_freq=$shown
    logger:save_checkpoint_freq=$((iterations / 2)) logger:use_tb_logger=false)
[[ $device == cpu ]] || forms=("ours bf16 channels_last fused")

part tests 90 "$python" -m pytest -q -p no:cacheprovider -rA -k gpu "$root/tests/evaluation"
cp "$work/tests.log" "$out/tests.txt" 2>/dev/null
part check 150 "$python" "$root/scripts/gpu_check.py" "$device" "$out/check.json" "$gpu/data/test" \
    "$data" ${tiny:+--tiny}
part train_bf16 80 "${train[@]}" name=gpu_bf16 train:amp=bf16 train:total_iter=$iterations
part resume_bf16 50 "${train[@]}" name=gpu_bf16 train:amp=bf16 train:total_iter=$resumed \
    train:optim_g:fused=true train:optim_r:fused=true --auto_resume
part step 100 "$python" -m benchmarks step --device "$device" --networks U-Net --precisions bf16 --repeats 5 \
    "${quick[@]}" --json "$out/step.json" --forms "ours reblur_first bf16" "plain bf16 channels_last" \
    "ours reblur_first bf16 channels_last" "ours reblur_first bf16 channels_last fused"
part tta 150 "$python" -m benchmarks tta --device "$device" --sizes 1280x720 --repeats 3 --no-memory "${quick[@]}" \
    --json "$out/tta.json" --forms "ours fp32" "ours fp32 channels_last fused" "${forms[@]}"
part train_fp16 60 "${train[@]}" name=gpu_fp16 train:amp=fp16 train:total_iter=$iterations
part train_fp32 70 "${train[@]}" name=gpu_fp32 train:amp=null train:total_iter=$iterations
models=$work/experiments/gpu_bf16/models
part test_tta 45 "$python" -m reblur_plugin.test -opt "$root/options/gopro_unet_n2_tta.yml" --force_yml name=gpu_tta \
    "${small[@]}" datasets:test:dataroot="$data/test" path:pretrain_network_g="$models/net_g_latest.pth" \
    path:pretrain_network_r="$models/net_r_latest.pth" val:tta:histogram=torch
part deblur 40 "$python" -m reblur_plugin.deblur "$data/shot.png" -o "$work/sharp" --overwrite --device "$device" \
    --weights "$models/net_g_latest.pth" --steps 2
[[ -n $tiny ]] || part compile 150 "$python" -m benchmarks step --device "${device%:*}" --networks U-Net --repeats 3 \
    --precisions bf16 --no-memory --json "$out/compile.json" --compile \
    --forms "ours reblur_first bf16 channels_last compile"
cat "$work"/{train,resume,test,deblur}*.log 2>/dev/null | cut -c1-400 | tail -c 200000 >"$out/train.txt"
printf '\n' && cat "$out/summary.txt"
