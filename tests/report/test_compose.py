import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minisora.cli import app
from minisora.errors import UserError
from minisora.report.claims import CLAIMS
from minisora.report.compose import build_report, to_csv, write_report

CALIBRATION = Path(__file__).parents[2] / "benchmarks/results/calibration_zen-4_2026-11-22.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_report(build_report("measured", calibration=CALIBRATION), out)
    return out


def test_the_json_has_what_it_promises(written: Path) -> None:
    tree = json.loads((written / "report.json").read_text())
    assert tree["preset"] == "measured"
    assert set(tree["claims"]) == set(CLAIMS)
    for claim in tree["claims"].values():
        assert isinstance(claim["follows"], bool)
        assert {"published", "recomputed", "corrected", "measured", "interval", "note"} <= set(claim)
    for result in tree["results"].values():
        assert {"value", "unit", "interval"} == set(result)
    assert sum(bool(row.get("seconds_factor") or row.get("training_factor")) for row in tree["backtest"]) >= 8
    assert set(tree["measured_here"]["sora_step"]) == {"full", "factorised", "divided"}


def test_the_csv_has_every_claim_and_result(written: Path) -> None:
    tree = json.loads((written / "report.json").read_text())
    rows = list(csv.DictReader((written / "report.csv").open()))
    assert [row["name"] for row in rows if row["kind"] == "claim"] == list(tree["claims"])
    values = {row["name"]: float(row["value"]) for row in rows if row["kind"] == "result"}
    assert values == {name: result["value"] for name, result in tree["results"].items()}
    assert to_csv(tree) == (written / "report.csv").read_text()


def test_page_and_figures_are_there(written: Path) -> None:
    assert "<svg" in (written / "report.html").read_text()
    assert (
        len(list((written / "figures").glob("*.svg"))) == len(list((written / "figures").glob("*.png"))) >= 9
    )
    assert not list(written.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["as_published", "corrected", "modern", "modern_distilled"])
def test_every_preset_works_without_a_calibration(preset: str, tmp_path: Path) -> None:
    report = build_report(preset)
    assert report.to_dict()["claims"]["dit_training_compute"]["measured"] is None
    write_report(report, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["preset"] == preset


def test_a_calibration_leaves_the_published_preset_alone() -> None:
    plain, calibrated = build_report("as_published"), build_report("as_published", calibration=CALIBRATION)
    assert plain.assumptions == calibrated.assumptions
    assert calibrated.findings["sora_compute_per_step"].measured


def test_a_value_set_by_hand_wins_over_a_measured_one() -> None:
    report = build_report("measured", calibration=CALIBRATION, overrides=["train.passes=4"])
    assert report.assumptions.entries["train.passes"].value == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "mesured"], "did you mean 'measured'"),
        (["--set", "sora.parms=3"], "did you mean 'sora.params'"),
        (["--set", "sora.params=1"], "outside"),
        (["--calibration", "nothing.json"], "no calibration at nothing.json"),
        (["--run", "nothing"], "holds no run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minisora", "report", "--out", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_foreign_calibration_and_a_file_for_a_folder(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}")
    with pytest.raises(UserError, match="is not a calibration"):
        build_report(calibration=foreign)
    with pytest.raises(UserError, match="cannot write"):
        write_report(build_report("corrected"), foreign)


def test_the_command_prints_the_audit_and_needs_no_torch(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", "--preset", "corrected", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "14.95M" in result.output
    code = "import sys, minisora.report.compose as r; r.build_report('corrected'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
