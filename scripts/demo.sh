#!/usr/bin/env bash
# Install once, then train a miniature Sora and show it: runs/demo/index.html. Arguments go to `minisora demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
exec .venv/bin/minisora demo "$@"
