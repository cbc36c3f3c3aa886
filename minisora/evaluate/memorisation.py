"""Is a model learning, stuck, or memorising: its validation loss by noise level, and how near its samples are
to the training clips. One line that a newcomer understands comes out.

    curves = measure_curves(load_pipeline("runs/mine/model"), Path("runs/mine"))
    curves.finding.sentence  # "learning: ..."

**Stuck**: the yardstick is the best prediction that knows the mean and the spread of every place of the
training latents and nothing else: no neighbouring place, no prompt. A model whose mean loss is not clearly
below the yardstick's (`STUCK`) has learned no more than that. Predicting the mean velocity everywhere is worse.

**Memorising**: a sample is a copy if it is nearer to a training clip than half the usual distance of unseen
clips of the same captions (`COPY`). A smooth sample is no copy: in many dimensions even the mean of a cloud
lies 0.71 times as far from its points as they do from each other. Unseen clips may be near training clips
too, so what counts is how many more copies there are among the samples (`TOO_MANY`).

Letters: N clips, Z T' H' W' latents; distances are root mean square, per latent value, of unit variance.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from minisora.config import load
from minisora.config_files import of_run
from minisora.data.clips import ClipDataset
from minisora.data.dataset import open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.latent_cache import LatentCache, cache_keys
from minisora.errors import UserError
from minisora.flow.path import broadcast_sigma, flow_loss, interpolate
from minisora.limits import MAX_COUNT, check_number, check_seed, seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.run_metrics import place_of_best

SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
# Noise levels: the middles of eighths of [0, 1].
NUM_BUCKETS = 8
# Prompts of unseen clips that are sampled, and compared with these very clips.
NUM_SAMPLES = 32
# Share of the yardstick's loss above which a model is stuck.
STUCK = 0.9
# Share of the median distance of unseen clips below which a sample is a copy.
COPY = 0.5
# So many more copies among the samples than among unseen clips; a share of 32 has a deviation of 0.09 at worst.
TOO_MANY = 0.25
# Share of a stage's steps before which its validation loss was least, from which on it learned no more of unseen clips:
# of a stage that still learns, the last steps are the best, as the learning rate falls there.
EARLY = 0.75
# Training clips compared at a time.
_BLOCK = 512

State = Literal["learning", "stuck at predicting the mean", "memorising"]
Velocity: TypeAlias = Callable[[Tensor, Tensor, Sequence[str]], Tensor]  # noisy, sigma (B), captions


@dataclass(frozen=True)
class Moments:
    """Mean and variance of the training latents at every place, Z T' H' W'."""

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class LossCurve:
    """Flow loss at each noise level, of a model and of the yardstick, on the same clips and noise."""

    sigmas: list[float]
    loss: list[float]
    yardstick: list[float]

    @property
    def ratio(self) -> float:
        """Mean loss over the yardstick's: 1 is nothing learned, 0 is perfect."""
        return sum(self.loss) / sum(self.yardstick)


@dataclass(frozen=True)
class Finding:
    """What a model is doing, in one line, what mends it, and the numbers that say so."""

    state: State
    sentence: str
    remedy: str  # "" where there is nothing to mend
    copies: float  # share of the samples
    unseen_copies: float  # share of the unseen clips
    distance: float  # median of the samples, over that of the unseen clips; NaN if that is 0


@dataclass(frozen=True)
class Curves:
    """A model's curves: everything `diagnose` needs and says."""

    loss: LossCurve
    samples: list[float]  # distance of each sample to the nearest training clip
    unseen: list[float]  # the same of unseen clips of the same captions
    finding: Finding

    def to_dict(self) -> dict[str, Any]:
        """For JSON: null for a distance that cannot be told."""
        finding = vars(self.finding) | {"distance": finite(self.finding.distance)}
        return {
            "finding": finding,
            "loss_by_sigma": vars(self.loss) | {"ratio": self.loss.ratio},
            "nearest_training_clip": {"samples": self.samples, "unseen": self.unseen},
        }


