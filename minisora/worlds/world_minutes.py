"""The best world that some minutes buy: steps of its three stages planned from a few real ones, kept in RUN/plan.json.

As `minisora.training.minutes` for a run of two stages. VAE and codes have their shares, what is left goes to the
dynamics, whose steps are set anew by the clock while their learning rate does not depend on them.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console

from minisora.config import Config, save
from minisora.data.clips import to_float
from minisora.data.dataset import open_dataset
from minisora.errors import UserError
from minisora.models.build import latent_grid
from minisora.models.precision import sampling_context
from minisora.screen import say
from minisora.training.launch import device_name, process_device
from minisora.training.minutes import (
    FEWEST_STEPS,
    RESERVE,
    Plan,
    check_minutes,
    elapsed,
    keep_plan,
    kept_plan,
    pace_of,
    plan_file,
    settle,
    stage_of,
)
from minisora.training.run_stage import run_stage
from minisora.training.stages import load_vae, train_vae
from minisora.training.trial import NoiseLatents, fresh_trial, step_and_rest, trial_config
from minisora.worlds.actions import ActionModel
from minisora.worlds.world_stages import (
    check_world,
    load_actions,
    train_actions,
    train_dynamics,
)
from minisora.worlds.world_tasks import MOST_CLIPS, DynamicsTask

# Shares of what is left of the minutes beside reading and encoding.
_SHARES = {"vae": 0.15, "actions": 0.22, "dynamics": 0.63}
# Clips that reading, encoding and finding codes are timed by.
_TIMED_CLIPS = 8


def train_world_for_minutes(config: Config, run: Path, console: Console, minutes: float) -> Path:
    """Train a world so that the command ends when `minutes` have passed since this process began.

    Args:
        config: the steps of its stages are the plan's business, its sizes are kept.
        run: the run folder; a run there goes on by its plan.
        console: where progress is shown.
        minutes: in all.

    Returns:
        The folder of the world.

    Raises:
        UserError: too few minutes, several processes, another plan in the folder, or what the stages raise.
    """
    check_world(config)
    check_minutes(minutes)
    begun = plan_file(run).is_file()
    plan = kept_plan(run, minutes)
    if plan is None:
        plan = _make_plan(config, run, console, minutes)
        keep_plan(plan, run)
    done = (run / "world" / "world.json").is_file()
    end = 60 * minutes - RESERVE
    try:
        train_vae(plan.apply(config), run, console)
        train_actions(plan.apply(config), run, console)
        if not (plan.settled or begun):
            settle(plan, run, "dynamics", left=end - elapsed())
            say(
                console,
                f"{plan.stages['dynamics'].steps} steps of the dynamics in the time left",
                style="dim",
            )
        decay = config.train_dynamics.decay_share
        pace = None if begun else pace_of(plan, run, "dynamics", end, decay)
        train_dynamics(plan.apply(config), run, console, steps_by=pace)
        # What goes on from here has the steps that were taken.
        save(plan.apply(config), run / "config.yaml")
    finally:
        if not done:
            plan.taken = round(plan.taken + elapsed(), 1)
            keep_plan(plan, run)
    return run / "world"


def _make_plan(config: Config, run: Path, console: Console, minutes: float) -> Plan:
    """Time a few steps of each stage, and share the minutes out; nothing but the plan is left in the run folder."""
    say(console, ("Plan", "bold"), f" for {minutes:g} minutes: timing a few steps of each stage")
    trial, quiet = fresh_trial(run), Console(quiet=True)
    # The first step reads what the others are drawn from.
    few = config.replace(**{"train_vae.max_clips": config.train_vae.batch_size})
    timed: dict[str, tuple[float, float]] = {}
    try:
        for name, train in (
            ("vae", lambda: train_vae(trial_config(few, "vae"), trial, quiet)),
            ("actions", lambda: train_actions(trial_config(config, "actions"), trial, quiet)),
            ("dynamics", lambda: _try_dynamics(trial_config(config, "dynamics"), trial, quiet)),
        ):
            start = time.perf_counter()
            train()
            whole = time.perf_counter() - start
            size = {"vae": config.train_vae, "actions": config.train_actions}.get(name, config.train_dynamics)
            timed[name] = step_and_rest(trial, name, whole, size.batch_size)
        reading, encoding = _time_clips(config, trial)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    left = 60 * minutes - RESERVE - elapsed() - reading - encoding
    stages = {name: stage_of(_SHARES[name] * left, *timed[name]) for name in _SHARES}
    if min(stage.steps for stage in stages.values()) < FEWEST_STEPS:
        need = max((rest + FEWEST_STEPS * step) / _SHARES[name] for name, (step, rest) in timed.items())
        raise UserError(
            f"{minutes:g} minutes are too few on this machine: reading and encoding the clips take "
            f"{reading + encoding:.0f} s; give --minutes {(60 * minutes - left + need) / 60 + 1:.0f}, or fewer clips"
        )
    for name, stage in stages.items():
        say(console, f"  {name:>8}  {stage.steps:,} steps of {stage.step_seconds:.3f} s")
    return Plan(minutes, device_name(process_device()), stages, encoding=round(encoding, 1))


def _try_dynamics(config: Config, trial: Path, console: Console) -> None:
    """A few steps on noise under codes of no meaning, which cost what real ones do."""
    grid = latent_grid(config)
    shape = (config.vae.latent_channels, *grid)
    clips = 4 * config.train_dynamics.batch_size
    latents = NoiseLatents(shape, [""] * clips)
    codes = torch.arange(clips * (grid[0] - 1)).view(clips, -1) % config.world.codes

    def make_task(accelerator: Accelerator) -> DynamicsTask:
        return DynamicsTask(config, latents, codes, latents, codes[: config.data.num_validation_clips])

    run_stage(
        config,
        config.train_dynamics,
        trial / "dynamics",
        console,
        title="Dynamics",
        width=config.dit.width,
        inputs="noise",
        begin=lambda: None,
        make_task=make_task,
        model=trial / "world",
        finish=lambda task, weights: None,
    )


def _time_clips(config: Config, trial: Path) -> tuple[float, float]:
    """Seconds that reading the clips of VAE and codes takes, and reading, encoding and finding codes of all of them."""
    vae = load_vae(trial / "vae" / "model").to(process_device())
    actions: ActionModel = load_actions(trial / "actions" / "model").to(process_device())
    train, validation = (open_dataset(config, split) for split in ("train", "validation"))
    some: Sequence[int] = range(min(_TIMED_CLIPS, len(train)))
    start = time.perf_counter()
    clips = train.clips(some)
    read = time.perf_counter() - start
    start = time.perf_counter()
    videos = to_float(clips.to(vae.device))
    with sampling_context(vae.device, config.dit.width, torch.float32):
        vae.to_latents(videos)
        for video in videos:
            actions.codes_of(video)
    coded = time.perf_counter() - start
    count = len(train) + len(validation)
    held = min(len(train), config.train_vae.max_clips) + min(len(train), MOST_CLIPS) + 2 * len(validation)
    # Latents and codes each read the clips.
    return read / len(some) * held, (2 * read + coded) / len(some) * count
