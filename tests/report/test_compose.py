import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
        assert {"value", "unit", "interval", "decades_beyond"} == set(result)
    assert sum(bool(row.get("seconds_factor") or row.get("training_factor")) for row in tree["backtest"]) >= 8
    assert set(tree["measured_here"]["sora_step"]) == {"full", "factorised", "divided"}


def test_every_extrapolated_number_tells_its_distance(written: Path) -> None:
    tree = json.loads((written / "report.json").read_text())
    steps, largest = tree["measured_here"]["sora_step"], tree["measured_here"]["largest_point_macs"]
    sora = steps["full"]["decades_beyond_largest_point"]
    assert sora == pytest.approx(math.log10(steps["full"]["macs_per_step"] / largest))
    dit = math.log10(524.6e9 / largest)
    for name, distance in (
        ("sora_compute_per_video", sora),
        ("sora_training_compute_low", sora),
        ("peak_demand_h100", sora),
        ("dit_compute_per_step", dit),
        ("dit_training_compute", dit),
    ):
        assert tree["claims"][name]["decades_beyond"] == pytest.approx(distance, abs=1e-3), name
    # What is an input, or multiplies inputs alone, rests on no pass.
    for name in ("ai_minutes_per_day", "tiktok_ai_share", "dit_params", "llama2_70b_compute_per_output"):
        assert tree["claims"].get(name, {"decades_beyond": None})["decades_beyond"] is None, name
    assert tree["results"]["tokens_per_clip"]["decades_beyond"] is None
    for kind, row in steps.items():
        distance = tree["results"][f"sora_macs_per_step_{kind}"]["decades_beyond"]
        assert distance == pytest.approx(row["decades_beyond_largest_point"])
        # A sweep on a GPU takes off what its largest pass is beyond the largest here.
        gained = math.log10(tree["measured_here"]["largest_gpu_macs"] / largest)
        assert row["decades_beyond_a_sweep_on_a_gpu"] == pytest.approx(distance - gained)
    page = (written / "report.html").read_text()
    # A mark stands by each number, and what it means once a table.
    assert page.count(f'title="{sora:.1f} decades out">*</sup>') > 20
    assert page.count(f'title="{dit:.1f} decades out">†</sup>') > 5
    seen = re.sub(r"<(script|style).*?</\1>|<[^>]+>", "", page, flags=re.DOTALL)
    assert seen.count(f"* {sora:.1f} decades out") == 3
    assert seen.count(f"{sora:.1f} decades out") == 3
    # An exact law has no error but that of rounding.
    assert seen.count("exact") >= 3
    assert "0.0000 %" not in seen
    rows = {row["name"]: row for row in csv.DictReader((written / "report.csv").open())}
    assert float(rows["sora_compute_per_video"]["decades_beyond"]) == pytest.approx(sora)


def test_machines_stand_side_by_side_and_a_shipped_one_once(written: Path, tmp_path: Path) -> None:
    other = json.loads(CALIBRATION.read_text())
    other["device"]["name"] = "Another <CPU>"
    (tmp_path / "other.json").write_text(json.dumps(other))
    report = build_report("measured", calibration=CALIBRATION, beside=[tmp_path / "other.json"])
    names = [machine.name for machine in report.machines]
    assert names[:2] == ["AMD EPYC (Zen 4)", "Another <CPU>"]
    with_points = [machine.name for machine in report.machines if machine.points]
    # The one that is named is not shown again among those that are shipped.
    assert with_points == [*names[:2], "Intel(R) Xeon(R) Processor (Sapphire Rapids)"]
    page = write_report(report, tmp_path / "report").read_text()
    assert "Another &lt;CPU&gt;" in page
    for name in ("AMD EPYC (Zen 3)", "Intel(R) Xeon(R) Processor (Sapphire Rapids)"):
        assert name in (written / "report.html").read_text()
    used = report.to_dict()["measured_here"]
    assert used["device"] == "AMD EPYC, float32"
    assert used["best_mfu"]["forward"] == pytest.approx(0.609, abs=1e-3)


def test_the_command_finds_a_calibration_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "calibration.json").write_text(CALIBRATION.read_text())
    (tmp_path / "calibration.json").write_text("{}")

    def report(*arguments: str) -> tuple[str, Any]:
        result = CliRunner().invoke(app, ["report", "--out", "out", *arguments])
        assert result.exit_code == 0, result.output
        return result.output, json.loads(Path("out/report.json").read_text())

    output, tree = report()
    assert "calibration: runs/mine/calibration.json, the newest found here" in output
    assert "passed over: calibration.json is not a calibration" in output
    assert tree["measured_here"]["device"] == "AMD EPYC, float32"
    assert "decades" in output
    output, tree = report("--calibration", "none")
    assert tree["measured_here"] is None
    assert tree["claims"]["sora_compute_per_step"]["measured"] is None
    assert "decades" not in output
    result = CliRunner().invoke(app, ["report", "--calibration", "none", "--calibration", "a.json"])
    assert isinstance(result.exception, UserError)
    assert "give one or the other" in str(result.exception)


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
