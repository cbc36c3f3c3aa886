#!/usr/bin/env bash
# Install once, then train a miniature Sora and show it: runs/demo/index.html. Arguments go to `minisora demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
# No exec: the minutes of a process begin when it does, and those of the installation are not the demo's.
.venv/bin/minisora demo "$@"
