"""Training batches: what they hold, how they follow from a position, and which positions a process loads.

Position p is the p-th sample that training ever sees. Its clip, crop, noise, noise level and whether its
caption is dropped follow from (seed, p) alone, so a run that is resumed, split over processes or accumulated in
micro-batches sees the very same samples. The loader state of a checkpoint is one number: the step.

Letters: B clips, Z channels, T H W frames and pixels, T' H' W' latent grid.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from minisora.config import FlowConfig
from minisora.data.clips import ClipMemory, StandsIn
from minisora.data.draws import random_box, rng, sample_indices
from minisora.errors import UserError
from minisora.flow.known_frames import draw_known
from minisora.flow.path import broadcast_sigma, to_data, to_noise

# Keys of random draws, apart from the shuffling of epochs: of a sample, of what a step is made of, and of which step
# of a student is learned.
_DRAWS, _KINDS, _WINDOWS = 1, 2, 3


@dataclass(frozen=True)
class Batch(ABC):
    """What a task computes its loss from; `indices` name the clips, for error messages."""

    indices: list[int]

    @abstractmethod
    def clips_by_shape(self) -> Counter[tuple[int, ...]]:
        """How many clips there are of each shape, without the batch axis; shapes say what a step costs."""

    def _tensors(self) -> dict[str, Any]:
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on `device`, copied without waiting where memory is pinned."""
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in self._tensors().items()})

    def pin_memory(self) -> Self:
        """The batch in page-locked memory; the data loader calls it for CUDA."""
        return replace(self, **{k: v.pin_memory() for k, v in self._tensors().items()})


@dataclass(frozen=True)
class SizedBatch(Batch):
    """Clips that are all of one size."""

    @property
    @abstractmethod
    def samples(self) -> Tensor:
        """What a model looks at, a row for each clip."""

    def clips_by_shape(self) -> Counter[tuple[int, ...]]:
        """As `Batch`: one shape."""
        return Counter({tuple(self.samples.shape[1:]): len(self.indices)})


@dataclass(frozen=True)
class VAEBatch(SizedBatch):
    """Crops (`video`, B 3 T H W uint8), the noise of the posterior draw (B Z T' H' W'), what moves (B 1 T H W bool)."""

    video: Tensor
    noise: Tensor
    moving: Tensor | None = None

    @property
    def samples(self) -> Tensor:
        """As `SizedBatch`."""
        return self.video


@dataclass(frozen=True)
class DiTBatch(SizedBatch):
    """Latents, captions, and the point on the path to noise.

    Args:
        latents, noise: B Z T' H' W', the latents normalised.
        normal: B, standard normal draws that become noise levels.
        captions: B, "" where it was dropped.
        known: B T', whether a latent frame is known; None where no clip has known frames.
        known_sigma: B, noise level of the known frames.
        sigma: B, noise levels where they are not to be made of `normal`.
    """

    latents: Tensor
    noise: Tensor
    normal: Tensor
    captions: list[str]
    known: Tensor | None = None
    known_sigma: Tensor | None = None
    sigma: Tensor | None = None

    @property
    def samples(self) -> Tensor:
        """As `SizedBatch`."""
        return self.latents

    def images(self) -> Self:
        """The first frame of every clip: a causal VAE codes it as it codes an image."""
        return replace(
            self, latents=self.latents[:, :, :1], noise=self.noise[:, :, :1], known=None, known_sigma=None
        )


@dataclass(frozen=True)
class PackedBatch(Batch):
    """Clips of several sizes for one step, those of a size together."""

    parts: tuple[DiTBatch, ...]

    def clips_by_shape(self) -> Counter[tuple[int, ...]]:
        """As `Batch`; images of clips of two sizes may have one shape."""
        return sum((part.clips_by_shape() for part in self.parts), Counter())

    def to(self, device: torch.device) -> Self:
        """Every part on `device`."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))

    def pin_memory(self) -> Self:
        """Every part in page-locked memory."""
        return replace(self, parts=tuple(part.pin_memory() for part in self.parts))


BatchType = TypeVar("BatchType", bound=Batch, covariant=True)


class BatchSource(Protocol[BatchType]):
    """Makes batches, each a function of its positions."""

    def at(self, positions: Sequence[int]) -> BatchType:
        """The batch of these positions; a pure function of them."""
        ...


def _normal(generator: np.random.Generator, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


class CropBatches:
    """Random spacetime crops for the VAE.

    Args:
        clips: the clips that are cropped.
        crop: (frames, height, width) in pixels.
        latent_shape: Z T' H' W' of a crop.
        seed: decides the order of the clips, the crops and the noise.
        moving: batches say where their crops move.
        moving_crops: share of the crops that are laid around a pixel that moves.
    """

    def __init__(
        self,
        clips: ClipMemory,
        crop: Sequence[int],
        latent_shape: Sequence[int],
        seed: int,
        moving: bool = False,
        moving_crops: float = 0.0,
    ):
        self.clips, self.crop, self.latent_shape, self.seed = clips, crop, latent_shape, seed
        self.moving, self.moving_crops = moving or moving_crops > 0, moving_crops

    def at(self, positions: Sequence[int]) -> VAEBatch:
        """The batch of these positions."""
        indices = sample_indices(self.clips.num_clips, positions, self.seed)
        generators = [rng(self.seed, _DRAWS, p) for p in positions]
        clips = self.clips.clips(indices)
        masks = self.clips.moving(indices) if self.moving else [None] * len(indices)
        boxes = [self._box(*each) for each in zip(clips, masks, generators, strict=True)]
        crops = [clip[:, t, y, x] for clip, (t, y, x) in zip(clips, boxes, strict=True)]
        noise = torch.stack([_normal(generator, self.latent_shape) for generator in generators])
        moves = [
            mask[None, t, y, x] for mask, (t, y, x) in zip(masks, boxes, strict=True) if mask is not None
        ]
        return VAEBatch(indices, torch.stack(crops), noise, torch.stack(moves) if moves else None)

    def _box(
        self, clip: Tensor, mask: Tensor | None, generator: np.random.Generator
    ) -> tuple[slice, slice, slice]:
        """The place of a crop; without `moving_crops` nothing more is drawn than there always was."""
        around = mask if self.moving_crops and generator.random() < self.moving_crops else None
        return random_box(clip.shape[-3:], self.crop, generator, around)


class LatentSource(Protocol):
    """Latents and captions by clip index: a cache, or a VAE that encodes on demand."""

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def latents(self, indices: Sequence[int]) -> Tensor:
        """Normalised latents B Z T' H' W'."""
        ...

    def captions(self) -> list[str]:
        """The caption of every clip."""
        ...


