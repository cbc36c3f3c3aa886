#!/usr/bin/env bash
# Install the lowest versions that pyproject.toml allows into .venv-floors, extras too, and run the fast tests with
# them: a floor is a version that was run. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv-floors/bin/python ] || python3 -m venv .venv-floors
python3 - > .venv-floors/floors.txt << 'EOF'
import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = {each for group in project["optional-dependencies"].values() for each in group}
for each in sorted({*project["dependencies"], *wanted}):
    floor = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9][^,;\s]*)", each)
    if floor is None:
        sys.exit(f"error: {each!r} in pyproject.toml has no floor: write 'name>=version'")
    print(f"{floor[1]}=={floor[2]}")
EOF
.venv-floors/bin/python -m pip install --quiet --editable . --requirement .venv-floors/floors.txt
exec .venv-floors/bin/python -m pytest -n 2 --dist loadfile -m "not slow" "$@"
