#!/usr/bin/env bash
# What the studio must show, made again on this machine; the rest of it is in tests/studio and tests/serve.
# Usage: scripts/studio.sh [walk] [views] [closed] [faults] [load] [paint] [video]    all of them if none is named
#   walk     a person's way with the shipped model: words, four variations, every edit, download, the same bytes again
#   views    every view by axe-core, at 1280 and 375 pixels, dark and light; what jumps, what scrolls sideways
#   closed   a test for each line of the threat list in docs/how-to/studio.md
#   faults   killed 20 times, cancelled, and asked for what it must refuse, 100 damaged files among it
#   load     1,000 videos, 50 jobs, 20 pages that watch, for 10 minutes
#   paint    first contentful paint and layout shift of every view
#   video    the picture of the README
# Results go to OUT, runs/studio if it is not set: pictures, and a JSON file each of faults, load and paint. Kept as
# benchmarks/results/studio-faults_MACHINE_DATE.json and so on, `python scripts/results.py` writes them up.
# Needs Chromium; views needs axe-core: npm install axe-core here, or NODE_PATH to where it is.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}" out="${OUT:-runs/studio}"
[ $# -gt 0 ] || set -- walk views closed faults load paint video
mkdir -p "$out/pictures"
# So that what is skipped is seen, and its reason.
tests=("$python" -m pytest -q -rs)

for part in "$@"; do
  case "$part" in
    walk) MINISORA_PICTURES="$out/pictures" "${tests[@]}" tests/studio/test_walk.py ;;
    views) MINISORA_PICTURES="$out/pictures" "${tests[@]}" tests/studio/test_views.py ;;
    closed) "${tests[@]}" tests/serve tests/studio -m "not slow" ;;
    faults | load | paint) "$python" "benchmarks/studio_$part.py" --json "$out/$part.json" ;;
    video) "$python" scripts/studio_video.py ;;
    *) echo "error: unknown part $part; known: walk views closed faults load paint video" >&2 && exit 2 ;;
  esac
done
