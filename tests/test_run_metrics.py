"""What metrics.jsonl says of how a stage went, also where it is damaged."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from minisora.run_metrics import number, place_of_best, read_metrics


def written(run: Path, losses: dict[int, Any], stage: str = "dit") -> Path:
    rows = [{"stage": "vae", "step": 9000, "val_psnr": 30.0, "val_loss": 0.0}]
    for step, loss in losses.items():
        rows += [
            {"stage": stage, "step": step, "val_loss": loss},
            {"stage": stage, "step": step, "loss": 0.1},
        ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_lines_that_are_damaged_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"stage": "dit", "step": 1}\n{"stage": "dit", "st\n' + 100_000 * "[" + "\n3\n")
    assert read_metrics(file) == [{"stage": "dit", "step": 1}]


def test_only_finite_numbers_are_numbers() -> None:
    assert [number(value) for value in (0, -2.5, 10**300)] == [0.0, -2.5, 1e300]
    for value in (True, None, "3", [], math.nan, math.inf, 10**400, -(10**400)):
        assert number(value) is None


@pytest.mark.parametrize(
    ("losses", "place"),
    [
        ({100: 0.9, 200: 0.5, 300: 0.6, 400: 0.7}, 0.5),
        ({100: 0.9, 200: 0.5, 300: 0.4}, 1.0),
        ({100: 0.5, 200: 0.5, 300: 0.5}, 1.0),
        ({100: 0.5, 200: 0.6}, None),
        ({100: 0.5, 200: float("nan"), 300: 0.6}, 1 / 3),
        ({100: 0.5, 200: "0.1", 400: 0.6}, None),
        ({}, None),
    ],
)
def test_the_place_of_the_best_validation(
    tmp_path: Path, losses: dict[int, Any], place: float | None
) -> None:
    assert place_of_best(written(tmp_path, losses)) == place


def test_a_run_without_metrics_has_no_best_and_each_stage_its_own(tmp_path: Path) -> None:
    assert place_of_best(tmp_path) is None
    losses = {100: 0.9, 200: 0.5, 300: 0.6, 400: 0.7}
    assert place_of_best(written(tmp_path, losses, "caption")) is None
    assert place_of_best(tmp_path, "caption") == 0.5
