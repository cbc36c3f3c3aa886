#!/usr/bin/env bash
# Install once, then lint, type-check and test in two processes. Arguments go to pytest: -m "not slow" is the
# inner loop.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/python -m pytest -n 2 --dist loadfile "$@"
