"""Latents of a data set for the DiT: encoded once into a cache, or inside the step."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from minisora.config import Config
from minisora.data.batches import LatentSource
from minisora.data.clip_views import ClipViews
from minisora.data.clips import ClipDataset, ClipMemory, StandsIn, to_float
from minisora.data.latent_cache import LatentCache, Processes, cache_keys
from minisora.models.vae import VideoVAE
from minisora.training.progress import StepProgress


class EncodedOnDemand:
    """A `LatentSource` that encodes inside the step, for data too large to cache.

    `encode` takes uint8 videos, as in `LatentCache.build`.
    """

    def __init__(self, dataset: ClipDataset, encode: Callable[[Tensor], Tensor]):
        self.dataset, self.encode = dataset, encode
        self._captions = dataset.captions()
        # Views hold their clips themselves.
        self.memory = ClipMemory(dataset, limit=0 if isinstance(dataset, ClipViews) else None)

    def __len__(self) -> int:
        return len(self.dataset)

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Normalised latents B Z T' H' W'."""
        return self.encode(torch.stack(self.memory.clips(indices)))

    def captions(self) -> list[str]:
        """The caption of every clip."""
        return list(self._captions)

    def captions_of(self, indices: Sequence[int]) -> list[str]:
        """The captions of the clips whose latents were given for these."""
        if isinstance(self.dataset, StandsIn):
            return self.dataset.captions_of(indices)
        return [self._captions[index] for index in indices]


def encodes_in_step(source: object) -> bool:
    """Whether a batch or latent source has a part that encodes on demand."""
    within = [*getattr(source, "parts", ()), getattr(source, "source", None)]
    return isinstance(source, EncodedOnDemand) or any(encodes_in_step(s) for s in within if s is not None)


def build_latents(
    config: Config,
    vae: VideoVAE,
    dataset: ClipDataset,
    folder: Path,
    console: Console,
    name: str,
    accelerator: Accelerator | None = None,
) -> LatentSource:
    """Latents of a data set: from the cache under `folder`, which is built first if need be, or on demand.

    Args:
        config: the run's; `train_dit.cache_latents` says which of the two.
        vae: on the device on which it is to run.
        dataset: the clips.
        folder: of all caches of the run.
        console: where progress is shown while there is something to encode.
        name: of the clips, for that.
        accelerator: of the stage: its processes share the work, in its precision; one process in float32 without.

    Raises:
        UserError: the data set is empty, or the cache cannot be written.
    """

    def encode(videos: Tensor) -> Tensor:
        with accelerator.autocast() if accelerator else nullcontext():
            return vae.to_latents(to_float(videos.to(vae.device))).cpu().float()

    if not config.train_dit.cache_latents:
        return EncodedOnDemand(dataset, encode)
    key = cache_keys(vae)[accelerator.mixed_precision if accelerator is not None else "no"]
    shown = StepProgress(console, f"encoding {name} clips", 0, len(dataset), unit="", at_least=200)
    together = Processes()
    if accelerator is not None:
        together = Processes(
            accelerator.process_index, accelerator.num_processes, accelerator.wait_for_everyone
        )
    with shown if together.index == 0 else shown.silenced() as progress:
        return LatentCache.build(folder, dataset, encode, key, progress=progress.update, processes=together)
