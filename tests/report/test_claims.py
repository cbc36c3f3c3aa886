from pathlib import Path

import pytest

from minisora.flops.calibration import read_calibration
from minisora.report import measured_inputs
from minisora.report.assumptions import load_preset
from minisora.report.claims import CLAIMS, GUESS, agrees, audit, claims_of, printed_values
from minisora.report.sensitivity import monte_carlo

CALIBRATION = Path(__file__).parents[2] / "benchmarks/results/calibration_zen-4_2026-11-22.json"

# What a careful reader finds: these do not follow, and what does.
FALLS = {
    "dit_compute_per_step": 524.6e9,
    "sora_compute_per_video": 707.4e15,
    "ai_minutes_per_day": 14.95e6,
    "demand_h100": 124.6e3,
    "peak_demand_h100": 996.7e3,
}


def test_every_number_follows_at_its_printed_digits_or_is_flagged() -> None:
    findings = audit()
    assert {name for name, found in findings.items() if not found.follows} == set(FALLS)
    for name, value in FALLS.items():
        assert findings[name].recomputed == pytest.approx(value, rel=1e-3)
        assert findings[name].note
    assert len(findings) == 35


def test_recomputation_uses_what_the_report_prints_and_can_fail() -> None:
    printed = printed_values()
    derive = {name: claim.derive for name, claim in CLAIMS.items() if claim.derive}
    changed = {**printed, "tiktok_ai_share": 0.25}
    # The stale sum.
    assert derive["ai_minutes_per_day"](changed) == pytest.approx(10.7e6)
    assert agrees(10.7e6, derive["ai_minutes_per_day"](changed), 3)
    assert not agrees(10.7e6, derive["ai_minutes_per_day"](printed), 3)
    exact = {**printed, "sora_compute_per_video": 524e9 * 30 * 180 * 250}
    # Only by way of 708e15.
    assert not agrees(38.1e6, derive["sora_break_even_high"](exact), 3)


@pytest.mark.parametrize("peak", [989.0e12, 989.5e12])
def test_the_h100_months_force_one_peak(peak: float) -> None:
    low, high = 1.08e25 / (peak * 30 * 86400), 2.7e25 / (peak * 30 * 86400)
    assert not (agrees(4211, low, 4) and agrees(10528, high, 5))


def test_what_is_derived_has_a_note_of_its_own_and_belongs_to_a_result_or_an_assumption() -> None:
    published = load_preset("as_published")
    results = published.results
    for name, claim in CLAIMS.items():
        assert claim.derive is None or claim.note != GUESS, name
        assert claim.of in published.entries if claim.is_input else claim.result in results, name


def test_a_result_knows_what_was_published_of_it() -> None:
    assert claims_of("sora_break_even") == ["sora_break_even_low", "sora_break_even_high"]
    assert claims_of("peak_demand_gpus") == ["peak_demand_h100"]
    assert claims_of("sora_cost_per_minute") == []


def test_nothing_is_measured_without_a_calibration() -> None:
    assert all(found.measured is None and found.interval is None for found in audit().values())


def test_a_calibration_gives_the_measured_column() -> None:
    measured = measured_inputs.apply_calibration(load_preset("measured"), read_calibration(CALIBRATION))
    findings = audit(measured, monte_carlo(measured, 2000).intervals)
    assert findings["dit_compute_per_step"].measured == pytest.approx(2 * 524.6e9, rel=1e-3)
    assert findings["tiktok_ai_share"].measured is None
    speed = findings["sora_minutes_per_h100_hour"]
    assert speed.interval
    assert speed.measured
    assert speed.interval[0] < speed.measured < speed.interval[2] < 5
