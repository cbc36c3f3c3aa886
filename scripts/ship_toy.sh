#!/usr/bin/env bash
# Make the model that is shipped with minisora: train configs/modes.yaml (an hour on two cores), judge it in every
# mode and size, and write minisora/weights/toy in half precision with its model card. RUN defaults to runs/modes.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
run="${1:-runs/modes}"
minisora=.venv/bin/minisora
$minisora train --config modes --out "$run"
$minisora evaluate prompts --model "$run/model" --prompts all --batch-size 24 --out "$run/scores"
$minisora evaluate modes --model "$run/model" --batch-size 24 --out "$run/scores"
$minisora evaluate sizes --model "$run/model" --batch-size 24 --samples-per-prompt 4 --out "$run/scores" \
  --sizes 17x64x64,17x48x80,17x80x48,17x96x96,5x64x64,9x64x64,33x64x64,1x64x64
$minisora evaluate steps --model "$run/model" --steps 1,2,4,8,16,32,64,250 --batch-size 24 --out "$run/scores"
$minisora export --model "$run/model" --out minisora/weights/toy --made-by "minisora train --config modes" \
  --scores "$run/scores/evaluate.json" --scores "$run/scores/modes.json" --scores "$run/scores/sizes.json" \
  --scores "$run/scores/steps.json"
