"""A short campaign of faults (`benchmarks/faults.py`) finds none."""

import json
import sys
from pathlib import Path

import pytest
from processes import finish

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_a_short_campaign_of_faults_finds_none(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "faults.py"), "--quick", "--json", str(out)]
    done = finish(command, 600, cwd=tmp_path)
    result = json.loads(out.read_text()) if out.is_file() else {"failures": done.stderr[-2000:]}
    assert result["failures"] == []
    assert done.returncode == 0
    parts = {line["part"] for line in result["summary"]}
    assert parts >= {"kill", "memory", "mutate"}
    assert ("disk" in parts) != bool(result["skipped"])
    assert sum(line.get("kills", 0) for line in result["summary"]) > 0
