"""The curves of a finished run: its model, its config and its latent cache, put together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from minisora.config import load
from minisora.data.clips import ClipDataset
from minisora.data.dataset import open_dataset
from minisora.data.folder.record import DataRecord
from minisora.data.latent_cache import LatentCache
from minisora.errors import UserError
from minisora.evaluate.memorisation import Curves, Velocity, diagnose, loss_by_sigma, moments, nearest
from minisora.limits import MAX_COUNT, check_number, check_seed, seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline

SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")
NUM_SAMPLES = 32  # prompts of unseen clips that are sampled, and compared with these very clips
_BLOCK = 512  # training clips compared at a time


def measure_curves(
    pipeline: MiniSoraPipeline,
    run: Path,
    cache_keys: Callable[[nn.Module], Mapping[str, str]],
    *,
    seed: int = 0,
    num_samples: int = NUM_SAMPLES,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 8,
    on_progress: Callable[[float, int], None] | None = None,
) -> Curves:
    """Measure the curves of the model of a run on its validation clips.

    Args:
        pipeline: the model, of RUN/model.
        run: the run folder, with config.yaml and cache/.
        cache_keys: of a VAE, by precision (`minisora.training.latents.cache_keys`).
        seed: of the noise of the loss and of the samples.
        num_samples: unseen captions that are sampled, all of them if there are fewer.
        steps, guidance: of sampling; the model's own by default.
        batch_size: clips at a time.
        on_progress: called with (units done, units in all), one for each pass of the loss and each sample.

    Raises:
        UserError: the folder is no run, its data are gone, or it has no latents of this model's VAE.
    """
    check_seed(seed)
    check_number("batch_size", batch_size, 1, MAX_COUNT)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is not a run folder: it has no config.yaml; pass the --out of minisora train")
    config = load(run / "config.yaml")
    keys = list(cache_keys(pipeline.vae).values())
    record = DataRecord(run / "dit", begun=True)
    training, validation = (_open_cache(run, open_dataset(config, split, record), keys) for split in SPLITS)
    unseen, captions = validation.latents(range(len(validation))), validation.captions()
    count = min(num_samples, len(unseen))
    passes = -(-len(unseen) // batch_size)  # the loss calls back eight times as often, each an eighth

    def report(done: float, total: int) -> None:
        if on_progress:
            on_progress(done / total * passes, passes + count)

    curve = loss_by_sigma(
        velocity_of(pipeline),
        unseen.to(pipeline.device),
        captions,
        moments(_blocks(training)),
        seed,
        batch_size,
        report,
    )
    samples = []
    for start in range(0, count, batch_size):
        said = captions[start : min(start + batch_size, count)]
        output = pipeline(
            said,
            seed=seed_after(seed, start),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="latent",
            progress=False,
        )
        samples.append(output.videos.float().cpu())
        if on_progress:
            on_progress(passes + start + len(said), passes + count)
    of_samples = nearest(torch.cat(samples), _blocks(training))
    of_unseen = nearest(unseen[:count], _blocks(training))
    return Curves(curve, of_samples, of_unseen, diagnose(curve, of_samples, of_unseen))


def _open_cache(run: Path, dataset: ClipDataset, keys: Sequence[str]) -> LatentCache:
    """The run's latents of a data set, under the first key that there are any of."""
    for key in keys:
        with suppress(UserError):
            return LatentCache.open(run / "cache", dataset, key)
    raise UserError(
        f"{run} has no whole latent cache of this model's VAE and data: pass the run that trained "
        "the model, with train_dit.cache_latents on, or leave --run out"
    )


def velocity_of(pipeline: MiniSoraPipeline) -> Velocity:
    """The velocity a pipeline's DiT predicts under captions, without guidance, as it was trained."""

    def velocity(noisy: Tensor, sigma: Tensor, captions: Sequence[str]) -> Tensor:
        dtype = pipeline.dit.dtype
        if pipeline.text_encoder is None:
            return pipeline.dit(noisy.to(dtype), sigma)
        text = pipeline.text_encoder.encode(list(captions))
        return pipeline.dit(noisy.to(dtype), sigma, text.tokens, text.mask, text.pooled)

    return velocity


def _blocks(cache: LatentCache) -> Iterator[Tensor]:
    for start in range(0, len(cache), _BLOCK):
        yield cache.latents(range(start, min(start + _BLOCK, len(cache))))
