"""Noise levels: those that the scheduler steps from, for every scheduler and shift."""

import pytest
import torch

from minisora.flow.schedules import make_scheduler, set_sigmas

CPU = torch.device("cpu")


@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("name", ["euler", "dpm++"])
def test_levels_are_those_that_the_scheduler_steps_from(name: str, shift: float) -> None:
    for steps in (1, 7, 32):
        scheduler = make_scheduler(name, shift)
        assert torch.equal(set_sigmas(scheduler, steps, shift, CPU), scheduler.sigmas[:-1])
        assert len(scheduler.timesteps) == steps


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_dpm_is_not_a_thousandth_too_low(shift: float) -> None:
    """By its own formula: 8 even levels below 0.999, shifted, none of them a whole thousandth."""
    even = torch.linspace(0.999, 0, 9, dtype=torch.float64)[:-1]
    sigmas = set_sigmas(make_scheduler("dpm++", shift), 8, shift, CPU)
    expected = shift * even / (1 + (shift - 1) * even)
    torch.testing.assert_close(sigmas.double(), expected, atol=1e-6, rtol=0)


def test_dpm_takes_all_of_many_steps() -> None:
    """Timesteps of neighbours round to the same whole one."""
    scheduler = make_scheduler("dpm++", 3.0)
    set_sigmas(scheduler, 600, 3.0, CPU)
    sample = torch.zeros(1)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(sample, timestep, sample).prev_sample
    assert scheduler.step_index == 600


def test_heun_has_a_level_for_each_of_its_passes() -> None:
    scheduler = make_scheduler("heun", 2.0)
    sigmas = set_sigmas(scheduler, 4, 2.0, CPU)
    assert len(sigmas) == len(scheduler.timesteps) == 7
    assert torch.equal(sigmas[1::2], sigmas[2::2])  # the second pass of a step, and the first of the next


def test_part_of_the_way_starts_at_its_level() -> None:
    sigmas = set_sigmas(make_scheduler("euler"), 8, 2.0, CPU, start=0.6)
    assert sigmas[0] == pytest.approx(0.6)
    assert (sigmas.diff() < 0).all()
