#!/usr/bin/env bash
# Make .venv once and install minisora into it; a second call with an unchanged pyproject.toml does nothing.
# Usage: scripts/setup.sh [EXTRA] [--wheels DIR] [--system-torch]
#   EXTRA            dev
#   --wheels DIR     from carried wheels alone, without the internet
#   --system-torch   beside the torch that is installed on the machine already
set -euo pipefail
cd "$(dirname "$0")/.."

extra='' wheels='' from=() site=()
while [ $# -gt 0 ]; do
  case "$1" in
    --wheels)
      wheels="${2:-}"
      compgen -G "$wheels/*.whl" > /dev/null || {
        echo "error: --wheels $wheels is no folder with wheels: make it with 'pip wheel --wheel-dir DIR .'" >&2
        exit 2
      }
      from=(--no-index --find-links "$wheels")
      shift
      ;;
    --system-torch) site=(--system-site-packages) ;;
    -*) echo "error: unknown option $1; known: --wheels DIR --system-torch" >&2 && exit 2 ;;
    *) extra="$1" ;;
  esac
  shift
done
stamp=".venv/.minisora-${extra:-run}-$(cksum < pyproject.toml | tr ' ' '-')"
[ -f "$stamp" ] && exit 0

if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then # none yet, or one left without pip
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: minisora needs Python 3.11 or newer; python3 is $(python3 --version)" >&2
    exit 2
  }
  if [ -e .venv ]; then new=; else new=1; fi
  python3 -m venv ${site[@]+"${site[@]}"} .venv > /dev/null || {
    [ -z "$new" ] || rm -rf .venv
    echo "error: python3 -m venv .venv failed; on Debian and Ubuntu install its parts with" \
      "'apt install python3-venv', then run this again" >&2
    exit 2
  }
fi
echo "installing minisora into .venv (once; torch is large)"
.venv/bin/python -m pip install --quiet ${from[@]+"${from[@]}"} --editable ".${extra:+[$extra]}"
touch "$stamp"
