"""Latents of a data set for the DiT: encoded once into a cache, or inside the step."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from torch import Tensor

from minisora.config import Config
from minisora.data.batches import LatentSource, from_bytes, to_bytes
from minisora.data.clip import ClipDataset
from minisora.data.latent_cache import LatentCache
from minisora.models.vae import VideoVAE
from minisora.training.tasks import fingerprint


class EncodedOnDemand:
    """A `LatentSource` that encodes inside the step, for data too large to cache."""

    def __init__(self, dataset: ClipDataset, encode: Callable[[Tensor], Tensor]):
        self.dataset, self.encode = dataset, encode

    def __len__(self) -> int:
        return len(self.dataset)

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Normalised latents B Z T' H' W'."""
        return self.encode(self.dataset.clips(indices))

    def captions(self) -> list[str]:
        """The caption of every clip."""
        return self.dataset.captions()


def build_latents(
    config: Config,
    vae: VideoVAE,
    dataset: ClipDataset,
    folder: Path,
    *,
    is_main: bool,
    wait: Callable[[], None],
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Callable[[int, int], None] | None = None,
) -> LatentSource:
    """Latents of a data set: from the cache under `folder` (the main process builds it), or on demand.

    `autocast` gives the context in which the VAE runs, for the stage's precision.
    """

    def encode(videos: Tensor) -> Tensor:
        with autocast():
            return vae.to_latents(from_bytes(to_bytes(videos)).to(vae.device)).cpu().float()

    if not config.train_dit.cache_latents:
        return EncodedOnDemand(dataset, encode)
    key = fingerprint(vae)
    if is_main:
        LatentCache.build(folder, dataset, encode, key, progress=progress)
    wait()
    return LatentCache.open(folder, dataset, key)
