"""Keeps the demo within some minutes on a slow machine: fewer steps of the DiT, told before the first is taken.

What is timed is this machine, once the VAE is trained: encoding a few clips, and a few real steps of the DiT. Where the
VAE took no more than its share of the minutes nothing is timed, and every step of the config is taken. While the DiT
trains its steps are set anew by the time that is left (`Pace`), as a machine may get slower.
"""

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from minisora.config import Config
from minisora.data.dataset import open_dataset
from minisora.models.build import latent_grid
from minisora.screen import say
from minisora.training.minutes import RESERVE, VAE_SHARE, elapsed
from minisora.training.stages import load_vae, train_dit_on
from minisora.training.trial import (
    VALIDATIONS,
    NoiseLatents,
    fresh_trial,
    step_and_rest,
    steps_of,
    time_clips,
    trial_config,
)

# Sampling, judging and the pages take about so much of what the VAE's training takes.
_AFTER_SHARE = 0.5
# Of the config's steps, which are taken however slow a machine is: with fewer there would be nothing to see.
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Limit:
    """What the DiT may take.

    Args:
        steps: that there seems to be time for.
        least: steps that are taken in any case.
        end: seconds of this process at which its training has to end.
    """

    steps: int
    least: int
    end: float


def limit_within(
    config: Config,
    run: Path,
    console: Console,
    minutes: float,
    spent: float,
    vae_seconds: float,
    after: float,
) -> Limit | None:
    """The steps of the DiT that leave the demo within its minutes; None: those of the config do.

    Args:
        config: of the run.
        run: its folder, with a trained VAE.
        console: where it is told.
        minutes: of all; more where even `_LEAST_SHARE` of the steps takes longer.
        spent: seconds of them that are over.
        vae_seconds: that the VAE's training took, on this machine.
        after: seconds after the training that do not depend on the machine.
    """
    if vae_seconds <= 60 * minutes * VAE_SHARE["shapes"]:
        return None
    now = elapsed()
    trial, quiet = fresh_trial(run), Console(quiet=True)
    train, validation = (open_dataset(config, split) for split in ("train", "validation"))
    try:
        vae = load_vae(run / "vae" / "model")
        _, encoding = time_clips(config, run, train, validation)
        shape = (config.vae.latent_channels, *latent_grid(config))
        noise, unseen = (NoiseLatents(shape, each.captions()) for each in (train, validation))
        start = time.perf_counter()
        train_dit_on(trial_config(config, "dit"), vae, noise, unseen, trial, quiet)
        whole = time.perf_counter() - start
        step, rest = step_and_rest(trial, "dit", whole, config.train_dit.batch_size)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    after += RESERVE + _AFTER_SHARE * vae_seconds
    around = spent + encoding + rest + after
    asked = config.train_dit.steps
    least = int(_LEAST_SHARE * asked)
    steps = max(least, int((60 * minutes - around) / step))
    if steps >= asked:
        return None
    all_of, taken = ((around + each * step) / 60 for each in (asked, steps))
    say(
        console,
        ("Time", "bold"),
        f"  {asked:,} steps of the DiT would make it {all_of:.0f} minutes here: {steps:,} are taken, for {taken:.0f}. "
        "--no-limit takes all of them.",
    )
    return Limit(steps, least, end=now + 60 * minutes - spent - after)


def with_steps(config: Config, steps: int) -> Config:
    """The config with so many steps of the DiT, looked at as often as those of a plan."""
    return config.replace(**steps_of("dit", steps, math.ceil(steps / VALIDATIONS)))
