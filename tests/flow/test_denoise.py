"""How to sample: settings that are out of their range are refused, and the loop follows a velocity to the data."""

from itertools import repeat
from typing import Any

import pytest
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.denoise import SampleSettings, denoise
from minisora.flow.known_frames import KnownLatents
from minisora.flow.schedules import make_scheduler, set_sigmas

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"steps": 1.5}, "steps = 1.5 must be a whole number"),
        ({"guidance": -1}, "guidance = -1 must be at least 0"),
        ({"guidance": float("nan")}, "guidance = nan must be at least 0"),
        ({"strength": 0}, "strength = 0 must be above 0"),
        ({"strength": 1.5}, "strength = 1.5 must be above 0 and at most 1"),
        ({"resample": 0}, "resample = 0 must be at least 1"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"interval": (0.8, 0.3)}, "guidance_interval = 0.8 0.3 must be two noise levels"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SampleSettings(**setting)


def test_defaults_fill_only_what_is_left_open() -> None:
    chosen = SampleSettings(steps=3, guidance=0.0).otherwise(steps=9, guidance=9.0, resample=2)
    assert (chosen.steps, chosen.guidance, chosen.resample) == (3, 0.0, 2)
    with pytest.raises(UserError, match="steps = 0"):
        SampleSettings().otherwise(steps=0)


@pytest.mark.parametrize("name", ["euler", "heun", "dpm++"])
def test_the_velocity_of_one_clip_leads_to_that_clip(name: str) -> None:
    data, noise = torch.randn(2, 2, 3, 3, 4, 4)
    scheduler = make_scheduler(name)
    sigmas = set_sigmas(scheduler, 4, 1.0, CPU)
    found = denoise(lambda x, sigma, now: noise - data, noise, noise, scheduler, sigmas, repeat(noise))
    # DPM-Solver++ begins a little below pure noise.
    torch.testing.assert_close(found, data, atol=0.02, rtol=0)


def test_known_frames_are_shown_clean_and_known_cells_as_noisy_as_the_rest() -> None:
    data, noise = torch.randn(2, 1, 2, 3, 4, 4)
    frames = torch.tensor([[True, False, False]])
    cells = torch.zeros(1, 3, 4, 4, dtype=torch.bool)
    cells[:, 2, :2] = True
    levels: list[Tensor] = []

    def velocity(x: Tensor, sigma: Tensor, now: float) -> Tensor:
        levels.append(sigma[0])
        assert torch.equal(x[:, :, 0], data[:, :, 0])
        expected = (1 - now) * data[:, :, 2, :2] + now * noise[:, :, 2, :2]
        torch.testing.assert_close(x[:, :, 2, :2], expected)
        return torch.zeros_like(x)

    scheduler = make_scheduler("euler")
    sigmas = set_sigmas(scheduler, 4, 1.0, CPU)
    known = KnownLatents(data, frames=frames, cells=cells)
    found = denoise(velocity, noise, noise, scheduler, sigmas, repeat(noise), known=known)
    assert [level.tolist() for level in levels] == [[0, now, now] for now in (1.0, 0.75, 0.5, 0.25)]
    assert torch.equal(found[:, :, 0], data[:, :, 0])
    assert torch.equal(found[:, :, 2, :2], data[:, :, 2, :2])


def test_resampling_takes_a_step_again_while_something_is_undecided() -> None:
    seen: list[float] = []

    def velocity(x: Tensor, sigma: Tensor, now: float) -> Tensor:
        seen.append(now)
        return torch.zeros_like(x)

    noise = torch.randn(1, 2, 1, 2, 2)
    scheduler = make_scheduler("euler")
    sigmas = set_sigmas(scheduler, 8, 1.0, CPU)
    denoise(velocity, noise, noise, scheduler, sigmas, repeat(noise), resample=3)
    assert [seen.count(k / 8) for k in range(1, 9)] == [1, 3, 3, 3, 3, 3, 3, 3]
