"""A few real steps of every stage on this machine, and what the ladder's law makes of them.

What is tried is the very loop that trains, in a folder of its own; `minisora.training.minutes` plans by it.
"""

import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from minisora.config import Config
from minisora.data.clips import ClipDataset, to_float
from minisora.models.build import build_dit, latent_grid
from minisora.run_metrics import read_metrics
from minisora.training.launch import process_device
from minisora.training.stages import load_vae, train_dit_on, train_vae

# N* = k C^a: parameters of the DiT against its training FLOPs, of benchmarks/results/ladder/law.json.
LAW = {"k": 1.8281802562228158, "a": 0.4216709124409269}
# L = E + A C^-alpha: the validation loss that so many FLOPs reach, of the same file, on latents Z T' H' W' of the
# shapes world. Those of another VAE have losses of their own: the law knows none of them.
LOSS_LAW = {"E": 0.060385495865532206, "A": 1037.7027679416547, "alpha": 0.3008312733287701}
_LADDERS_LATENTS = (8, 5, 8, 8)
# Widths and depths tried.
SIZES = ((64, 3), (96, 5), (128, 6), (192, 8), (256, 10), (384, 12))
_HEAD_WIDTH = 32
# Steps that a stage is timed by; clips that reading and encoding are timed by, and how many of them at a time.
_TRIED_STEPS = 8
_TIMED_CLIPS, _CLIPS_AT_ONCE = 24, 8
# A DiT that takes fewer steps than this learns nothing: the next larger is not tried.
_LEAST_STEPS = 300
# Of a stage, and as many checkpoints.
VALIDATIONS = 8
# Seconds that a checkpoint and a live page take, beside the validation before them.
_CHECKPOINT = 0.3


def steps_of(name: str, steps: int, every: int) -> dict[str, int]:
    """The settings of a stage of so many steps, with a validation and a checkpoint after every so many."""
    return {
        f"train_{name}.steps": steps,
        f"train_{name}.validate_every": every,
        f"train_{name}.save_every": every,
        f"train_{name}.sample_every": 0,
    }


def dit_of(width: int, depth: int) -> dict[str, int]:
    """The keys of a DiT of a size, with heads of `_HEAD_WIDTH`."""
    return {"width": width, "depth": depth, "heads": max(1, width // _HEAD_WIDTH)}


def expected_loss(config: Config, flops: float) -> float | None:
    """The validation loss that `LOSS_LAW` expects after so many FLOPs; None on latents that it does not know."""
    shape = (config.vae.latent_channels, *latent_grid(config))
    if config.data.source != "shapes" or shape != _LADDERS_LATENTS or config.train_vae.scale_equivariance:
        return None
    return round(LOSS_LAW["E"] + LOSS_LAW["A"] * flops ** -LOSS_LAW["alpha"], 3)


def time_vae(config: Config, trial: Path, console: Console) -> tuple[float, float]:
    """Seconds of a step of the VAE on clips that are held, and of all else that a stage of some validations does."""
    # The first step reads them all; the others are those of a training that has read its clips.
    few = config.replace(**{"train_vae.max_clips": config.train_vae.batch_size})
    start = time.perf_counter()
    train_vae(trial_config(few, "vae"), trial, console)
    return step_and_rest(trial, "vae", time.perf_counter() - start, config.train_vae.batch_size)


def fresh_trial(run: Path) -> Path:
    """The folder of a run for what is tried, without what a command that was killed left: it would be gone on from."""
    trial = run / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    return trial


def trial_config(config: Config, name: str, steps: int = _TRIED_STEPS) -> Config:
    """The config with a stage of a few steps, each logged, and one validation and checkpoint."""
    return config.replace(**steps_of(name, steps, every=steps), **{f"train_{name}.log_every": 1})


def step_and_rest(folder: Path, name: str, whole: float, batch_size: int) -> tuple[float, float]:
    """Seconds of a step (median of the later half), and of the rest of a stage with `VALIDATIONS` of them.

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
    return step, once + VALIDATIONS * (validation + _CHECKPOINT)


def time_clips(config: Config, run: Path, train: ClipDataset, validation: ClipDataset) -> tuple[float, float]:
    """Seconds that reading the clips of the VAE in `run` takes once, and encoding all of them, reading included."""
    vae = load_vae(run / "vae" / "model").to(process_device())
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


class NoiseLatents:
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


def time_sizes(
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
    train, validation = (NoiseLatents(shape, each) for each in captions)
    sizes: list[dict[str, float]] = []
    for width, depth in SIZES:
        folder = trial / f"dit-{width}"
        sized = config.replace(**{f"dit.{key}": value for key, value in dit_of(width, depth).items()})
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
