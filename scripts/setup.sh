#!/usr/bin/env bash
# Make .venv once and install minisora into it; a second call with an unchanged pyproject.toml does nothing.
# Usage: scripts/setup.sh [EXTRA]   (EXTRA: dev)
set -euo pipefail
cd "$(dirname "$0")/.."

extra="${1:-}"
stamp=".venv/.minisora-${extra:-run}-$(cksum < pyproject.toml | tr ' ' '-')"
[ -f "$stamp" ] && exit 0

if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then # none yet, or one left without pip
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: minisora needs Python 3.11 or newer; python3 is $(python3 --version)" >&2
    exit 2
  }
  if [ -e .venv ]; then new=; else new=1; fi
  python3 -m venv .venv > /dev/null || {
    [ -z "$new" ] || rm -rf .venv
    echo "error: python3 -m venv .venv failed; on Debian and Ubuntu install its parts with" \
      "'apt install python3-venv', then run this again" >&2
    exit 2
  }
fi
echo "installing minisora into .venv (once; torch is large)"
.venv/bin/python -m pip install --quiet --editable ".${extra:+[$extra]}"
touch "$stamp"
