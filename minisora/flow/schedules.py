"""The diffusers schedulers that fit a flow model, by name, and the noise levels they are run at."""

import math
from typing import TypeAlias

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.path import shift_sigma

Scheduler: TypeAlias = (
    FlowMatchEulerDiscreteScheduler | FlowMatchHeunDiscreteScheduler | DPMSolverMultistepScheduler
)
SCHEDULERS: dict[str, type] = {
    "euler": FlowMatchEulerDiscreteScheduler,  # first order, one pass a step
    "heun": FlowMatchHeunDiscreteScheduler,  # second order, two passes a step but the last
    "dpm++": DPMSolverMultistepScheduler,  # second order from the step before, one pass a step
}


def make_scheduler(name: str, shift: float = 1.0) -> Scheduler:
    """A diffusers scheduler for velocities by name: "euler", "heun" or "dpm++".

    DPM-Solver++ and Heun carry the shift themselves, Heun to a last level that is shifted twice; Euler is handed
    shifted noise levels, since it would shift them all twice.
    """
    if name not in SCHEDULERS:
        raise UserError(f"unknown scheduler '{name}': use one of {', '.join(SCHEDULERS)}")
    if name == "dpm++":
        return DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        )
    return SCHEDULERS[name](shift=shift if name == "heun" else 1.0)


def euler_sigmas(steps: int, shift: float, top: float = 1.0) -> Tensor:
    """The steps + 1 noise levels that Euler steps go through, to 0 from `top` (before the shift); float64."""
    return shift_sigma(torch.linspace(1, 0, steps + 1, dtype=torch.float64) * top, shift)


def set_sigmas(
    scheduler: Scheduler, steps: int, shift: float, device: torch.device, start: float = 1.0
) -> Tensor:
    """Set up the scheduler for `steps` steps from noise, or the last of them from a noise level `start`.

    Returns:
        The noise level of every pass.

    Raises:
        UserError: this scheduler cannot start elsewhere.
    """
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        top = shift_sigma(torch.tensor(start, dtype=torch.float64), 1 / shift)  # before the shift
        count = max(1, math.ceil(steps * float(top) - 1e-9))
        sigmas = euler_sigmas(count, shift, float(top))[:-1]
        scheduler.set_timesteps(sigmas=sigmas.tolist(), device=device)
    elif start < 1:
        raise UserError(f"strength = {start} needs the euler scheduler: pass --scheduler euler")
    else:
        scheduler.set_timesteps(steps, device=device)
        if isinstance(scheduler, DPMSolverMultistepScheduler):
            # It looks its first step up by a timestep, and of two that round to the same takes the second.
            scheduler.set_begin_index(0)
    # Two passes a step: its levels are doubled.
    if isinstance(scheduler, FlowMatchHeunDiscreteScheduler):
        return scheduler.timesteps / scheduler.config.num_train_timesteps
    # DPM-Solver++ rounds its timesteps down to whole ones and steps from the exact levels, kept on the CPU.
    return scheduler.sigmas[:-1].to(device)
