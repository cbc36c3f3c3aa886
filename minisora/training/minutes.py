"""The best run that some minutes buy: sizes and steps planned from a few real steps here, kept in RUN/plan.json.

    RUN/plan.json    a `Plan`
       /trial/       what is tried; gone when the plan is made

The plan is made once, before the first stage: a VAE and DiTs of several sizes take a few steps each, by the very loop
that trains them, in a folder of their own. The DiT's size is the one nearest to N* = k C^a of this project's ladder
(`LAW`) among those tried, C being the FLOPs that its minutes hold. After the VAE the DiT's steps are set anew by the
minutes left, and again after each validation while its learning rate does not depend on them (`Pace`). A run that goes
on keeps its plan. A stage alone has its plan from `minisora.training.stage_minutes`.
"""

import math
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from torch import Tensor

from minisora.config import Config, save
from minisora.data.clips import ClipDataset, to_float
from minisora.data.dataset import open_dataset
from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.models.build import build_dit, latent_grid
from minisora.screen import Table, say
from minisora.training.launch import device_name, process_device
from minisora.training.progress import read_metrics
from minisora.training.stages import OnValidate, load_vae, train_dit, train_dit_on, train_vae

LEAST_MINUTES = 1.0
# N* = k C^a: parameters of the DiT against its training FLOPs, of benchmarks/results/ladder/law.json.
LAW = {"k": 1.8281802562228158, "a": 0.4216709124409269}
# Widths and depths tried.
SIZES = ((64, 3), (96, 5), (128, 6), (192, 8), (256, 10), (384, 12))
# Share of the minutes that the VAE trains: footage needs more than the shapes world, whose pictures are plain.
_VAE_SHARE = {"shapes": 0.16}
_VAE_SHARE_OF_FOOTAGE = 0.35
_HEAD_WIDTH = 32
# Steps that a stage is timed by; clips that reading and encoding are timed by, and how many of them at a time.
_TRIED_STEPS = 8
_TIMED_CLIPS, _CLIPS_AT_ONCE = 24, 8
# A DiT that takes fewer steps than this learns nothing: the next larger is not tried.
_LEAST_STEPS = 300
# Fewer steps of a stage than this are no training.
FEWEST_STEPS = 60
# Of a stage, and as many checkpoints.
_VALIDATIONS = 8
# Seconds that a checkpoint and a live page take, beside the validation before them.
_CHECKPOINT = 0.3
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
        stages: by name, "vae" and "dit"; of a stage alone "caption" or "dit".
        dit: width, depth and heads of the DiT chosen.
        encoding: seconds that encoding the clips takes, between the two stages.
        sizes: the DiTs tried, as of `_time_sizes`.
        settled: whether the steps of the last stage were set by the minutes left before it.
        samples: of its teacher that a student learns from; 0 in other plans.
        taken: seconds of the commands that have worked on it, each until its training ended.
    """

    minutes: float
    device: str
    stages: dict[str, StagePlan]
    dit: dict[str, int] = field(default_factory=dict)
    encoding: float = 0.0
    sizes: list[dict[str, float]] = field(default_factory=list)
    settled: bool = False
    samples: int = 0
    taken: float = 0.0

    def apply(self, config: Config) -> Config:
        """The config with the plan's size and steps."""
        changes: dict[str, Any] = {f"dit.{key}": value for key, value in self.dit.items()}
        for name, stage in self.stages.items():
            every = max(1, math.ceil(stage.steps / _VALIDATIONS))
            changes |= _steps_of(name, stage.steps, every)
            changes[f"train_{name}.warmup_steps"] = stage.warmup
        return config.replace(**changes)


def _steps_of(name: str, steps: int, every: int) -> dict[str, int]:
    """The settings of a stage of so many steps, with a validation and a checkpoint after every so many."""
    return {
        f"train_{name}.steps": steps,
        f"train_{name}.validate_every": every,
        f"train_{name}.save_every": every,
        f"train_{name}.sample_every": 0,
    }


