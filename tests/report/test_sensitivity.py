import numpy as np
import pytest

from minisora.report.assumptions import load_preset
from minisora.report.sensitivity import draw, influences, monte_carlo


def test_draws_fill_their_range_as_stated() -> None:
    measured = load_preset("measured")
    draws = draw(measured, 20_000)
    params = draws["sora.params"]
    assert params.min() >= 10e9
    assert params.max() <= 40e9
    assert np.median(params) == pytest.approx(20e9, rel=0.03)  # evenly on a log scale
    assert draws["sora.video_share"].mean() == pytest.approx(0.5, rel=0.02)


def test_the_same_seed_gives_the_same_draws_and_another_does_not() -> None:
    measured = load_preset("measured")
    assert np.array_equal(draw(measured, 10)["sora.params"], draw(measured, 10)["sora.params"])
    assert not np.array_equal(draw(measured, 10)["sora.params"], draw(measured, 10, seed=1)["sora.params"])


def test_a_name_keeps_its_stream_whatever_else_is_uncertain() -> None:
    fewer = load_preset("measured").set_by_user(["serve.steps=50"])
    assert np.array_equal(draw(fewer, 10)["sora.params"], draw(load_preset("measured"), 10)["sora.params"])


def test_intervals_hold_the_best_values_and_leave_the_certain_alone() -> None:
    measured = load_preset("measured")
    run = monte_carlo(measured, 20_000)

    for name, quantity in measured.results.items():
        interval = run.intervals[name]
        if interval is not None:
            assert interval[0] <= float(quantity.value) <= interval[2], name
    assert run.intervals["latent_frames"] is None
    only_rent = monte_carlo(load_preset("as_published"), 1000).intervals
    assert {name for name, interval in only_rent.items() if interval} == {
        "sora_cost_per_minute", "sora_training_cost", "sora_training_cost_low", "sora_training_cost_high",
    }  # fmt: skip


def test_influences_add_up_and_rank() -> None:
    measured = load_preset("measured")
    run = monte_carlo(measured, 5000)
    name = "sora_minutes_per_gpu_hour"
    found = influences(measured, name, run.draws, run.results[name].value)
    assert sum(influence.variance_share for influence in found) == pytest.approx(1)
    assert found[0].assumption == "serve.steps"
    assert found[0].swing == pytest.approx(250 / 30, rel=0.01)
    untouched = next(i for i in found if i.assumption == "demand.peak_factor")
    assert untouched.swing == pytest.approx(1)
