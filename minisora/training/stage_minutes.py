"""A stage alone that ends after some minutes: its steps planned from a few real ones, kept in OUT/plan.json.

For stages with a command of their own, the captioner and the student: `minisora caption train --minutes`, `distill`.
Both stages of a run share their minutes in `minisora.training.minutes`.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from rich.console import Console

from minisora.config import Config
from minisora.errors import UserError
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
    stage_of,
)
from minisora.training.trial import fresh_trial, step_and_rest, trial_config

# Trains the stage with a config, its files below a folder and its metrics.jsonl in it; shows progress on a console.
TrainStage: TypeAlias = Callable[[Config, Path, Console], object]


def open_stage_plan(out: Path, minutes: float) -> Plan:
    """The plan that a folder has, or one without a stage, which is not kept yet.

    Raises:
        UserError: too few minutes, several processes, or another plan in the folder.
    """
    check_minutes(minutes)
    return kept_plan(out, minutes) or Plan(minutes, device_name(process_device()), {})


def plan_stage(
    plan: Plan, name: str, config: Config, out: Path, console: Console, train: TrainStage
) -> Config:
    """The config with the steps that the minutes hold; a plan that has them already stands.

    Args:
        plan: of `open_stage_plan`; kept with the stage.
        name: of the stage, as in the config's train_NAME.
        config: of the stage.
        out: the folder of the plan.
        console: where the plan is shown.
        train: what takes some steps to be timed by; what it needs and keeps elsewhere, such as latents, stays there.

    Raises:
        UserError: too few minutes are left, or what the stage raises.
    """
    if name not in plan.stages:
        step, rest = _time_stage(name, config, out, train)
        left = 60 * plan.minutes - RESERVE - elapsed()
        stage = stage_of(left, step, rest)
        if stage.steps < FEWEST_STEPS:
            need = (60 * plan.minutes - left + rest + FEWEST_STEPS * step) / 60
            raise UserError(
                f"{plan.minutes:g} minutes are too few on this machine: a step takes {step:.2f} s, what is before and "
                f"after them {60 * plan.minutes - left + rest:.0f} s; give --minutes {need + 1:.0f}, or stop what else "
                "runs here"
            )
        plan.stages[name] = stage
        plan.settled = True
        keep_plan(plan, out)
        say(
            console,
            ("Plan", "bold"),
            f" for {plan.minutes:g} minutes: {stage.steps:,} steps of {stage.step_seconds:.3f} s",
        )
    return plan.apply(config)


def _time_stage(name: str, config: Config, out: Path, train: TrainStage) -> tuple[float, float]:
    """Seconds of a step, and of all else that the stage does."""
    trial = fresh_trial(out)
    settings = {"caption": config.train_caption, "dit": config.train_dit}[name]
    try:
        # What is made once and kept, such as latents, is not timed: it will be there.
        train(trial_config(config, name, steps=1), trial / "first", Console(quiet=True))
        start = time.perf_counter()
        train(trial_config(config, name), trial / "timed", Console(quiet=True))
        whole = time.perf_counter() - start
        return step_and_rest(trial / "timed", name, whole, settings.batch_size)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
