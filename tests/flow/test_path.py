"""The noise convention, as identities."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minisora.flow.path import flow_loss, interpolate, logit_normal, renoise, shift_sigma, to_data, to_noise

SHAPE = (3, 4, 5, 2, 2)
X0, NOISE = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_sigma_one_is_noise_and_zero_is_data() -> None:
    assert torch.equal(interpolate(X0, NOISE, torch.ones(3)).noisy, NOISE)
    assert torch.equal(interpolate(X0, NOISE, torch.zeros(3)).noisy, X0)


@pytest.mark.parametrize("sigma", [torch.tensor([0.1, 0.5, 0.9]), torch.rand(3, 5)])
def test_velocity_leads_back_to_data_and_noise(sigma: torch.Tensor) -> None:
    sample = interpolate(X0, NOISE, sigma)
    torch.testing.assert_close(to_data(sample.noisy, sample.velocity, sigma), X0)
    torch.testing.assert_close(to_noise(sample.noisy, sample.velocity, sigma), NOISE)


def test_euler_steps_along_the_true_velocity_end_at_the_data() -> None:
    sample = interpolate(X0, NOISE, torch.ones(3))
    x, sigmas = sample.noisy, torch.linspace(1, 0, 8)
    for a, b in pairwise(sigmas):
        x = x + (b - a) * sample.velocity
    torch.testing.assert_close(x, X0, atol=1e-5, rtol=1e-5)


@given(st.floats(0.0, 1.0), st.floats(0.2, 10.0))
@example(1.0, 0.2)
def test_shift_keeps_the_ends_and_undoes_itself(sigma: float, shift: float) -> None:
    s = torch.tensor(sigma, dtype=torch.float64)
    moved = shift_sigma(s, shift)
    assert 0 <= moved <= 1
    assert shift_sigma(moved, 1 / shift) == pytest.approx(sigma, abs=1e-9)
    assert (moved >= s - 1e-12) == (shift >= 1 or sigma in (0.0, 1.0) or abs(float(moved - s)) < 1e-12)


def test_logit_normal_has_the_median_it_is_told() -> None:
    normal = torch.randn(20_001, generator=torch.Generator().manual_seed(0))
    assert logit_normal(normal, 0.0, 1.0).median() == pytest.approx(0.5, abs=0.01)
    assert logit_normal(normal, 0.0, 1.0, shift=3.0).median() == pytest.approx(0.75, abs=0.01)


def test_loss_is_zero_for_the_true_velocity_only() -> None:
    sample = interpolate(X0, NOISE, torch.full((3,), 0.3))
    assert torch.equal(flow_loss(sample.velocity, sample), torch.zeros(3))
    torch.testing.assert_close(flow_loss(sample.velocity + 2, sample), torch.full((3,), 4.0))


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.3, 0.3), (0.4, 0.9), (0.7, 1.0)])
def test_noise_put_back_is_as_much_as_the_path_has(low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 100_000, generator=generator)
    again = renoise((1 - low) * 3.0 + low * first, low, high, second)
    assert float(again.mean()) == pytest.approx((1 - high) * 3.0, abs=0.02)
    assert float(again.std()) == pytest.approx(high, abs=0.02)