def _dit_of(width: int, depth: int) -> dict[str, int]:
    """The keys of a DiT of a size, with heads of `_HEAD_WIDTH`."""
    return {"width": width, "depth": depth, "heads": max(1, width // _HEAD_WIDTH)}


def train_for_minutes(
    config: Config,
    run: Path,
    console: Console,
    minutes: float,
    on_validate: OnValidate | None = None,
    after: float = 0.0,
) -> Config:
    """Train both stages so that the command ends when `minutes` have passed since this process began.

    Args:
        config: its sizes and steps are the plan's business.
        run: the run folder.
        console: where progress is shown.
        minutes: in all.
        on_validate: as of the stages.
        after: seconds that the command goes on after the training.

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
        train_vae(config, run, console, on_validate)
        # A run that goes on has no more time than it had: its plan stands as it is.
        if not (plan.settled or begun):
            settle(plan, run, left=60 * minutes - elapsed() - RESERVE - after)
            say(console, f"{plan.stages['dit'].steps} steps of the DiT in the time that is left", style="dim")
        config = plan.apply(config)
        pace = None if begun else Pace(plan, run, "dit", 60 * minutes - RESERVE - after)
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
        plan: whose steps are set; kept in `run` each time.
        run: the folder of the plan.
        name: of the stage.
        end: seconds of this process at which the stage has to end.
    """

    def __init__(self, plan: Plan, run: Path, name: str, end: float):
        self.plan, self.run, self.stage, self.end = plan, run, plan.stages[name], end
        self._first: tuple[int, float] | None = None

    def __call__(self, step: int) -> int:
        """The steps in all, asked after a validation at a step."""
        now = elapsed()
        if self._first is None:
            self._first = step, now
            return self.stage.steps
        first, then = self._first
        # Validations and checkpoints between them are in it, as they are in what is to come.
        step_seconds = (now - then) / (step - first)
        self.stage.steps = step + max(1, int((self.end - now) / step_seconds))
        keep_plan(self.plan, self.run)
        return self.stage.steps


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
    trial = run / "trial"
    quiet = Console(quiet=True)
    try:
        vae_step, vae_rest = _time_vae(config, trial, quiet)
        train, validation = (open_dataset(config, split) for split in ("train", "validation"))
        reading, encoding = _time_clips(config, trial, train, validation)
        share = _VAE_SHARE.get(config.data.source, _VAE_SHARE_OF_FOOTAGE)
        # Of training: many clips take long to read, which leaves less of both stages.
        total = 60 * minutes - RESERVE - after - elapsed() - encoding - reading
        vae_seconds = share * total + reading
        vae_rest += reading
        dit_seconds = (1 - share) * total
        sizes = _time_sizes(config, trial, quiet, dit_seconds, train.captions(), validation.captions())
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    best = min(sizes, key=lambda size: abs(math.log(size["params"] / size["best_params"])))
    stages = {
        "vae": stage_of(vae_seconds, vae_step, vae_rest),
        "dit": stage_of(dit_seconds, best["step_seconds"], best["more_seconds"]),
    }
    dit = _dit_of(int(best["width"]), int(best["depth"]))
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
    console.print(_table(plan))
    return plan


def settle(plan: Plan, run: Path, left: float) -> None:
    """Set the DiT's steps by the seconds that are left, encoding included, and keep the plan."""
    before = plan.stages["dit"]
    rest = before.seconds - before.steps * before.step_seconds
    plan.stages["dit"] = stage_of(left - plan.encoding, before.step_seconds, rest)
    plan.settled = True
    keep_plan(plan, run)


def stage_of(seconds: float, step_seconds: float, rest: float) -> StagePlan:
    """A stage of so many seconds, `rest` of which are no steps: validations, checkpoints, costs."""
    steps = max(1, int((seconds - rest) / step_seconds))
    stage = StagePlan(steps, round(seconds, 1), round(step_seconds, 5))
    stage.warmup_steps = stage.warmup
    return stage


def _time_vae(config: Config, trial: Path, console: Console) -> tuple[float, float]:
    """Seconds of a step of the VAE on clips that are held, and of all else that a stage of some validations does."""
    # The first step reads them all; the others are those of a training that has read its clips.
    few = config.replace(**{"train_vae.max_clips": config.train_vae.batch_size})
    start = time.perf_counter()
    train_vae(trial_config(few, "vae"), trial, console)
    return step_and_rest(trial, "vae", time.perf_counter() - start, config.train_vae.batch_size)


def trial_config(config: Config, name: str, steps: int = _TRIED_STEPS) -> Config:
    """The config with a stage of a few steps, each logged, and one validation and checkpoint."""
    return config.replace(**_steps_of(name, steps, every=steps), **{f"train_{name}.log_every": 1})


def step_and_rest(folder: Path, name: str, whole: float, batch_size: int) -> tuple[float, float]:
    """Seconds of a step (median of the later half), and of the rest of a stage with `_VALIDATIONS` of them.

    Args:
        folder: of the trial of the stage.
        name: of the stage.
        whole: seconds that the trial took.
        batch_size: clips of a step.
    """
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["stage"] == name]
    seconds = [batch_size / row["samples_per_second"] for row in rows if "loss" in row]
    step = statistics.median(seconds[len(seconds) // 2 :])
    validation = sum(row.get("seconds", 0.0) for row in rows)
    # The stage's beginning and end, its only checkpoint among them.
    once = max(0.0, whole - sum(seconds) - validation)
    return step, once + _VALIDATIONS * (validation + _CHECKPOINT)


def _time_clips(
    config: Config, trial: Path, train: ClipDataset, validation: ClipDataset
) -> tuple[float, float]:
    """Seconds that reading the clips of the VAE takes once, and encoding all of them, reading included."""
    vae = load_vae(trial / "vae" / "model").to(process_device())
    some = range(min(_TIMED_CLIPS, len(train)))
    reading = encoding = 0.0
    for first in range(0, len(some), _CLIPS_AT_ONCE):
        start = time.perf_counter()
        clips = train.clips(some[first : first + _CLIPS_AT_ONCE])
        read = time.perf_counter()
        vae.to_latents(to_float(clips.to(vae.device)))
        reading += read - start
        encoding += time.perf_counter() - start
    count = len(train) + len(validation)
    encoded = count if config.train_dit.cache_latents else 0
    held = min(len(train), config.train_vae.max_clips) + len(validation)
    return reading / len(some) * held, encoding / len(some) * encoded


class _NoiseLatents:
    """A `LatentSource` of noise, which takes no time to speak of, under the real captions.

    Args:
        shape: Z T' H' W' of a clip.
        captions: one a clip.
    """

    def __init__(self, shape: Sequence[int], captions: list[str]):
        self._shape, self._captions = shape, captions

    def __len__(self) -> int:
        return len(self._captions)

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Standard normal latents B Z T' H' W', the same for every batch of a size."""
        generator = torch.Generator().manual_seed(len(indices))
        return torch.randn(len(indices), *self._shape, generator=generator)

    def captions(self) -> list[str]:
        """The caption of every clip."""
        return self._captions


def _time_sizes(
    config: Config, trial: Path, console: Console, seconds: float, *captions: list[str]
) -> list[dict[str, float]]:
    """Time DiTs, the smallest first, until one is too slow for its seconds or far larger than the law has it.

    Args:
        config: of the run.
        trial: the folder with a trained VAE, to which a folder for each size is added.
        console: where the stages show their progress.
        seconds: of the DiT's whole stage.
        captions: of training and of validation.

    Returns:
        For each size its width, depth and params; step_seconds of a step and more_seconds of the rest of the stage;
        the steps that the stage has room for, their training flops, and the best_params for these by `LAW`.
    """
    vae = load_vae(trial / "vae" / "model")
    shape = (config.vae.latent_channels, *latent_grid(config))
    train, validation = (_NoiseLatents(shape, each) for each in captions)
    sizes: list[dict[str, float]] = []
    for width, depth in SIZES:
        folder = trial / f"dit-{width}"
        sized = config.replace(**{f"dit.{key}": value for key, value in _dit_of(width, depth).items()})
        start = time.perf_counter()
        train_dit_on(trial_config(sized, "dit"), vae, train, validation, folder, console)
        step, rest = step_and_rest(folder, "dit", time.perf_counter() - start, config.train_dit.batch_size)
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if "flops_per_second" in row]
        flops = rows[-1]["flops_per_second"] / rows[-1]["samples_per_second"] * config.train_dit.batch_size
        steps = max(0.0, (seconds - rest) / step)
        compute = max(1.0, steps * flops)
        sizes.append(
            {
                "width": width,
                "depth": depth,
                "params": _params(sized),
                "step_seconds": step,
                "more_seconds": rest,
                "steps": steps,
                "flops": compute,
                "best_params": LAW["k"] * compute ** LAW["a"],
            }
        )
        if steps < _LEAST_STEPS or sizes[-1]["params"] > 3 * sizes[-1]["best_params"]:
            break
    return sizes


def _params(config: Config) -> int:
    """Parameters of the config's DiT, without its text encoder."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_dit(config, config.text.width).parameters())


def _table(plan: Plan) -> Table:
    """The plan for people: the steps of each stage and its seconds."""
    table = Table(title=f"plan for {plan.minutes:g} minutes on {plan.device}", title_justify="left")
    for name in ("", "steps", "s a step", "s"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("VAE", *_cells(plan.stages["vae"]))
    table.add_row("encoding", "", "", f"{plan.encoding:,.0f}")
    dit = plan.dit
    table.add_row(f"DiT, width {dit['width']}, depth {dit['depth']}", *_cells(plan.stages["dit"]))
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
