import json
from pathlib import Path

import pytest

from minisora.errors import UserError
from minisora.flops.calibration import read_calibration
from minisora.report import measured_inputs
from minisora.report.assumptions import load_preset

CALIBRATION = Path(__file__).parents[2] / "benchmarks/results/calibration_zen-4_2026-11-22.json"


def test_soras_pass_from_measured_points_is_the_closed_form() -> None:
    calibration = read_calibration(CALIBRATION)
    measured = measured_inputs.apply_calibration(load_preset("measured"), calibration)
    rows = measured_inputs.sora_from_points(calibration, measured.inputs())["sora_step"]
    exact = load_preset("measured").results
    for kind, row in rows.items():
        assert row["macs_per_step"] == pytest.approx(
            float(exact[f"sora_macs_per_step_{kind}"].value), rel=1e-3
        )
        assert row["extrapolation_error"] < 0.01
        assert row["decades_beyond_largest_point"] > 5
    assert rows["full"]["over_per_frame_rule"] == pytest.approx(6.0, rel=0.05)
    assert 0.85 < rows["factorised"]["over_per_frame_rule"] < 1.25
    assert 0.85 < rows["divided"]["over_per_frame_rule"] < 1.25


def test_a_worse_law_has_a_larger_error(tmp_path: Path) -> None:
    tree = json.loads(CALIBRATION.read_text())
    for i, point in enumerate(tree["points"]):
        point["macs"] *= 1.2 if i % 2 else 0.8
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(tree))
    calibration = read_calibration(path)
    rows = measured_inputs.sora_from_points(calibration, load_preset("measured").inputs())["sora_step"]
    assert rows["full"]["extrapolation_error"] > 0.001


def test_a_calibration_replaces_costs_and_says_so() -> None:
    changed = measured_inputs.apply_calibration(load_preset("measured"), read_calibration(CALIBRATION))
    for name in ("cost.linear", "cost.attention", "dit.macs_per_step", "train.passes"):
        assert changed.entries[name].status == "measured"
        assert "AMD EPYC" in changed.entries[name].source
    # A CPU says nothing of a GPU's share.
    assert changed.entries["serve.utilisation"].status == "derived"


def test_a_calibration_of_a_gpu_brings_its_utilisation(tmp_path: Path) -> None:
    tree = json.loads(CALIBRATION.read_text())
    tree["datasheet_peak_flops"] = 989.4e12
    largest = max((p for p in tree["points"] if p["train_flops"]), key=lambda point: point["macs"])
    for point in tree["points"]:
        forward, train = (0.41, 0.33) if point is largest else (0.6, 0.5)
        point["forward"]["median"] = point["forward_flops"] / (forward * 989.4e12)
        point["train"]["median"] = point["model_flops"] / (train * 989.4e12)
    path = tmp_path / "h100.json"
    path.write_text(json.dumps(tree))
    calibration = read_calibration(path)
    changed = measured_inputs.apply_calibration(load_preset("measured"), calibration)
    assert changed.entries["serve.utilisation"].value == pytest.approx(0.41)
    assert changed.entries["train.utilisation"].value == pytest.approx(0.33)
    another = load_preset("measured").set_by_user(["hardware.gpu=B200"])
    unchanged = measured_inputs.apply_calibration(another, calibration)
    assert unchanged.entries["serve.utilisation"].status == "derived"


def test_training_passes_hold_nothing_that_mfu_leaves_out(tmp_path: Path) -> None:
    calibration = read_calibration(CALIBRATION)
    assert calibration.train_over_forward == pytest.approx(3, abs=0.01)
    changed = measured_inputs.apply_calibration(load_preset("measured"), calibration)
    assert changed.entries["train.passes"].value == calibration.train_over_forward


def test_a_runs_compression(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("vae: {spatial_factor: 16, temporal_factor: 4}\n")
    (tmp_path / "demo.json").write_text('{"vae_quality": {"psnr": 30.15}}')
    changed = measured_inputs.apply_run(load_preset("measured"), tmp_path)
    assert changed.entries["sora.vae_frames"].value == 4
    assert changed.entries["sora.vae_pixels"].value == 16
    assert "30.1 dB" in changed.entries["sora.vae_pixels"].source
    assert changed.entries["serve.steps"] == load_preset("measured").entries["serve.steps"]
    (tmp_path / "steps.json").write_text('{"enough_steps": 8, "points": [{"steps": 4}, {"steps": 8}]}')
    changed = measured_inputs.apply_run(load_preset("measured"), tmp_path)
    assert (changed.entries["serve.steps"].low, changed.entries["serve.steps"].value) == (4, 8)
    assert "4, 8 steps" in changed.entries["serve.steps"].source
    (tmp_path / "steps.json").write_text("[]")
    with pytest.raises(UserError, match="minisora evaluate steps"):
        measured_inputs.apply_run(load_preset("measured"), tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        measured_inputs.apply_run(load_preset("measured"), tmp_path / "nothing")


def test_a_demo_that_has_not_come_to_its_vae_is_a_run_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("vae: {spatial_factor: 8, temporal_factor: 4}\n")
    (tmp_path / "demo.json").write_text('{"seconds": {"vae": 3}}')
    changed = measured_inputs.apply_run(load_preset("measured"), tmp_path)
    assert changed.entries["sora.vae_frames"].value == 4
    assert "dB" not in changed.entries["sora.vae_frames"].source
