"""Calibrations at hand: which one is taken, what is told of it, and machines side by side."""

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

from minisora.errors import UserError
from minisora.flops.machines import (
    compare,
    find_calibration,
    known_machines,
    machine_of,
    machine_table,
    shipped_calibrations,
)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
CALIBRATION = RESULTS / "calibration_zen-4_2026-11-22.json"


def put(path: Path, date: str, name: str = "A CPU") -> Path:
    """A calibration of another day and machine."""
    tree = json.loads(CALIBRATION.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**tree, "date": date, "device": {**tree["device"], "name": name}}))
    return path


def test_the_newest_at_hand_is_taken_and_the_shipped_last(tmp_path: Path) -> None:
    nothing = find_calibration(tmp_path)
    assert nothing.shipped
    assert nothing.calibration is not None
    assert nothing.calibration.date == max(each.date for each in shipped_calibrations())
    date, name = nothing.calibration.date[:10], "Intel(R) Xeon(R) Processor (Sapphire Rapids)"
    for part in ("the newest shipped with minisora", name, date, "--calibration none"):
        assert part in nothing.words()
    put(tmp_path / "runs/one/calibration.json", "2020-01-02T00:00:00+00:00", "The old")
    assert "The old" in find_calibration(tmp_path).words()  # older than the shipped, but of this machine
    put(tmp_path / "runs/two/calibration.json", "2020-01-03T00:00:00+00:00", "The new")
    words = find_calibration(tmp_path).words()
    for part in ("runs/two/calibration.json", "the newest found here", "The new", "2020-01-03"):
        assert part in words
    put(tmp_path / "calibration.json", "2020-01-04T00:00:00+00:00", "The last")
    assert "The last" in find_calibration(tmp_path).words()


def test_a_damaged_file_is_passed_over_and_named(tmp_path: Path) -> None:
    good = put(tmp_path / "runs/one/calibration.json", "2020-01-02T00:00:00+00:00")
    bad = tmp_path / "runs/two/calibration.json"
    bad.parent.mkdir()
    bad.write_text("{}")
    found = find_calibration(tmp_path)
    assert found.calibration is not None
    assert found.calibration.path == good
    assert len(found.passed_over) == 1
    assert str(bad) in found.passed_over[0]


def test_what_is_known_of_a_machine_is_what_its_benchmark_measured() -> None:
    benchmarks = [each for each in known_machines() if each.points is None]
    assert {each.name for each in benchmarks} == {
        "AMD EPYC (Zen 3)", "AMD EPYC (Zen 4)", "Intel(R) Xeon(R) Processor (Sapphire Rapids)"}  # fmt: skip
    for each in benchmarks:
        device, _, words = each.name.rpartition(" (")
        slug = words.rstrip(")").lower().replace(" ", "-")
        tree = json.loads((RESULTS / f"dit-peers_{slug}_{each.date}.json").read_text())
        precision = {"float32": "fp32", "bfloat16": "bf16"}[each.dtype]
        own = [row for row in tree["rows"] if row["model"] == "VideoDiT" and row["precision"] == precision]
        forward = max(row["share_of_peak"] for row in own if "forward" in row["what"])
        train = max(row["share_of_peak"] for row in own if "train" in row["what"])
        assert (tree["machine"]["name"], tree["threads"], tree["date"][:10]) == (
            device,
            each.threads,
            each.date,
        )
        assert each.peak == pytest.approx(tree["peak"][f"{precision}_flops_per_s"], rel=1e-3)
        assert (each.forward, each.train) == (
            pytest.approx(forward, abs=1e-3),
            pytest.approx(train, abs=1e-3),
        )


def test_every_calibration_of_the_results_travels_in_the_wheel() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    carried = {Path(place).name for place in wheel["force-include"] if "calibration" in place}
    assert carried == {path.name for path in RESULTS.glob("calibration_*.json")}


def test_machines_side_by_side(tmp_path: Path) -> None:
    one, two = (put(tmp_path / f"{name}.json", "2020-01-02T00:00:00+00:00", name) for name in ("one", "two"))
    machines = compare([one, two])
    assert [each.name for each in machines] == ["one", "two"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(machine_table(machines))
    shown = console.export_text()
    parts = ("one", "two", "2020-01-02, 2 threads", "float32", "204.2", "60.9%, 53.6%", "36, to 2.44 GMACs")
    for part in parts:
        assert part in shown, part
    with pytest.raises(UserError, match="no calibration at"):
        compare([one, tmp_path / "three.json"])
    assert machine_of(shipped_calibrations()[0]).points == 36
    assert len(compare([])) >= len(known_machines())


def test_machines_are_read_without_torch() -> None:
    code = "import sys, minisora.flops.machines as m; m.known_machines(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
