#!/usr/bin/env bash
# On a CUDA machine: GPU tests, the ledger on real CUDA tensors, the calibration, activations held against the planner's,
# a short training with MFU.
# Usage: scripts/gpu.sh [--minutes M] [--ladder] [--wheels DIR] [--system-torch]
#   --minutes M     stop after M minutes, such as 8 where a call may take 10; the same again goes on
#   --ladder        and the scaling ladder h100, for hours, held against what was predicted of it
#   --wheels DIR, --system-torch   as of scripts/setup.sh, for a machine without the internet
# Results go to benchmarks/results/CARD/, named after the card. Status 3: more is left, run it again.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=100000 ladder='' setup=(dev)
while [ $# -gt 0 ]; do
  case "$1" in
    --minutes) minutes="${2:-}" && shift ;;
    --ladder) ladder=1 ;;
    --wheels) setup+=(--wheels "${2:-}") && shift ;;
    --system-torch) setup+=(--system-torch) ;;
    *) echo "error: unknown option $1; known: --minutes M --ladder --wheels DIR --system-torch" >&2 && exit 2 ;;
  esac
  shift || break
done
[[ "$minutes" =~ ^(0|[1-9][0-9]*)$ ]] || { echo "error: --minutes $minutes is no whole number" >&2 && exit 2; }
end=$((SECONDS + 60 * minutes))

scripts/setup.sh "${setup[@]}"
python=.venv/bin/python minisora=.venv/bin/minisora
$python -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || {
  echo "error: no CUDA device: run this on a machine with an NVIDIA GPU and its driver" >&2
  exit 2
}
card=$($python -c 'import torch; print(torch.cuda.get_device_name(0).replace(" ", "-"))')
out="benchmarks/results/$card"
done="runs/gpu-$card"
mkdir -p "$out" "$done"

# piece NAME whole|parts COMMAND...: once. One that goes on in parts may be stopped, another must end in one call.
piece() {
  local name="$1" kind="$2" left=$((end - SECONDS)) status=0
  shift 2
  [ -f "$done/$name" ] && return
  if [ "$left" -le 0 ]; then
    echo "next: $name; run this again"
    exit 3
  fi
  echo "$name"
  timeout --kill-after=30 "$left" "$@" || status=$?
  # 137: killed; by `timeout` if time is up, or else by the system, for memory.
  if [ "$status" = 124 ] || { [ "$status" = 137 ] && [ "$SECONDS" -ge "$end" ]; }; then
    if [ "$kind" = whole ] && [ "$left" -ge $((60 * minutes - 60)) ]; then
      echo "error: $name took more than $minutes minutes: give it more (--minutes)" >&2
      exit 1
    fi
    echo "stopped: $name; run this again"
    exit 3
  fi
  [ "$status" = 0 ] || { echo "error: $name ended with status $status; run this again" >&2 && exit "$status"; }
  touch "$done/$name"
}

piece tests whole bash -c "set -o pipefail; $python -m pytest -m cuda | tee '$out/tests.txt'"
piece flops whole $minisora flops --config small_gpu --device cuda --time --json "$out/flops.json"
piece calibrate whole $minisora calibrate --device cuda --out "$out/calibration.json" --plot "$out/roofline.png"
piece memory whole $python benchmarks/plan_memory.py --card --json "$out/plan_memory.json"
piece train parts $minisora train --config small_gpu --out "runs/$card" --set train_vae.steps=500 \
  --set train_dit.steps=500 --set train_dit.sample_every=0 --set train_vae.save_every=100 --set train_dit.save_every=100
cp "runs/$card/metrics.jsonl" "$out/metrics.jsonl"
if [ -n "$ladder" ]; then
  piece ladder parts $minisora scale run --ladder h100 --out "runs/ladder-$card"
  piece check whole $python benchmarks/ladder_prediction.py --check "runs/ladder-$card/results.jsonl" \
    --json "$out/ladder.json"
fi
echo "results in $out"
