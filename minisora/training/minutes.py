"""The best run that some minutes buy: sizes and steps planned from a few real steps here, kept in RUN/plan.json.

    RUN/plan.json    {"minutes", "device", "stages": {name: {"steps", "seconds", "step_seconds"}}, "sizes": [...]}

The plan is made once, before the first stage: a VAE and DiTs of several sizes take a few steps each, by the very loop
that trains them, in a folder of their own. The DiT's size is the one nearest to N* = k C^a of this project's ladder
(`LAW`) among those tried, C being the FLOPs that its minutes hold. After the VAE the DiT's steps are set anew by the
minutes left. A run that goes on keeps its plan.
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

from minisora.config import Config
from minisora.data.clips import to_float
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
# Widths and depths tried, heads of 32 wide.
SIZES = ((64, 3), (96, 5), (128, 6), (192, 8), (256, 10), (384, 12))
# Share of the minutes that the VAE trains: footage needs more than the shapes world, whose pictures are plain.
_VAE_SHARE = {"shapes": 0.16}
_VAE_SHARE_OF_FOOTAGE = 0.35
_TRIED_STEPS = 8
_TIMED_CLIPS = 24
# A DiT that takes fewer steps than this learns nothing: the next larger is not tried.
_LEAST_STEPS = 300
# Fewer steps of a stage than this are no training.
_FEWEST_STEPS = 60
_VALIDATIONS = 8
# Seconds kept for writing the model and the last page.
_RESERVE = 8.0


@dataclass
class StagePlan:
    """A stage: its steps, the seconds they should take with all that goes with them, and those of a step."""

    steps: int
    seconds: float
    step_seconds: float


@dataclass
class Plan:
    """What a run of some minutes does; `sizes` are the DiTs tried, `dit` the keys of the one chosen."""

    minutes: float
    device: str
    stages: dict[str, StagePlan]
    dit: dict[str, int]
    # Seconds that encoding the clips takes, between the two stages.
    encoding: float = 0.0
    sizes: list[dict[str, float]] = field(default_factory=list)
    # Whether the DiT's steps were set by the minutes left after the VAE.
    settled: bool = False

    def apply(self, config: Config) -> Config:
        """The config with the plan's size and steps."""
        changes: dict[str, Any] = {f"dit.{key}": value for key, value in self.dit.items()}
        for name, stage in self.stages.items():
            every = max(1, math.ceil(stage.steps / _VALIDATIONS))
            changes |= {
                f"train_{name}.steps": stage.steps,
                f"train_{name}.warmup_steps": min(50, stage.steps // 10),
                f"train_{name}.validate_every": every,
                f"train_{name}.save_every": every,
                f"train_{name}.sample_every": 0,
            }
        return config.replace(**changes)


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
    train_vae(config, run, console, on_validate)
    # A run that goes on has no more time than it had: its plan stands as it is.
    if not (plan.settled or begun):
        settle(plan, run, left=60 * minutes - elapsed() - _RESERVE - after)
        say(console, f"{plan.stages['dit'].steps} steps of the DiT in the time that is left", style="dim")
    config = plan.apply(config)
    train_dit(config, run, console, on_validate=on_validate)
    return config


def elapsed() -> float:
    """Seconds since this process began, its imports included."""
    return time.time() - psutil.Process().create_time()


def plan_file(run: Path) -> Path:
    """Where a run keeps its plan."""
    return run / "plan.json"


def open_plan(config: Config, run: Path, console: Console, minutes: float, after: float = 0.0) -> Plan:
    """The plan of a run: the one it has, or a new one.

    Raises:
        UserError: see `train_for_minutes`.
    """
    if not minutes >= LEAST_MINUTES:
        raise UserError(
            f"--minutes {minutes:g} is too short to learn anything: give at least {LEAST_MINUTES:g}"
        )
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        raise UserError("--minutes plans for one process: run it without accelerate launch, or set the steps")
    file = plan_file(run)
    if file.is_file():
        plan = _read(file)
        if plan.minutes != minutes:
            raise UserError(
                f"{run} was planned for {plan.minutes:g} minutes: say --minutes {plan.minutes:g} to go on, or use "
                "another --out"
            )
        return plan
    plan = make_plan(config, run, console, minutes, after)
    run.mkdir(parents=True, exist_ok=True)
    _write(plan, run)
    return plan


def make_plan(config: Config, run: Path, console: Console, minutes: float, after: float = 0.0) -> Plan:
    """Time a few real steps of the VAE and of DiTs of several sizes, and share the minutes out."""
    say(console, ("Plan", "bold"), f" for {minutes:g} minutes: timing a few steps of each size")
    trial = run / "trial"
    quiet = Console(quiet=True)
    try:
        vae_step, vae_more = _time_vae(config, trial, quiet)
        reading, encoding = _time_clips(config, trial)
        vae_more += reading
        share = _VAE_SHARE.get(config.data.source, _VAE_SHARE_OF_FOOTAGE)
        total = 60 * minutes - _RESERVE - after - elapsed() - encoding
        vae_seconds = share * total
        dit_seconds = total - vae_seconds
        sizes = _time_sizes(config, trial, quiet, dit_seconds)
    finally:
        shutil.rmtree(trial, ignore_errors=True)
    best = min(sizes, key=lambda size: abs(math.log(size["params"] / size["best_params"])))
    stages = {
        "vae": _stage(vae_seconds, vae_step, vae_more),
        "dit": _stage(dit_seconds, best["step_seconds"], best["more_seconds"]),
    }
    width = int(best["width"])
    dit = {"width": width, "depth": int(best["depth"]), "heads": max(1, width // 32)}
    least = min(stage.steps for stage in stages.values())
    if least < _FEWEST_STEPS:
        # What is no step, and the fewest steps of either stage by its share.
        fixed = 60 * minutes - total + vae_more
        need = fixed + max(
            _FEWEST_STEPS * vae_step / share, _FEWEST_STEPS * best["step_seconds"] / (1 - share)
        )
        raise UserError(
            f"{minutes:g} minutes are too few on this machine: a step of the VAE takes {vae_step:.2f} s, encoding the "
            f"clips {encoding:.0f} s; give --minutes {math.ceil(need / 60) + 1}, or stop what else runs here"
        )
    plan = Plan(minutes, device_name(process_device()), stages, dit, round(encoding, 1), sizes)
    console.print(_table(plan))
    return plan


def settle(plan: Plan, run: Path, left: float) -> None:
    """Set the DiT's steps by the seconds that are left, and keep the plan."""
    before = plan.stages["dit"]
    more = before.seconds - before.steps * before.step_seconds
    plan.stages["dit"] = _stage(left - plan.encoding, before.step_seconds, more)
    plan.settled = True
    _write(plan, run)


def _stage(seconds: float, step_seconds: float, more: float) -> StagePlan:
    """A stage of so many seconds, `more` of which are no steps: validations, checkpoints, costs."""
    steps = max(1, int((seconds - more) / step_seconds))
    return StagePlan(steps, round(seconds, 1), round(step_seconds, 5))


def _time_vae(config: Config, trial: Path, console: Console) -> tuple[float, float]:
    """Seconds of a step of the VAE on clips that are held, and of all else that a stage of some validations does."""
    # The first step reads them all; the others are those of a training that has read its clips.
    few = config.replace(**{"train_vae.max_clips": config.train_vae.batch_size})
    start = time.perf_counter()
    train_vae(_tried(few, "vae"), trial, console)
    return _split(trial, "vae", time.perf_counter() - start, config.train_vae.batch_size)


def _tried(config: Config, name: str) -> Config:
    return config.replace(
        **{
            f"train_{name}.steps": _TRIED_STEPS,
            f"train_{name}.log_every": 1,
            f"train_{name}.validate_every": _TRIED_STEPS,
            f"train_{name}.save_every": _TRIED_STEPS,
            f"train_{name}.sample_every": 0,
        }
    )


def _split(trial: Path, name: str, whole: float, batch_size: int) -> tuple[float, float]:
    """Seconds of a step (median of the later half), and of the rest of a stage with `_VALIDATIONS` of them."""
    rows = [row for row in read_metrics(trial / "metrics.jsonl") if row["stage"] == name and "loss" in row]
    seconds = [batch_size / row["samples_per_second"] for row in rows]
    step = statistics.median(seconds[len(seconds) // 2 :])
    once = max(0.0, whole - sum(seconds))
    # A stage's beginning is paid once, a validation and a checkpoint each time; half of `once` is taken for each.
    return step, once / 2 + _VALIDATIONS * once / 2


def _time_clips(config: Config, trial: Path) -> tuple[float, float]:
    """Seconds that reading the clips of the VAE takes once, and encoding all of them, reading included."""
    vae = load_vae(trial / "vae" / "model").to(process_device())
    train, validation = (open_dataset(config, split) for split in ("train", "validation"))
    some = range(min(_TIMED_CLIPS, len(train)))
    reading = encoding = 0.0
    for first in range(0, len(some), 8):
        start = time.perf_counter()
        clips = train.clips(some[first : first + 8])
        read = time.perf_counter()
        vae.to_latents(to_float(clips.to(vae.device)))
        reading += read - start
        encoding += time.perf_counter() - start
    count = len(train) + len(validation)
    encoded = count if config.train_dit.cache_latents else 0
    held = min(len(train), config.train_vae.max_clips) + len(validation)
    return reading / len(some) * held, encoding / len(some) * encoded


class _Noise:
    """A `LatentSource` of the right shape that costs nothing, under the real captions."""

    def __init__(self, shape: Sequence[int], captions: Sequence[str]):
        self._shape, self._captions = tuple(shape), list(captions)

    def __len__(self) -> int:
        return len(self._captions)

    def latents(self, indices: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(len(indices))
        return torch.randn(len(indices), *self._shape, generator=generator)

    def captions(self) -> list[str]:
        return self._captions


def _time_sizes(config: Config, trial: Path, console: Console, seconds: float) -> list[dict[str, float]]:
    """Time DiTs, the smallest first, until one is too slow for its seconds."""
    vae = load_vae(trial / "vae" / "model")
    shape = (config.vae.latent_channels, *latent_grid(config))
    train, validation = (_Noise(shape, open_dataset(config, s).captions()) for s in ("train", "validation"))
    sizes: list[dict[str, float]] = []
    for width, depth in SIZES:
        folder = trial / f"dit-{width}"
        sized = config.replace(**{"dit.width": width, "dit.depth": depth, "dit.heads": max(1, width // 32)})
        start = time.perf_counter()
        train_dit_on(_tried(sized, "dit"), vae, train, validation, folder, console)
        step, more = _split(folder, "dit", time.perf_counter() - start, config.train_dit.batch_size)
        rows = [row for row in read_metrics(folder / "metrics.jsonl") if "flops_per_second" in row]
        flops = rows[-1]["flops_per_second"] / rows[-1]["samples_per_second"] * config.train_dit.batch_size
        steps = max(0.0, (seconds - more) / step)
        compute = max(1.0, steps * flops)
        sizes.append(
            {
                "width": width,
                "depth": depth,
                "params": _params(sized),
                "step_seconds": step,
                "more_seconds": more,
                "steps": steps,
                "flops": compute,
                "best_params": LAW["k"] * compute ** LAW["a"],
            }
        )
        if steps < _LEAST_STEPS or sizes[-1]["params"] > 3 * sizes[-1]["best_params"]:
            break
    return sizes


def _params(config: Config) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build_dit(config, config.text.width).parameters())


def _table(plan: Plan) -> Table:
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


def _write(plan: Plan, run: Path) -> None:
    write_json(plan_file(run), asdict(plan))


def _read(file: Path) -> Plan:
    try:
        tree = read_json(file)
        stages = {name: StagePlan(**stage) for name, stage in tree.pop("stages").items()}
        return Plan(stages=stages, **tree)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): delete it, and the run is planned again"
        ) from error
