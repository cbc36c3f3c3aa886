"""Sweep, laws and their file, on tiny real passes. No assertion depends on how fast the machine is."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from minisora.errors import UserError
from minisora.flops.calibration import (
    LARGEST_CUDA_MACS,
    Calibration,
    SweepPoint,
    fit_seconds,
    read_calibration,
    split,
)
from minisora.flops.sweep import (
    MINIMUM_POINTS,
    SHORT_POINTS,
    SweepShape,
    calibrate,
    grid,
    measure_shape,
    short_grid,
)

TINY = [
    SweepShape(width, depth, size, (1, 1, 1), attention, batch)
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
    fitted, held = split(calibration.points)
    work = [point.macs * point.batch for point in calibration.points]
    assert max(work[i] for i in fitted) <= min(work[i] for i in held)


def test_a_calibration_is_read_as_it_was_taken(calibration: Calibration, tmp_path: Path):
    path = tmp_path / "deep" / "calibration.json"
    calibration.save(path)
    written = json.loads(path.read_text())
    assert {"device", "date", "minisora", "laws", "points", "measured_peak_flops"} <= set(written)
    assert all(point["forward_mfu_measured"] > 0 for point in written["points"])
    assert calibration.table().row_count == 4
    read = read_calibration(path)
    assert json.loads(json.dumps(read.to_dict())) == written
    assert list(read.coefficients) == list(calibration.mac_law.coefficients.values())
    assert read.train_over_forward == pytest.approx(3, abs=0.3)
    exact = [4_000_000.0, 1_000.0, 50.0]
    macs, error = read.predict(exact)
    assert macs == pytest.approx(4_000_000 + 2_000 + 50)
    assert error < 1e-6
    assert read.decades_beyond(10 * max(point.macs for point in read.points)) == pytest.approx(1)


def test_a_calibration_tells_which_way_to_multiply_won(calibration: Calibration, tmp_path: Path):
    calibration.save(tmp_path / "calibration.json")
    tree = json.loads((tmp_path / "calibration.json").read_text())
    reached = {name: way["flops_per_second"] for name, way in tree["measured_peak_ways"].items()}
    assert max(reached.values()) == tree["measured_peak_flops"]
    assert tree["measured_peak_way"].startswith(max(reached, key=lambda name: reached[name]))
    assert read_calibration(tmp_path / "calibration.json").peak_ways == calibration.peak_ways
    # A file from before there were ways.
    del tree["measured_peak_ways"], tree["measured_peak_way"]
    (tmp_path / "old.json").write_text(json.dumps(tree))
    assert read_calibration(tmp_path / "old.json").peak_words is None


def test_the_reach_of_a_gpu_is_that_of_its_grid():
    largest = max(shape.planned_macs() // shape.batch for shape in grid("cuda"))
    assert largest == LARGEST_CUDA_MACS


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_short_calibration_takes_points_that_its_time_allows(kind):
    peak = 300e9 if kind == "cpu" else 700e12
    whole, quick, slow = grid(kind), short_grid(kind, peak, 20), short_grid(kind, peak / 30, 20)
    for picked in (quick, slow):
        assert len(set(picked)) == len(picked) == SHORT_POINTS >= MINIMUM_POINTS
        assert set(picked) <= set(whole)
        assert {shape.attention for shape in picked} == {"full", "factorised"}
        work = [shape.planned_macs() for shape in picked]
        assert work == sorted(work)
    assert quick[0] == slow[0] == whole[0]
    assert slow[-1].planned_macs() < quick[-1].planned_macs()
    if kind == "cpu":
        assert quick[-1] == whole[-1]


def test_a_calibration_is_read_without_torch():
    code = "import sys, minisora.flops.calibration; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "no calibration at"), ("{}", "is not a calibration"), ("[1]", "is not a calibration"),
     ('{"format": 99}', "format 99"), ("no json", "is not a calibration")],
)  # fmt: skip
def test_foreign_files_are_refused_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "calibration.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_calibration(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read"):
        read_calibration(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tree: tree.update(points=[]),
        lambda tree: tree["points"][0].update(macs="many"),
        lambda tree: tree["points"][0].pop("forward"),
        lambda tree: tree["laws"]["forward_macs"]["coefficients"].pop("b"),
        lambda tree: tree["device"].pop("dtype"),
    ],
    ids=["no points", "a word", "a point without its time", "a law without b", "a device without its format"],
)
def test_a_spoiled_calibration_is_refused_as_it_is_read(spoil, calibration: Calibration, tmp_path: Path):
    tree = json.loads(json.dumps(calibration.to_dict()))
    spoil(tree)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="is not a calibration"):
        read_calibration(path)


def test_time_law_recovers_known_rates(calibration: Calibration):
    wanted = {"overhead": 1e-4, "s_linear": 2e-11, "s_attention": 5e-11, "s_element": 1e-9}

    def seconds(p: SweepPoint) -> float:
        linear = 2 * p.batch * (p.tokens * p.token_params + p.sample_params)
        attention, elements = 4 * p.batch * p.attention_pairs, p.batch * p.tokens * p.width * p.depth
        values = (p.depth, linear, attention, elements)
        return float(np.dot(values, list(wanted.values())))

    fit = fit_seconds(calibration.points, [seconds(p) for p in calibration.points])
    assert fit.coefficients == pytest.approx(wanted, rel=1e-4)


def test_no_rate_is_negative(calibration: Calibration):
    rng = np.random.default_rng(0)
    fit = fit_seconds(calibration.points, list(rng.uniform(1, 2, len(calibration.points))))
    assert min(fit.coefficients.values()) >= 0


def test_a_point_is_measured_not_computed():
    point = measure_shape(TINY[3], budget=0.1)
    assert point.forward_flops == 2 * point.batch * point.macs
    assert point.model_flops < point.train_flops
    assert point.train is not None
    assert point.train.minimum <= point.train.median <= point.train.maximum
    json.dumps(asdict(point))


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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_calibration_on_a_card():
    fit = calibrate(device="cuda", shapes=TINY, budget=5.0).mac_law
    assert fit.held_out_error < 0.01
