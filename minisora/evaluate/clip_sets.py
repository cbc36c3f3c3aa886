"""Sets of clips as an evaluation sees them: read once, measured clip after clip, and compared in equal numbers.

Letters: B clips of a batch, N clips of a set, T frames, H W pixels, Z T' H' W' latents.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from minisora.data.clip_views import num_unaltered
from minisora.data.clips import ClipDataset, StandsIn, to_float
from minisora.data.latent_cache import LatentCache
from minisora.errors import UserError
from minisora.evaluate.likeness import Motion, activity, flicker, joined, motion
from minisora.evaluate.memorisation import blocks
from minisora.evaluate.video_network import VideoNetwork
from minisora.pipelines.pipeline import MiniSoraPipeline

# Training clips that are encoded where the run keeps no latents.
MOST_ENCODED = 512
# Samples of each caption, at least, where the captions are at most a third of the samples.
EACH = 3


@dataclass
class SeenClips:
    """A set of clips as it was measured, clip after clip: pixels are not kept."""

    latents: list[Tensor] = field(default_factory=list)  # each B Z T' H' W'
    activity: list[float] = field(default_factory=list)
    flicker: list[float] = field(default_factory=list)
    motions: list[Motion] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)  # of the network, each B F

    def add(self, videos: Tensor, latents: Tensor, network: VideoNetwork | None, moves: bool = True) -> None:
        """Measure clips B 3 T H W in [-1, 1] with their latents B Z T' H' W'; their motion where it is compared."""
        self.latents.append(latents)
        self.activity += activity(videos).tolist()
        self.flicker += flicker(videos).tolist()
        if moves:
            self.motions += [motion([video]) for video in videos]
        if network is not None:
            self.features.append(network(videos))

    @property
    def motion(self) -> Motion:
        """Of all of them that were asked for it; at least one."""
        return joined(self.motions)

    @property
    def all_latents(self) -> Tensor:
        """N Z T' H' W'."""
        return torch.cat(self.latents)


@dataclass
class VAECopies:
    """How well the VAE copies each held-out clip, in dB but for SSIM; NaN where nothing moves."""

    psnr: list[float] = field(default_factory=list)
    moving: list[float] = field(default_factory=list)
    still: list[float] = field(default_factory=list)  # on what moves, of the median frame repeated
    ssim: list[float] = field(default_factory=list)


class TrainingClips:
    """The training clips of a run: their latents, from its cache or encoded now, captions, and pixels by index."""

    def __init__(
        self,
        dataset: ClipDataset,
        cache: LatentCache | None,
        encode: Callable[[Tensor], Tensor],
        batch: int,
        on_progress: Callable[[float, int], None],
    ) -> None:
        self.dataset, self._cache = dataset, cache
        if cache is not None:
            self.captions, self._own = cache.captions(), torch.empty(0)
        else:
            self.captions, self._own = _encode(dataset, encode, batch, on_progress)
        # How many of the first are no altered views.
        self.unaltered = min(num_unaltered(dataset), len(self.captions))

    def __len__(self) -> int:
        return len(self.captions)

    def blocks(self) -> Iterable[Tensor]:
        """All latents in order, N Z T' H' W'."""
        return blocks(self._cache) if self._cache is not None else [self._own]

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Of these clips, N Z T' H' W'."""
        return self._cache.latents(indices) if self._cache is not None else self._own[list(indices)]


def is_known(pipeline: MiniSoraPipeline, caption: str) -> bool:
    """Whether a model can sample a caption: it knows a word of it."""
    try:
        pipeline.check_prompt(caption)
    except UserError:
        return False
    return True


def prompts_of(captions: Sequence[str], count: int) -> list[str]:
    """Captions of held-out clips to sample: in their order, again and again, then more of those with few samples.

    Args:
        captions: of the held-out clips.
        count: samples; those for captions with fewer than `EACH` come on top, where captions are few.
    """
    prompts = [captions[index % len(captions)] for index in range(count)]
    if len(set(captions)) * EACH <= count:
        for caption in dict.fromkeys(captions):
            prompts += [caption] * (EACH - prompts.count(caption))
    return prompts


def matching(captions: Sequence[str], training: Sequence[str], rng: np.random.Generator) -> list[int]:
    """A training clip for each caption, with the same one where there is such; none twice while there are others.

    Args:
        captions: wanted.
        training: of the training clips.
        rng: draws among those that fit.
    """
    order = rng.permutation(len(training)).tolist()
    left: dict[str, list[int]] = {}
    for index in order:
        left.setdefault(training[index], []).append(index)
    taken: set[int] = set()
    chosen: list[int | None] = []
    for caption in captions:
        index = left[caption].pop() if left.get(caption) else None
        chosen.append(index)
        if index is not None:
            taken.add(index)
    others = [index for index in order if index not in taken] or order
    spare = iter(others * (len(captions) // len(others) + 1))
    return [next(spare) if index is None else index for index in chosen]


def _encode(
    dataset: ClipDataset,
    encode: Callable[[Tensor], Tensor],
    batch_size: int,
    on_progress: Callable[[float, int], None],
) -> tuple[list[str], Tensor]:
    """Captions and latents of the first clips of a data set, where the run keeps none."""
    count = min(len(dataset), MOST_ENCODED)
    captions: list[str] = []
    latents = []
    for indices in batches(range(count), batch_size):
        latents.append(encode(to_float(dataset.clips(indices))))
        captions += captions_read(dataset, indices)
        on_progress(len(captions), count)
    return captions, torch.cat(latents)


def captions_read(dataset: ClipDataset, indices: Sequence[int]) -> list[str]:
    """The captions of clips that were just read."""
    if isinstance(dataset, StandsIn):
        return dataset.captions_of(indices)
    captions = dataset.captions()
    return [captions[index] for index in indices]


def batches(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    """Parts of so many indices, in order."""
    for start in range(0, len(indices), size):
        yield list(indices[start : start + size])


def frame_similarity() -> Callable[[Tensor, Tensor], float] | None:
    """Mean SSIM over the frames of a clip 3 T H W and its copy; None without torchmetrics, which is optional."""
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        return None

    def similarity(copy: Tensor, video: Tensor) -> float:
        shown, real = (clip.transpose(0, 1).contiguous() for clip in (copy, video))
        value = structural_similarity_index_measure(shown, real, data_range=2.0)
        assert isinstance(value, Tensor)
        return float(value)

    return similarity


def mean(values: Sequence[float]) -> float | None:
    """Mean of those that are numbers; None if none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else None
