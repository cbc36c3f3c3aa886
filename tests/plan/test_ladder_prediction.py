"""What the ladder is said to take, and how it is held against what it took."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from minisora.plan.held_out import evidence
from minisora.scaling.ladder import plan, read_ladder

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_a_step_takes_the_longer_of_its_work_and_its_launches(ladder_prediction: ModuleType) -> None:
    known, ladder = evidence(), read_ladder("smoke")
    rows = {row["name"]: row for row in ladder_prediction.predict(ladder, "H100 SXM", known)}
    for run in plan(ladder):
        row = rows[run.name]
        assert row["stretch"] > 1
        work = row["stretch"] * run.flops / (989.4e12 * known.train)
        assert row["work_seconds"] == pytest.approx(work)
        assert row["seconds"] == max(row["work_seconds"], row["launch_seconds"])
        assert row["low"] < row["seconds"] < row["high"]
    # A deeper model dispatches more: two blocks more of dial 6 than of dial 2.
    assert rows["d6-c1"]["operators_of_a_step"] > rows["d2-c1"]["operators_of_a_step"]


def test_a_run_is_inside_of_its_interval_or_not(ladder_prediction: ModuleType) -> None:
    rows = [{"name": "a", "seconds": 10.0, "low": 5.0, "high": 30.0}]
    results = [{"name": "a", "seconds": 20.0}, {"name": "unknown", "seconds": 1.0}]
    held = ladder_prediction.check(rows, results)
    assert (held["inside"], held["of"]) == (1, 1)
    assert held["geometric_mean_of_over"] == pytest.approx(2.0)
    assert ladder_prediction.check(rows, [{"name": "a", "seconds": 40.0}])["inside"] == 0


def test_the_prediction_that_is_kept_is_of_the_ladder_as_it_is() -> None:
    kept = json.loads(next((BENCHMARKS / "results").glob("ladder-prediction_meta_*.json")).read_text())
    runs = {run.name: run for run in plan(read_ladder("h100"))}
    assert {row["name"] for row in kept["runs"]} == set(runs)
    assert all(row["flops"] == runs[row["name"]].flops for row in kept["runs"])