def measure_curves(
    pipeline: MiniSoraPipeline,
    run: Path,
    *,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 8,
    on_progress: Callable[[float, int], None] | None = None,
) -> Curves:
    """The curves of a finished run: its model on the validation clips of its config, against its latent cache.

    Args:
        pipeline: the model that the run trained, loaded from RUN/model.
        run: the run folder, with config.yaml and cache/.
        seed: seed of the noise, both of the loss and of the samples.
        num_samples: number of unseen captions to sample; all of them if there are fewer.
        steps: sampling steps; the model's own by default.
        guidance: guidance scale; the model's own by default.
        batch_size: clips in a forward pass.
        on_progress: called with (units done, units in all), one for each pass of the loss and each sample.

    Raises:
        UserError: the folder is no run, its data are gone, or it has no latents of this model's VAE.
    """
    check_seed(seed)
    check_number("batch_size", batch_size, 1, MAX_COUNT)
    keys = list(cache_keys(pipeline.vae).values())
    training, validation = (_open_cache(run, dataset, keys) for dataset in run_clips(run))
    unseen, captions = validation.latents(range(len(validation))), validation.captions()
    count = min(num_samples, len(unseen))
    # The loss calls back eight times as often, each an eighth.
    passes = -(-len(unseen) // batch_size)

    def loss_progress(done: float, total: int) -> None:
        if on_progress:
            on_progress(done / total * passes, passes + count)

    curve = loss_by_sigma(
        velocity_of(pipeline),
        unseen.to(pipeline.device),
        captions,
        moments(blocks(training)),
        seed,
        batch_size,
        loss_progress,
    )
    samples = []
    for indices, latents in sample_latents(pipeline, captions[:count], seed, batch_size, steps, guidance):
        samples.append(latents.float().cpu())
        if on_progress:
            on_progress(passes + indices[-1] + 1, passes + count)
    of_samples = nearest(torch.cat(samples), blocks(training))
    of_unseen = nearest(unseen[:count], blocks(training))
    finding = diagnose(curve, of_samples, of_unseen, place_of_best(run))
    return Curves(curve, of_samples, of_unseen, finding)


def sample_latents(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    seed: int,
    batch_size: int,
    steps: int | None = None,
    guidance: float | None = None,
) -> Iterator[tuple[range, Tensor]]:
    """Sample one clip per prompt, and leave it as latents: of each batch the places of its prompts, and B Z T' H' W'.

    Args:
        pipeline: the model, on whose device the latents are.
        prompts: of the samples.
        seed: prompt i starts from the noise of seed + i, whatever the batch size.
        batch_size: prompts sampled at a time.
        steps: sampling steps; None: the model's own.
        guidance: guidance scale; None: the model's own.

    Raises:
        UserError: the model knows no word of a prompt.
    """
    for start in range(0, len(prompts), batch_size):
        indices = range(start, min(start + batch_size, len(prompts)))
        output = pipeline(
            [prompts[index] for index in indices],
            seed=seed_after(seed, start),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            progress=False,
        )
        yield indices, output.videos


def run_clips(run: Path) -> tuple[ClipDataset, ClipDataset]:
    """The training and the held-out clips of a run, as its DiT was begun on them.

    Raises:
        UserError: the folder is no run, or its data are gone or changed.
    """
    config = load(of_run(run))
    record = DataRecord(run / "dit", begun=True)
    training, held_out = (open_dataset(config, split, record) for split in SPLITS)
    return training, held_out


def find_cache(run: Path, dataset: ClipDataset, keys: Iterable[str]) -> LatentCache | None:
    """The run's latents of a data set, in the precision in which they were encoded; None if it has none whole."""
    key = next((key for key in keys if LatentCache.exists(run / "cache", dataset, key)), None)
    return None if key is None else LatentCache.open(run / "cache", dataset, key)


def _open_cache(run: Path, dataset: ClipDataset, keys: Iterable[str]) -> LatentCache:
    cache = find_cache(run, dataset, keys)
    if cache is None:
        raise UserError(
            f"{run} has no whole latent cache of this model's VAE and data: pass the run that trained "
            "the model, with train_dit.cache_latents on, or leave --run out"
        )
    return cache


def velocity_of(pipeline: MiniSoraPipeline) -> Velocity:
    """The velocity a pipeline's DiT predicts under captions, without guidance, as it was trained."""

    def velocity(noisy: Tensor, sigma: Tensor, captions: Sequence[str]) -> Tensor:
        dtype = pipeline.dit.dtype
        if pipeline.text_encoder is None:
            return pipeline.dit(noisy.to(dtype), sigma)
        text = pipeline.text_encoder.encode(list(captions))
        return pipeline.dit(noisy.to(dtype), sigma, text.tokens, text.mask, text.pooled)

    return velocity


def blocks(cache: LatentCache) -> Iterator[Tensor]:
    """All latents of a cache in order, a few hundred at a time: N Z T' H' W'."""
    for start in range(0, len(cache), _BLOCK):
        yield cache.latents(range(start, min(start + _BLOCK, len(cache))))


def moments(training: Iterable[Tensor]) -> Moments:
    """Mean and variance of each place over blocks N Z T' H' W' of training latents.

    Raises:
        UserError: there are no clips.
    """
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for block in training:
        values = block.double()
        count += len(values)
        total = total + values.sum(0)
        squares = squares + values.square().sum(0)
    if not count:
        raise UserError("no training latents to compare with: the cache of the run is empty")
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0)
    return Moments(mean.float(), variance.float())


