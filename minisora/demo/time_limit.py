"""Keeps the demo within some minutes on a slow machine: fewer steps of the DiT, told before the first is taken.

What is timed is this machine, once the VAE is trained: encoding a few clips, and a few real steps of the DiT. Where the
VAE took no more than its share of the minutes nothing is timed, and every step of the config is taken.
"""

import shutil
import time
from pathlib import Path

from rich.console import Console

from minisora.config import Config
from minisora.data.dataset import open_dataset
from minisora.models.build import latent_grid
from minisora.screen import say
from minisora.training.minutes import RESERVE, VAE_SHARE, elapsed
from minisora.training.stages import load_vae, train_dit_on
from minisora.training.trial import (
    LEAST_STEPS,
    NoiseLatents,
    step_and_rest,
    steps_of,
    time_clips,
    trial_config,
)

# Sampling, judging and the pages take about so much of what the VAE's training takes.
_AFTER_SHARE = 0.5


def steps_within(
    config: Config, run: Path, console: Console, minutes: float, vae_seconds: float, after: float
) -> int | None:
    """How many steps of the DiT leave the demo within its minutes; None: those of the config do.

    Args:
        config: of the run.
        run: its folder, with a trained VAE.
        console: where it is told.
        minutes: of all.
        vae_seconds: that the VAE's training took, on this machine.
        after: seconds after the training that do not depend on the machine.
    """
    if vae_seconds <= 60 * minutes * VAE_SHARE["shapes"]:
        return None
    trial, quiet = run / "trial", Console(quiet=True)
    train, validation = (open_dataset(config, split) for split in ("train", "validation"))
    try:
        shutil.copytree(run / "vae" / "model", trial / "vae" / "model")
        vae = load_vae(trial / "vae" / "model")
        _, encoding = time_clips(config, trial, train, validation)
        shape = (config.vae.latent_channels, *latent_grid(config))
        sources = [NoiseLatents(shape, each.captions()) for each in (train, validation)]
        start = time.perf_counter()
        train_dit_on(trial_config(config, "dit"), vae, sources[0], sources[1], trial / "dit", quiet)
        whole = time.perf_counter() - start
        step, rest = step_and_rest(trial / "dit", "dit", whole, config.train_dit.batch_size)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    around = max(elapsed(), vae_seconds) + encoding + rest + RESERVE + after + _AFTER_SHARE * vae_seconds
    steps, asked = int((60 * minutes - around) / step), config.train_dit.steps
    if steps >= asked:
        return None
    say(
        console,
        ("Time", "bold"),
        f"  {asked:,} steps of the DiT would make it {(around + asked * step) / 60:.0f} minutes here: "
        f"{max(steps, LEAST_STEPS):,} are taken, for {minutes:g}. --no-limit takes all of them.",
    )
    return max(steps, LEAST_STEPS)


def with_steps(config: Config, steps: int) -> Config:
    """The config with so many steps of the DiT, looked at half way and at the end."""
    return config.replace(**steps_of("dit", steps, -(-steps // 2)))
