"""The best run that some minutes buy: sizes and steps planned from a few real steps here, kept in RUN/plan.json.

    RUN/plan.json    a `Plan`
       /trial/       what is tried; gone when the plan is made

The plan is made once, before the first stage: a VAE and DiTs of several sizes take a few steps each
(`minisora.training.trial`). The DiT's size is the one nearest to N* = k C^a of this project's ladder, C being the FLOPs
that its minutes hold. The VAE ends early where it is good enough (`Enough`). After it the DiT's steps are set anew by
the minutes left, and again after each validation while its learning rate does not depend on them (`Pace`). A run that
goes on keeps its plan. A stage alone has its plan from `minisora.training.stage_minutes`.
"""

import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from minisora.config import AugmentConfig, Config, save
from minisora.data.dataset import open_dataset
from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.run_metrics import read_metrics
from minisora.screen import Table, say
from minisora.training.launch import device_name, process_device
from minisora.training.loop import AT_MOST
from minisora.training.stages import OnValidate, train_dit, train_vae
from minisora.training.trial import (
    VALIDATIONS,
    dit_of,
    expected_loss,
    fresh_trial,
    steps_of,
    time_clips,
    time_sizes,
    time_vae,
)

LEAST_MINUTES = 1.0
# Share of the minutes that the VAE trains: footage needs more than the shapes world, whose pictures are plain.
VAE_SHARE = {"shapes": 0.16}
_VAE_SHARE_OF_FOOTAGE = 0.35
# Fewer steps of a stage than this are no training.
FEWEST_STEPS = 60
# PSNR of what moves, in dB, at which a VAE is good enough: errors of 2 % of the range, which no eye finds in a DiT's
# samples, whose own are larger.
ENOUGH = 34.0
# Times that a DiT may see a clip before it learns it by heart: on few clips of footage validation turns soon after.
BY_HEART = 150
# Seconds kept for writing the model and the last page.
RESERVE = 8.0


