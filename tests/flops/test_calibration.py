"""Timing, sweep, laws and plots, on tiny real passes. No assertion depends on how fast the machine is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minisora.config import Config, override
from minisora.errors import UserError
from minisora.flops import cost_law
from minisora.flops.calibration import Calibration, calibrate
from minisora.flops.plots import attention_share, plot_attention_share, plot_roofline
from minisora.flops.sweep import Shape, SweepPoint, grid, measure_shape
from minisora.flops.timed import time_config
from minisora.flops.timing import Utilisation, known_peak, measure, measure_matmul_peak
from minisora.report.measured_inputs import read_calibration

TINY = [
    Shape(width, depth, size, (1, 1, 1), attention, batch)
    for width, depth, size, attention, batch in [
        (32, 1, (1, 4, 4), "full", 1),
        (32, 2, (2, 4, 4), "full", 2),
        (48, 1, (2, 2, 4), "factorised", 1),
        (48, 2, (3, 4, 4), "factorised", 1),
        (64, 1, (1, 8, 8), "full", 1),
        (64, 2, (2, 4, 8), "full", 1),
        (64, 3, (3, 4, 4), "factorised", 2),
        (32, 3, (1, 4, 8), "full", 1),
        (96, 2, (2, 4, 4), "full", 1),
        (96, 2, (3, 4, 8), "full", 1),
    ]
]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(shapes=TINY, budget=1.0)


@pytest.mark.slow
def test_the_cost_law_finds_one_two_one(calibration: Calibration):
    fit = calibration.mac_law
    assert fit.coefficients == pytest.approx({"a": 1, "b": 2, "c": 1}, rel=1e-6)
    assert fit.held_out_error < 0.01
    assert (fit.fitted_points, fit.held_out_points) == (8, 2)
    assert calibration.naive_law.held_out_error > fit.held_out_error


def test_held_out_points_are_the_largest(calibration: Calibration):
    fitted, held = cost_law.split(calibration.points)
    work = [point.macs * point.batch for point in calibration.points]
    assert max(work[i] for i in fitted) <= min(work[i] for i in held)


def test_the_report_reads_what_a_calibration_writes(calibration: Calibration, tmp_path: Path):
    path = tmp_path / "deep" / "calibration.json"
    calibration.save(path)
    written = json.loads(path.read_text())
    assert {"device", "date", "minisora", "laws", "points", "measured_peak_flops"} <= set(written)
    assert all(point["forward_mfu_measured"] > 0 for point in written["points"])
    assert calibration.table().row_count == 4
    report = read_calibration(path)
    assert list(report.macs) == [point.macs for point in calibration.points]
    assert list(report.coefficients) == list(calibration.mac_law.coefficients.values())
    assert report.train_over_forward == pytest.approx(3, abs=0.3)
    assert report.date == calibration.date


def test_time_law_recovers_known_rates(calibration: Calibration):
    wanted = {"overhead": 1e-4, "s_linear": 2e-11, "s_attention": 5e-11, "s_element": 1e-9}

    def seconds(p: SweepPoint) -> float:
        linear = 2 * p.batch * (p.tokens * p.token_params + p.sample_params)
        attention, elements = 4 * p.batch * p.attention_pairs, p.batch * p.tokens * p.width * p.depth
        values = (p.depth, linear, attention, elements)
        return float(np.dot(values, list(wanted.values())))

    fit = cost_law.fit_seconds(calibration.points, [seconds(p) for p in calibration.points])
    assert fit.coefficients == pytest.approx(wanted, rel=1e-4)


def test_no_rate_is_negative(calibration: Calibration):
    rng = np.random.default_rng(0)
    fit = cost_law.fit_seconds(calibration.points, list(rng.uniform(1, 2, len(calibration.points))))
    assert min(fit.coefficients.values()) >= 0


def test_a_point_is_measured_not_computed():
    point = measure_shape(TINY[3], budget=0.1)
    assert point.forward_flops == 2 * point.batch * point.macs
    assert point.model_flops < point.train_flops
    assert point.train is not None
    assert point.train.minimum <= point.train.median <= point.train.maximum
    json.dumps(point.to_dict())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_grids_cover_what_they_promise(kind):
    shapes = grid(kind)
    assert len(set(shapes)) == len(shapes) > 30
    assert {shape.attention for shape in shapes} == {"full", "factorised"}
    assert {shape.latent_size[0] == 1 for shape in shapes} == {True, False}
    assert len({shape.patch for shape in shapes}) >= 3
    assert len({shape.batch for shape in shapes}) == 2
    work = [shape.planned_macs() for shape in shapes]
    assert work == sorted(work)
    if kind == "cuda":
        with torch.device("meta"):
            from minisora.models.build import build_dit

            largest = max(sum(p.numel() for p in build_dit(s.config(), None).parameters()) for s in shapes)
        assert largest > 2e9


def test_utilisation_over_one_hundred_percent_says_so():
    fine = Utilisation(flops=90, seconds=1.0, datasheet_peak=None, measured_peak=100.0)
    assert fine.mfu_measured == 0.9
    assert fine.mfu_datasheet is None
    assert fine.warning() is None
    wrong = replace(fine, flops=104, datasheet_peak=102.0)
    assert "datasheet peak and the measured peak" in (wrong.warning() or "")
    assert "warning" in wrong.to_dict()


def test_measure_runs_as_often_as_told():
    calls = []
    timing = measure(lambda: calls.append(1), "cpu", warmup=3, runs=4)
    assert len(calls) == 7
    assert timing.runs == 4
    assert timing.minimum <= timing.median <= timing.maximum
    assert timing.memory_bytes > 0
    with pytest.raises(UserError, match="takes no time"):
        measure(lambda: None, "meta")


def test_peaks_on_a_cpu():
    assert known_peak("cpu", torch.float32) is None
    assert measure_matmul_peak("cpu", torch.float32, 0.2) > 1e8


def test_a_config_is_timed_in_every_row():
    tiny = [
        "dit.width=32",
        "dit.depth=1",
        "dit.heads=2",
        "vae.widths=[8,8]",
        "clip.frames=5",
        "clip.height=32",
    ]
    report = time_config(override(Config(), tiny), batch=2, runs=2)
    names = [row.name for row in report.rows]
    assert names[:3] == ["DiT forward", "DiT forward and backward", "DiT train step"]
    assert names[3:] == ["sampling step (2 passes)", "VAE encode", "VAE decode"]
    assert all(row.use.flops > 0 and row.use.mfu_measured > 0 for row in report.rows)
    assert report.rows[2].use.flops == report.rows[1].use.flops > 2.5 * report.rows[0].use.flops
    assert report.table().row_count == 6
    json.dumps(report.to_dict())


def test_plots_are_written(calibration: Calibration, tmp_path: Path):
    plot_roofline(calibration, tmp_path / "roofline.png")
    plot_attention_share(tmp_path / "share.svg")
    assert (tmp_path / "roofline.png").read_bytes()[:4] == b"\x89PNG"
    assert "Hunyuan" in (tmp_path / "share.svg").read_text()


def test_attention_equals_the_rest_at_six_widths():
    assert attention_share(6 * 1152, 1152) == pytest.approx(0.5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_calibration_on_a_card():
    fit = calibrate(device="cuda", shapes=TINY, budget=5.0).mac_law
    assert fit.held_out_error < 0.01