@torch.no_grad()
def loss_by_sigma(
    velocity: Velocity,
    latents: Tensor,
    captions: Sequence[str],
    training: Moments,
    seed: int = 0,
    batch_size: int = 16,
    on_progress: Callable[[float, int], None] | None = None,
) -> LossCurve:
    """Flow loss of unseen clips at every noise level, each clip at each, on noise that depends on the seed alone.

    Args:
        velocity: the model: noisy latents B Z T' H' W', sigma B and B captions to a velocity B Z T' H' W'.
        latents: N Z T' H' W', normalised, of unseen clips, on the model's device.
        captions: one for each clip.
        training: mean and variance of the training latents.
        seed: clip i takes its noise from seed + i, whatever the batch size.
        batch_size: clips in a forward pass.
        on_progress: called with (passes done, passes in all).

    Raises:
        UserError: no clip, not one caption each, or a loss that is not finite.
    """
    if len(latents) != len(captions) or not captions:
        raise UserError(f"{len(latents)} clips and {len(captions)} captions: one caption per clip is needed")
    sigmas = [(bucket + 0.5) / NUM_BUCKETS for bucket in range(NUM_BUCKETS)]
    loss, yardstick = torch.zeros(NUM_BUCKETS), torch.zeros(NUM_BUCKETS)
    starts = range(0, len(latents), batch_size)
    for start in starts:
        part = latents[start : start + batch_size]
        texts = captions[start : start + batch_size]
        # B S Z T' H' W', S noise levels
        noise = torch.stack([_noise(seed_after(seed, start + i), part.shape[1:]) for i in range(len(part))])
        for bucket, level in enumerate(sigmas):
            sigma = torch.full((len(part),), level, device=part.device)
            point = interpolate(part, noise[:, bucket].to(part), sigma)
            loss[bucket] += flow_loss(velocity(point.noisy, sigma, texts), point).sum().cpu()
            yardstick[bucket] += flow_loss(_mean_velocity(point.noisy, sigma, training), point).sum().cpu()
            if on_progress:
                on_progress(start // batch_size * NUM_BUCKETS + bucket + 1, len(starts) * NUM_BUCKETS)
    if not bool(loss.isfinite().all()):
        raise UserError("the model's validation loss is not finite: its training diverged; lower the lr")
    return LossCurve(sigmas, (loss / len(latents)).tolist(), (yardstick / len(latents)).tolist())


@dataclass(frozen=True)
class Nearest:
    """The training clip that is nearest to a clip."""

    index: int
    distance: float


@torch.no_grad()
def nearest_clips(latents: Tensor, training: Iterable[Tensor]) -> list[Nearest]:
    """Of each clip (N Z T' H' W') the nearest training clip, over blocks M Z T' H' W' of them.

    Raises:
        UserError: there are no training clips.
    """
    flat = latents.flatten(1).float().cpu()
    closest, index, start = torch.full((len(flat),), math.inf), torch.zeros(len(flat), dtype=torch.long), 0
    for block in training:
        # The faster way by inner products rounds the distance of a copy, 0, to 1e-3.
        all_pairs = torch.cdist(
            flat, block.flatten(1).float().cpu(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        least = all_pairs.min(dim=1)
        index = torch.where(least.values < closest, least.indices + start, index)
        closest = torch.minimum(closest, least.values)
        start += len(block)
    if not bool(closest.isfinite().all()):
        raise UserError("no training latents to compare with: the cache of the run is empty")
    distances = (closest / math.sqrt(flat.shape[1])).tolist()
    return [Nearest(*pair) for pair in zip(index.tolist(), distances, strict=True)]


def nearest(latents: Tensor, training: Iterable[Tensor]) -> list[float]:
    """The distances of `nearest_clips`."""
    return [each.distance for each in nearest_clips(latents, training)]


def diagnose(
    curve: LossCurve, samples: Sequence[float], unseen: Sequence[float], best_at: float | None = None
) -> Finding:
    """Which of the three it is; copies tell before the loss does, as memorised clips make it bad on others.

    Args:
        curve: flow loss of unseen clips by noise level.
        samples: distance of each sample to the nearest training clip.
        unseen: the same for unseen clips, best of the same captions.
        best_at: as of `minisora.run_metrics.place_of_best`; None: not known.

    Raises:
        UserError: no samples or no unseen clips.
    """
    if not samples or not unseen:
        raise UserError(
            f"{len(samples)} samples and {len(unseen)} unseen clips: at least one of each is needed"
        )
    usual = float(torch.tensor(unseen).median())
    near = [sum(d < COPY * usual for d in group) / len(group) for group in (samples, unseen)]
    distance = float(torch.tensor(samples).median()) / usual if usual > 0 else math.nan
    learned = f"its error on unseen clips is {curve.ratio:.2f} of what the average clip alone gives"
    away = f"its samples lie {distance:.2f} times as far from the training clips as unseen clips do"
    # A folder of one file is both, see `minisora.data.folder.folder_dataset.split_files`.
    if usual == 0:
        away = "whether it memorises cannot be told, as its unseen clips are training clips"
    state: State
    remedy = ""
    if near[0] - near[1] >= TOO_MANY:
        state = "memorising"
        explanation = (
            f"{near[0]:.0%} of its samples are copies of training clips ({near[1]:.0%} of unseen clips come as "
            f"near); {away}"
        )
        remedy = "train on more clips, or for fewer steps"
    elif curve.ratio > STUCK:
        state = "stuck at predicting the mean"
        explanation = f"{learned} (1 is nothing learned)"
        remedy = "train longer, then try another lr, then look at the captions"
        if best_at is not None and best_at < EARLY:
            explanation += f", and its validation loss was least after {best_at:.0%} of its steps"
            remedy = "train on more clips, or for fewer steps"
    else:
        state = "learning"
        explanation = f"{learned} (1 is nothing learned, 0 is perfect), and {away} (near 0 would be copying)"
    return Finding(state, f"{state}: {explanation}", remedy, near[0], near[1], distance)


def _mean_velocity(noisy: Tensor, sigma: Tensor, training: Moments) -> Tensor:
    """The yardstick: the linear prediction of least error from each place's own value, mean and variance.

    With x_t = (1 - s) x_0 + s noise and v = noise - x_0: E[v | x_t] = -m + cov(v, x_t) / var(x_t) (x_t - E[x_t]).
    """
    s = broadcast_sigma(sigma, noisy)
    mean, variance = training.mean.to(noisy), training.variance.to(noisy)
    covariance = s - (1 - s) * variance
    return -mean + covariance / ((1 - s) ** 2 * variance + s**2) * (noisy - (1 - s) * mean)


def _noise(seed: int, shape: torch.Size) -> Tensor:
    """Standard normal noise of one clip, one draw for each noise level; the same on every device."""
    return torch.randn(NUM_BUCKETS, *shape, generator=torch.Generator().manual_seed(seed))


def finite(value: float) -> float | None:
    """A number for JSON, which has no NaN and no infinity: None for these."""
    return value if math.isfinite(value) else None
