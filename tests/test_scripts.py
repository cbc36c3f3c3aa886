"""scripts/setup.sh where Python comes without its venv package, as on Debian."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A python3 whose .venv has a python that ends with the same status: 1 as Debian's without python3-venv, or 0.
PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit 0
mkdir -p .venv/bin
echo "exit STATUS" > .venv/bin/python
chmod +x .venv/bin/python
echo "The virtual environment was (not) created successfully"
exit STATUS
"""


def test_a_venv_without_pip_is_told_in_one_line_and_made_anew(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def setup(status: int) -> subprocess.CompletedProcess[str]:
        python = tmp_path / "bin" / "python3"
        python.write_text(PYTHON.replace("STATUS", str(status)))
        python.chmod(0o755)
        path = f"{tmp_path / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        return subprocess.run(
            ["bash", "scripts/setup.sh"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True
        )

    for _ in range(2):
        done = setup(status=1)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "install its parts with 'apt install python3-venv', then run this again" in done.stderr
        assert not (tmp_path / ".venv").exists()
    # With the package installed a .venv that was left without pip is made anew.
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text("exit 1")
    done = setup(status=0)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / ".venv").glob(".minisora-run-*"))