@dataclass
class StagePlan:
    """What a stage may take.

    Args:
        steps: of the optimizer.
        seconds: all that the stage should take: its steps, validations and checkpoints.
        step_seconds: of one step.
        warmup_steps: of its learning rate, which stay where the steps are set anew; None: by the steps, as in plans of
            older versions.
    """

    steps: int
    seconds: float
    step_seconds: float
    warmup_steps: int | None = None

    @property
    def warmup(self) -> int:
        """Steps of the warm-up."""
        return min(50, self.steps // 10) if self.warmup_steps is None else self.warmup_steps


@dataclass
class Plan:
    """What a run of some minutes does.

    Args:
        minutes: of the whole command.
        device: what the steps were timed on.
        stages: by name, "vae" and "dit"; of a stage alone "caption" or "dit"; of a world "vae", "actions", "dynamics".
        dit: width, depth and heads of the DiT chosen.
        encoding: seconds that encoding the clips takes, between the two stages.
        sizes: the DiTs tried, as of `time_sizes`.
        settled: whether the steps of the last stage were set by the minutes left before it.
        expected_loss: the validation loss that `LOSS_LAW` expects of the DiT; None where it knows none.
        samples: of its teacher that a student learns from; 0 in other plans.
        augment: `data.augment` where the DiT sees each clip so often that it would learn it by heart.
        taken: seconds of the commands that have worked on it, each until its training ended.
    """

    minutes: float
    device: str
    stages: dict[str, StagePlan]
    dit: dict[str, int] = field(default_factory=dict)
    encoding: float = 0.0
    sizes: list[dict[str, float]] = field(default_factory=list)
    settled: bool = False
    expected_loss: float | None = None
    samples: int = 0
    augment: dict[str, int] = field(default_factory=dict)
    taken: float = 0.0

    def apply(self, config: Config) -> Config:
        """The config with the plan's size and steps."""
        changes: dict[str, Any] = {f"dit.{key}": value for key, value in self.dit.items()}
        for name, stage in self.stages.items():
            every = max(1, math.ceil(stage.steps / VALIDATIONS))
            changes |= steps_of(name, stage.steps, every)
            changes[f"train_{name}.warmup_steps"] = stage.warmup
        if self.augment:
            changes["data.augment"] = self.augment
        return config.replace(**changes)


def train_for_minutes(
    config: Config,
    run: Path,
    console: Console,
    minutes: float,
    on_validate: OnValidate | None = None,
    after: float = 0.0,
    timed: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> Config:
    """Train both stages so that the command ends when `minutes` have passed since this process began.

    Args:
        config: its sizes and steps are the plan's business.
        run: the run folder.
        console: where progress is shown.
        minutes: in all.
        on_validate: as of the stages.
        after: seconds that the command goes on after the training.
        timed: what each stage, by its name, is trained within.

    Returns:
        The config with the plan's sizes and steps.

    Raises:
        UserError: too few minutes, several processes, another plan in the folder, or what the stages raise.
    """
    begun = plan_file(run).is_file()
    plan = open_plan(config, run, console, minutes, after)
    config = plan.apply(config)
    # Looking at a finished run takes none of its minutes.
    done = (run / "model" / "model_index.json").is_file()
    try:
        enough = None if begun else Enough(plan, run, config.train_vae.decay_share)
        with timed("vae"):
            train_vae(config, run, console, on_validate, steps_by=enough)
        # A run that goes on has no more time than it had: its plan stands as it is.
        if not (plan.settled or begun):
            settle(plan, run, "dit", left=60 * minutes - elapsed() - RESERVE - after)
            say(console, f"{plan.stages['dit'].steps} steps of the DiT in the time that is left", style="dim")
        config = plan.apply(config)
        end, decay = 60 * minutes - RESERVE - after, config.train_dit.decay_share
        pace = None if begun else pace_of(plan, run, "dit", end, decay)
        with timed("dit"):
            train_dit(config, run, console, on_validate=on_validate, steps_by=pace)
        config = plan.apply(config)
        # What goes on from here has the steps that were taken.
        save(config, run / "config.yaml")
    finally:
        if not done:
            plan.taken = round(plan.taken + elapsed(), 1)
            keep_plan(plan, run)
    return config


class Pace:
    """Sets the steps of a stage by the time that is left, from what those between two validations have taken.

    A few steps at the beginning may be faster than many: a processor gets warm, and others use it too.

    Args:
        steps: in all, as planned.
        end: seconds of this process at which the stage has to end.
        keep: told the steps whenever they are set anew.
        decay_share: of the steps, in which the learning rate falls; they are still taken.
        least, most: steps in all.
    """

    def __init__(
        self,
        steps: int,
        end: float,
        keep: Callable[[int], None],
        decay_share: float,
        least: int = 1,
        most: int | None = None,
    ):
        self.steps, self.end, self.keep, self.plateau = steps, end, keep, 1 - decay_share
        self.least, self.most = least, most
        self._first: tuple[int, float] | None = None

    def __call__(self, step: int) -> int:
        """The steps in all, asked after a validation at a step."""
        now = elapsed()
        if self._first is None:
            self._first = step, now
            return self.steps
        first, then = self._first
        # Validations and checkpoints between them are in it, as they are in what is to come.
        step_seconds = (now - then) / (step - first)
        steps = max(self.least, step + int((self.end - now) / step_seconds), math.ceil(step / self.plateau))
        self.steps = steps if self.most is None else min(steps, self.most)
        self.keep(self.steps)
        return self.steps


def pace_of(plan: Plan, run: Path, name: str, end: float, decay_share: float) -> Pace:
    """The `Pace` of a stage of a plan, which is kept in `run` whenever its steps are set."""
    stage = plan.stages[name]

    def keep(steps: int) -> None:
        stage.steps = steps
        keep_plan(plan, run)

    least = min(FEWEST_STEPS, stage.steps)
    return Pace(stage.steps, end, keep, decay_share, least, most=AT_MOST * stage.steps)


class Enough:
    """Ends the plateau of the VAE's learning rate where what moves is copied well: the DiT needs the time more.

    Args:
        plan: whose steps are set; kept in `run` when they are.
        run: the folder of the plan and of metrics.jsonl.
        decay_share: of the steps, in which the rate falls; they are still taken.
    """

    def __init__(self, plan: Plan, run: Path, decay_share: float):
        self.plan, self.run, self.plateau = plan, run, 1 - decay_share

    def __call__(self, step: int) -> int:
        """The steps in all, asked after a validation at a step."""
        stage = self.plan.stages["vae"]
        rows = read_metrics(self.run / "metrics.jsonl")
        seen = [row["val_psnr_moving"] for row in rows if row["stage"] == "vae" and "val_psnr_moving" in row]
        if seen and seen[-1] >= ENOUGH:
            stage.steps = min(stage.steps, math.ceil(step / self.plateau))
            keep_plan(self.plan, self.run)
        return stage.steps


def elapsed() -> float:
    """Seconds since this process began, its imports included."""
    return time.time() - psutil.Process().create_time()


def plan_file(run: Path) -> Path:
    """Where a run keeps its plan."""
    return run / "plan.json"


def open_plan(config: Config, run: Path, console: Console, minutes: float, after: float = 0.0) -> Plan:
    """The plan of a run: the one it has, or a new one, which is kept; arguments as of `train_for_minutes`.

    Raises:
        UserError: too few minutes, several processes, another plan in the folder, or what trying the stages raises.
    """
    check_minutes(minutes)
    if (kept := kept_plan(run, minutes)) is not None:
        return kept
    plan = make_plan(config, run, console, minutes, after)
    keep_plan(plan, run)
    return plan


def check_minutes(minutes: float) -> None:
    """Raise UserError where no plan can be made: too few minutes, or several processes."""
    if not minutes >= LEAST_MINUTES:
        raise UserError(
            f"--minutes {minutes:g} is too short to learn anything: give at least {LEAST_MINUTES:g}"
        )
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise UserError("--minutes plans for one process: run it without accelerate launch, or set the steps")


def kept_plan(run: Path, minutes: float) -> Plan | None:
    """The plan that a run has; None if it has none.

    Raises:
        UserError: it cannot be read, or is for other minutes.
    """
    file = plan_file(run)
    if not file.is_file():
        return None
    plan = read_plan(file)
    if plan.minutes != minutes:
        raise UserError(
            f"{run} was planned for {plan.minutes:g} minutes: say --minutes {plan.minutes:g} to go on, or use "
            "another --out"
        )
    return plan


def keep_plan(plan: Plan, run: Path) -> None:
    """Write a run's plan down, in a folder made if need be."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(plan_file(run), asdict(plan))


def make_plan(config: Config, run: Path, console: Console, minutes: float, after: float = 0.0) -> Plan:
    """Time a few real steps of the VAE and of DiTs of several sizes, and share the minutes out.

    Arguments as of `train_for_minutes`; nothing is left in the run folder.

    Raises:
        UserError: too few minutes for this machine, or what trying the stages raises.
    """
    say(console, ("Plan", "bold"), f" for {minutes:g} minutes: timing a few steps of each size")
    trial = fresh_trial(run)
    quiet = Console(quiet=True)
    try:
        vae_step, vae_rest = time_vae(config, trial, quiet)
        train, validation = (open_dataset(config, split) for split in ("train", "validation"))
        reading, encoding = time_clips(config, trial, train, validation)
        share = VAE_SHARE.get(config.data.source, _VAE_SHARE_OF_FOOTAGE)
        # Of training: many clips take long to read, which leaves less of both stages.
        total = 60 * minutes - RESERVE - after - elapsed() - encoding - reading
        vae_seconds = share * total + reading
        vae_rest += reading
        dit_seconds = (1 - share) * total
        sizes = time_sizes(config, trial, quiet, dit_seconds, train.captions(), validation.captions())
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    best = min(sizes, key=lambda size: abs(math.log(size["params"] / size["best_params"])))
    stages = {
        "vae": stage_of(vae_seconds, vae_step, vae_rest),
        "dit": stage_of(dit_seconds, best["step_seconds"], best["more_seconds"]),
    }
    dit = dit_of(int(best["width"]), int(best["depth"]))
    least = min(stage.steps for stage in stages.values())
    if least < FEWEST_STEPS:
        # What is not shared, and what either stage needs of its share.
        need = (60 * minutes - total) + max(
            (vae_rest - reading + FEWEST_STEPS * vae_step) / share,
            (best["more_seconds"] + FEWEST_STEPS * best["step_seconds"]) / (1 - share),
        )
        raise UserError(
            f"{minutes:g} minutes are too few on this machine: a step of the VAE takes {vae_step:.2f} s, encoding the "
            f"clips {encoding:.0f} s; give --minutes {math.ceil(need / 60) + 1}, or stop what else runs here"
        )
    plan = Plan(minutes, device_name(process_device()), stages, dit, round(encoding, 1), sizes)
    plan.expected_loss = expected_loss(config, best["flops"])
    plan.augment = _views(config, stages["dit"].steps * config.train_dit.batch_size / len(train))
    plan.encoding = round(encoding * plan.augment.get("views", 1), 1)
    console.print(_table(plan))
    return plan


def _views(config: Config, epochs: float) -> dict[str, int]:
    """Moved views of clips that the DiT would else learn by heart; none where the config says how clips are altered.

    Args:
        config: of the run.
        epochs: how often the DiT would see each clip.
    """
    if config.data.source == "shapes" or config.data.augment != AugmentConfig() or epochs < BY_HEART:
        return {}
    return {"views": 3, "shift": min(config.clip.height, config.clip.width) // 16}


def settle(plan: Plan, run: Path, name: str, left: float) -> None:
    """Set the steps of a plan's last stage by the seconds that are left, encoding included, and keep the plan.

    What came before it may have taken all of them: it has `FEWEST_STEPS` all the same, and ends late.

    Args:
        plan: to be changed.
        run: its folder.
        name: of the stage.
        left: seconds.
    """
    before = plan.stages[name]
    # Below 0 where steps were rounded up.
    rest = max(0.0, before.seconds - before.steps * before.step_seconds)
    plan.stages[name] = stage_of(left - plan.encoding, before.step_seconds, rest, FEWEST_STEPS)
    plan.settled = True
    keep_plan(plan, run)


def stage_of(seconds: float, step_seconds: float, rest: float, least: int = 1) -> StagePlan:
    """A stage of so many seconds, `rest` of which are no steps: validations, checkpoints, costs; of `least` steps."""
    steps = max(least, int((seconds - rest) / step_seconds))
    stage = StagePlan(steps, round(seconds, 1), round(step_seconds, 5))
    stage.warmup_steps = stage.warmup
    return stage


def _table(plan: Plan) -> Table:
    """The plan for people: the steps of each stage and its seconds."""
    table = Table(title=f"plan for {plan.minutes:g} minutes on {plan.device}", title_justify="left")
    for name in ("", "steps", "s a step", "s"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("VAE", *_cells(plan.stages["vae"]))
    table.add_row("encoding", "", "", f"{plan.encoding:,.0f}")
    dit = plan.dit
    table.add_row(f"DiT, width {dit['width']}, depth {dit['depth']}", *_cells(plan.stages["dit"]))
    if plan.expected_loss is not None:
        table.caption = (
            f"expected of the DiT: a validation loss of {plan.expected_loss:.3f}, by the ladder's law"
        )
    if plan.augment:
        table.caption = (
            f"few clips for so many steps: beside each of them {plan.augment['views'] - 1} views, moved by up to "
            f"{plan.augment['shift']} pixels, but for the last {AugmentConfig().plain_epochs:g} times that each is seen"
        )
    return table


def _cells(stage: StagePlan) -> tuple[str, str, str]:
    return f"{stage.steps:,}", f"{stage.step_seconds:.3f}", f"{stage.seconds:,.0f}"


def read_plan(file: Path) -> Plan:
    """The plan in a file; raises UserError where it cannot be read."""
    try:
        tree = read_json(file)
        stages = {name: StagePlan(**stage) for name, stage in tree.pop("stages").items()}
        return Plan(stages=stages, **tree)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): delete it, and the run is planned again"
        ) from error