class LatentBatches:
    """Latents, noise and captions for the DiT; a share of the captions is dropped for guidance.

    Args:
        source: of the latents.
        flow: what is dropped, and which frames are known.
        seed: decides the order of the clips and all draws.
        num_clips: only so many of the first clips; None: all.
    """

    def __init__(self, source: LatentSource, flow: FlowConfig, seed: int, num_clips: int | None = None):
        self.source, self.flow, self.seed = source, flow, seed
        self.num_clips = len(source) if num_clips is None else num_clips
        self.all_captions = source.captions()

    def at(self, positions: Sequence[int]) -> DiTBatch:
        """The batch of these positions."""
        indices = sample_indices(self.num_clips, positions, self.seed)
        latents = self.source.latents(indices)
        generators = [rng(self.seed, _DRAWS, p) for p in positions]
        noise = torch.stack([_normal(generator, latents.shape[1:]) for generator in generators])
        normal = torch.stack([_normal(generator, ()) for generator in generators])
        if isinstance(self.source, StandsIn):
            captions = self.source.captions_of(indices)
        else:
            captions = [self.all_captions[index] for index in indices]
        captions = [
            "" if generator.random() < self.flow.caption_dropout else caption
            for caption, generator in zip(captions, generators, strict=True)
        ]
        return DiTBatch(indices, latents, noise, normal, captions, *self._known(generators, latents.shape[2]))

    def _known(
        self, generators: list[np.random.Generator], frames: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Known frames (B T') and their noise levels (B): half of them clean, the others a little noisy."""
        if self.flow.known_share == 0 or frames < 2:
            return None, None
        rows, levels = [], []
        for generator in generators:
            some = generator.random() < self.flow.known_share
            rows.append(draw_known(generator, frames) if some else np.zeros(frames, dtype=bool))
            levels.append(max(0.0, 2 * generator.random() - 1) * self.flow.known_sigma)
        return torch.from_numpy(np.stack(rows)), torch.tensor(levels, dtype=torch.float32)


class _SeveralSizes:
    """Clips of several sizes, and images, from one stream of positions; see its two kinds.

    Args:
        parts: batches of each size.
        shares: how often each size is drawn, relative to each other.
        image_share: how often only the first frame of a clip is taken, in [0, 1].
        seed: decides the draws.
    """

    def __init__(
        self, parts: Sequence[LatentBatches], shares: Sequence[float], *, image_share: float, seed: int
    ):
        self.parts, self.image_share, self.seed = parts, image_share, seed
        self.cumulative = np.cumsum(shares) / np.sum(shares)
        self.all_captions = [caption for part in parts for caption in part.all_captions]

    def _kind(self, key: int) -> tuple[int, bool]:
        """Which size, and whether images: a function of (seed, key)."""
        size, image = rng(self.seed, _KINDS, key).random(2)
        part = min(int(np.searchsorted(self.cumulative, size, side="right")), len(self.cumulative) - 1)
        return part, bool(image < self.image_share)

    def _batch(self, kind: tuple[int, bool], positions: Sequence[int]) -> DiTBatch:
        part, images = kind
        batch = self.parts[part].at(positions)
        return batch.images() if images else batch


class MixedBatches(_SeveralSizes):
    """Every step is of one kind, drawn from (seed, step): all processes and micro-batches of a step agree.

    Args:
        parts, shares, image_share, seed: see `_SeveralSizes`.
        batch_size: number of positions of a step, over all processes and micro-batches.
    """

    def __init__(
        self,
        parts: Sequence[LatentBatches],
        shares: Sequence[float],
        *,
        image_share: float,
        batch_size: int,
        seed: int,
    ):
        super().__init__(parts, shares, image_share=image_share, seed=seed)
        self.batch_size = batch_size

    def at(self, positions: Sequence[int]) -> DiTBatch:
        """The batch of these positions, all of one step."""
        return self._batch(self._kind(positions[0] // self.batch_size), positions)


class PackedBatches(_SeveralSizes):
    """Every position draws its own kind, so a step holds several; arguments as of `_SeveralSizes`."""

    def at(self, positions: Sequence[int]) -> PackedBatch:
        """The batch of these positions, grouped by kind."""
        groups: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
        for position in positions:
            groups[self._kind(position)].append(position)
        batches = tuple(self._batch(kind, of_kind) for kind, of_kind in sorted(groups.items()))
        return PackedBatch([index for batch in batches for index in batch.indices], batches)


class TrajectoryBatches:
    """Steps of a student: from a teacher's state at the start of a window straight to the one at its end.

    The line through both, drawn on to noise level 1 and to 0, stands for noise and latents, so the velocity to
    learn is their difference as everywhere.

    Args:
        states: N K+1 Z T' H' W', the states of N samples.
        sigmas: K+1 noise levels of the states, falling.
        captions: N captions.
        seed: decides the order of the samples and the windows.
    """

    def __init__(self, states: Tensor, sigmas: Sequence[float], captions: Sequence[str], seed: int):
        self.states, self.sigmas, self.all_captions, self.seed = states, list(sigmas), list(captions), seed

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.states)

    def at(self, positions: Sequence[int]) -> DiTBatch:
        """The batch of these positions."""
        indices = sample_indices(len(self), positions, self.seed)
        windows = [int(rng(self.seed, _WINDOWS, p).integers(len(self.sigmas) - 1)) for p in positions]
        levels = torch.tensor(self.sigmas, dtype=torch.float32)
        high, low = levels[windows], levels[[window + 1 for window in windows]]
        state = self.states[indices, windows]
        end = self.states[indices, [window + 1 for window in windows]]
        velocity = (state - end) / broadcast_sigma(high - low, state)
        return DiTBatch(
            indices,
            to_data(state, velocity, high),
            to_noise(state, velocity, high),
            torch.zeros(len(indices)),
            [self.all_captions[index] for index in indices],
            sigma=high,
        )

    def fingerprint(self) -> str:
        """Hex digits of the samples."""
        digest = hashlib.sha256("\n".join(self.all_captions).encode())
        digest.update(self.states.contiguous().numpy().data)
        return digest.hexdigest()[:32]

    def split(self, held_out: int) -> tuple["TrajectoryBatches", "TrajectoryBatches"]:
        """The samples but for the last so many, and those."""
        cut = len(self) - held_out
        first, last = (
            TrajectoryBatches(self.states[part], self.sigmas, self.all_captions[part], self.seed)
            for part in (slice(None, cut), slice(cut, None))
        )
        return first, last


def micro_batch(
    step: int, micro: int, *, batch_size: int, accumulation: int, rank: int, world_size: int
) -> range:
    """Positions of one process's part of a step: slice `micro * world_size + rank` of the global batch."""
    size = batch_size // (accumulation * world_size)
    start = step * batch_size + (micro * world_size + rank) * size
    return range(start, start + size)


def check_batch_size(batch_size: int, accumulation: int, world_size: int) -> None:
    """Raise UserError unless the global batch divides over processes and micro-batches."""
    parts = accumulation * world_size
    if batch_size % parts:
        low = batch_size // parts * parts
        near = f"{low} or {low + parts}" if low else str(parts)
        raise UserError(
            f"batch_size {batch_size} does not divide into {world_size} processes x {accumulation} micro-batches: "
            f"use {near}"
        )


class _Batches(Dataset[Batch | UserError]):
    """A batch source as a torch data set, whose items are whole batches."""

    def __init__(self, source: BatchSource):
        self.source = source

    def __getitem__(self, positions: Sequence[int]) -> Batch | UserError:
        try:
            return self.source.at(positions)
        except UserError as error:
            # Raised in a worker, it would come back with that process's traceback.
            return error


def load_batches(
    source: BatchSource,
    *,
    start_step: int,
    stop_step: int,
    batch_size: int,
    accumulation: int = 1,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Micro-batches of one process for steps [start_step, stop_step), `accumulation` of them a step.

    Raises:
        UserError: the batch does not divide over processes and micro-batches, or one cannot be loaded.
    """
    check_batch_size(batch_size, accumulation, world_size)
    size = {"batch_size": batch_size, "accumulation": accumulation, "rank": rank, "world_size": world_size}
    positions = (
        micro_batch(step, micro, **size)
        for step in range(start_step, stop_step)
        for micro in range(accumulation)
    )
    loader = DataLoader(
        _Batches(source), batch_size=None, sampler=positions, num_workers=workers, pin_memory=pin_memory
    )
    return map(_batch_or_raise, loader)


def _batch_or_raise(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch
