import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minisora.report.assumptions import load_preset
from minisora.report.model import estimate, round_to_digits
from minisora.report.units import Quantity, UnitError


def value(preset: str, name: str, **changed: float) -> float:
    inputs = load_preset(preset).inputs({k.replace("__", "."): v for k, v in changed.items()})
    return float(estimate(inputs)[name].value)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("dit_training_gpu_months", "0.4"),
        ("dit_training_gpu_days", "12"),
        ("dit_compute_per_image", "1.31e+14"),
        ("sora_compute_per_step", "2.8e+15"),
        ("dit_break_even_images", "7.6e+06"),
        ("sora_training_gpu_months_low", "4211"),
        ("sora_training_gpu_months_high", "10528"),
        ("sora_break_even_low", "1.53e+07"),
        ("sora_minutes_per_gpu_hour", "5"),
    ],
)
def test_the_published_preset_gives_the_published_numbers(name: str, printed: str) -> None:
    digits = len(printed.split("e")[0].replace(".", "").lstrip("0"))
    assert round_to_digits(value("as_published", name), digits) == pytest.approx(float(printed), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dit_training_compute", 2.417e21),
        ("sora_training_gpu_months_low", 10_180),
        ("sora_training_gpu_months_high", 25_451),
        ("sora_break_even_low", 18.43e6),
        ("sora_break_even_high", 46.08e6),
        ("sora_minutes_per_gpu_hour", 2.51),
        ("dit_break_even_images", 9.216e6),
        ("ai_minutes_per_day", 14.95e6),
        ("sora_over_gpt4", 1609),
    ],
)
def test_the_corrected_preset(name: str, expected: float) -> None:
    assert value("corrected", name) == pytest.approx(expected, rel=2e-3)


@settings(max_examples=40, deadline=None)
@given(cost=st.floats(1e9, 1e14), params=st.floats(1e9, 1e12))
def test_break_even_does_not_depend_on_what_a_pass_costs(cost: float, params: float) -> None:
    """Training over serving is 3 x samples x video share / steps: the pass cancels."""
    changed = {"dit__macs_per_step": cost, "sora__params": params}
    for end, data in (("low", 4), ("high", 10)):
        expected = 3 * 768e6 * data * 0.5 / 250
        assert value("corrected", f"sora_break_even_{end}", **changed) == pytest.approx(expected, rel=1e-9)


def test_break_even_moves_with_steps_and_guidance() -> None:
    base = value("corrected", "sora_break_even_low")
    assert value("corrected", "sora_break_even_low", serve__guidance_passes=2) == pytest.approx(base / 2)
    assert value("corrected", "sora_break_even_low", serve__steps=50) == pytest.approx(5 * base)


def test_full_attention_grows_with_the_square_of_length_and_the_reports_rule_does_not() -> None:
    long = {"sora__seconds": 120.0}
    full = value("measured", "sora_macs_per_step_full", **long) / value("measured", "sora_macs_per_step_full")
    rule = value("measured", "sora_macs_per_step_per_frame", **long)
    assert 3.5 < full < 4
    assert rule / value("measured", "sora_macs_per_step_per_frame") == pytest.approx(2)


def test_at_1080p_full_attention_costs_hundreds_of_times_the_rule() -> None:
    inputs = load_preset("corrected").inputs({"sora.height": 1080.0, "sora.width": 1920.0})
    full = estimate(inputs)["sora_macs_per_step_full"].value
    at_512 = load_preset("corrected").results["sora_macs_per_step_per_frame"].value
    assert full / at_512 == pytest.approx(330, rel=0.03)


def test_utilisation_price_and_power_enter_once() -> None:
    half = value("corrected", "sora_minutes_per_gpu_hour", serve__utilisation=0.5)
    assert half == pytest.approx(value("corrected", "sora_minutes_per_gpu_hour") / 2)
    per_minute = value("corrected", "sora_cost_per_minute")
    assert per_minute == pytest.approx(3.0 / value("corrected", "sora_minutes_per_gpu_hour"))
    assert value("corrected", "sora_energy_per_minute") == pytest.approx(per_minute / 3.0 * 0.7)


def test_decoder_and_text_are_terms_of_their_own() -> None:
    decode = value("corrected", "sora_compute_per_video", serve__decode_macs_per_pixel=1e6)
    extra = 2 * 1e6 * 60 * 24 * 512 * 512
    assert decode - value("corrected", "sora_compute_per_video") == pytest.approx(extra, rel=1e-6)


def test_an_input_in_another_unit_is_refused() -> None:
    inputs = dict(load_preset("corrected").inputs())
    inputs["serve.steps"] = Quantity(250.0, "step")
    with pytest.raises(UnitError):
        estimate(inputs)


def test_arrays_give_what_their_entries_give() -> None:
    draws = np.array([1e10, 2e10, 5e10])
    together = estimate(load_preset("measured").inputs({"sora.params": draws}))
    for i, params in enumerate(draws):
        alone = estimate(load_preset("measured").inputs({"sora.params": float(params)}))
        for name, quantity in alone.items():
            drawn = np.broadcast_to(np.asarray(together[name].value), draws.shape)[i]
            assert math.isclose(float(drawn), float(quantity.value), rel_tol=1e-12), name


def test_rounding_to_digits() -> None:
    assert round_to_digits(1.207e21, 1) == 1e21
    assert round_to_digits(707.4e15, 3) == pytest.approx(707e15)
    assert list(np.asarray(round_to_digits(np.array([0.38994, 11.698]), 2))) == pytest.approx([0.39, 12])
