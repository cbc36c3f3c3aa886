#!/usr/bin/env bash
# On a CUDA machine: GPU tests, the ledger on real CUDA tensors, the calibration, a short training with MFU.
# Results go to benchmarks/results/CARD/, named after the card.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh dev
python=.venv/bin/python
$python -c 'import torch; raise SystemExit(not torch.cuda.is_available())' || {
  echo "error: no CUDA device: run this on a machine with an NVIDIA GPU and its driver" >&2
  exit 2
}
card=$($python -c 'import torch; print(torch.cuda.get_device_name(0).replace(" ", "-"))')
out="benchmarks/results/$card"
mkdir -p "$out"

$python -m pytest -m cuda | tee "$out/tests.txt"
.venv/bin/minisora flops --config small_gpu --device cuda --time --json "$out/flops.json"
.venv/bin/minisora calibrate --device cuda --out "$out/calibration.json" --plot "$out/roofline.png"
.venv/bin/minisora train --config small_gpu --out "runs/$card" \
  --set train_vae.steps=500 --set train_dit.steps=500 --set train_dit.sample_every=0
cp "runs/$card/metrics.jsonl" "$out/metrics.jsonl"
echo "results in $out"
