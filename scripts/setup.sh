#!/usr/bin/env bash
# Make .venv once and install minisora into it; a second call with an unchanged pyproject.toml does nothing.
# Usage: scripts/setup.sh [EXTRA]   (EXTRA: dev)
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
stamp=".venv/.minisora-${extra:-run}-$(cksum < pyproject.toml | tr ' ' '-')"
[ -f "$stamp" ] && exit 0

if [ ! -x .venv/bin/python ]; then
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: minisora needs Python 3.11 or newer; python3 is $(python3 --version)" >&2
    exit 2
  }
  python3 -m venv .venv
fi
echo "installing minisora into .venv (once; torch is large)"
.venv/bin/python -m pip install --quiet --editable ".${extra:+[$extra]}"
touch "$stamp"
