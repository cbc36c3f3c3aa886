"""Sampling: how to sample, and the loop from noise to data along a model's velocity.

Letters: B batch, Z channels, T' H' W' latent grid.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.known_frames import KnownLatents
from minisora.flow.path import renoise
from minisora.flow.schedules import Scheduler
from minisora.limits import MAX_GUIDANCE, MAX_STEPS, check_number, check_seed

# Noise level below which nothing is decided any more.
RESAMPLE_ABOVE = 0.2


@dataclass(frozen=True)
class SampleSettings:
    """How to sample; None leaves a choice to the mode, or else to the model.

    Args:
        steps: steps of the scheduler.
        guidance: classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598): 1 is none, more follows the prompt
            more closely and costs a second pass.
        interval: noise levels (low, high) between which guidance acts; a pass outside them costs half
            (Kynkaanniemi et al. 2024, arXiv 2404.07724). All of them if None.
        strength: noise level to start from, in (0, 1]; below 1, sampling starts from the known latents with that
            much noise (SDEdit, Meng et al. 2021, arXiv 2108.01073).
        resample: how often each step is taken, with noise put back in between, so that what is new comes to agree
            with the known cells (RePaint, Lugmayr et al. 2022, arXiv 2201.09865, section 4.2).
        seed: 0 to 2^32 - 1; video i starts from the noise of seed + i, the same on every device.
        generator: draws the noise instead of `seed`, as in diffusers.
        progress: show a progress bar.
        on_step: called with (step, sigma, latents B Z T' H' W') after each step; what it raises ends the sampling.

    Raises:
        UserError: a setting is out of its range.
    """

    steps: int | None = None
    guidance: float | None = None
    interval: tuple[float, float] | None = None
    strength: float | None = None
    resample: int | None = None
    seed: int = 0
    generator: torch.Generator | None = None
    progress: bool = True
    on_step: Callable[[int, float, Tensor], None] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.steps is not None:
            check_number("steps", self.steps, 1, MAX_STEPS)
        if self.guidance is not None:
            check_number("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        if self.strength is not None:
            check_number("strength", self.strength, 0.0, 1.0, above=True)
        if self.resample is not None:
            check_number("resample", self.resample, 1, MAX_STEPS)
        check_seed(self.seed)
        low, high = self.interval or (0.0, 1.0)
        if not 0 <= low <= high <= 1:
            raise UserError(
                f"guidance_interval = {low:g} {high:g} must be two noise levels, 0 <= low <= high <= 1"
            )

    def otherwise(self, **defaults: Any) -> "SampleSettings":
        """These settings, with `defaults` where they leave the choice."""
        return replace(self, **{name: v for name, v in defaults.items() if getattr(self, name) is None})


DEFAULTS = SampleSettings()


def denoise(
    velocity: Callable[[Tensor, Tensor, float], Tensor],
    x: Tensor,
    noise: Tensor,
    scheduler: Scheduler,
    sigmas: Tensor,
    fresh: Iterator[Tensor],
    known: KnownLatents | None = None,
    resample: int = 1,
    on_step: Callable[[int, float, Tensor], None] | None = None,
) -> Tensor:
    """Data B Z T' H' W' from x: at each noise level the velocity, and a step of the scheduler along it.

    Args:
        velocity: called with latents, the noise level of each (B, or B T' where frames are known), and of the step.
        x: where sampling starts, B Z T' H' W'.
        noise: standard normal, in which known cells are seen.
        scheduler: set up for the noise levels `sigmas`, one per pass.
        fresh: more noise, for resampling.
        known: what stays as it is.
        resample: as of `SampleSettings`.
        on_step: called with (step, noise level, latents) after each step.
    """

    def show(x: Tensor, now: float) -> tuple[Tensor, Tensor]:
        """x with what is known put in, and its noise levels."""
        level = torch.full((len(x),), now, device=x.device)  # B
        return (x, level) if known is None else (known.put(x, noise, level), known.sigmas(level))

    levels = [*sigmas.tolist(), 0.0]
    for step, (timestep, (now, then)) in enumerate(zip(scheduler.timesteps, pairwise(levels), strict=True)):
        for _ in range(resample - 1 if now >= RESAMPLE_ABOVE else 0):
            x, level = show(x, now)
            below = x + (then - now) * velocity(x, level, now)
            x, noise = renoise(below, then, now, next(fresh)), next(fresh)
        x, level = show(x, now)
        x = scheduler.step(velocity(x, level, now), timestep, x, return_dict=False)[0]
        if on_step is not None:
            on_step(step, now, x)
    return show(x, 0.0)[0]
