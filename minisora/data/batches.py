"""Training batches as a function of position: everything random about a sample comes from (seed, position).

Position p is the p-th sample that training ever sees. Its clip, crop, noise, noise level and whether its
caption is dropped follow from p alone, so a run that is resumed, split over processes or accumulated in
micro-batches sees the very same samples. The loader state of a checkpoint is one number: the step.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from minisora.config import FlowConfig
from minisora.data.batch import Batch, DiTBatch, PackedBatch, VAEBatch
from minisora.data.clip import StandsIn
from minisora.data.clip_memory import ClipMemory, from_bytes
from minisora.data.draws import random_crop, rng, sample_indices
from minisora.flow.known_frames import draw_known
from minisora.flow.path import broadcast_sigma, to_data, to_noise

_DRAWS = 1  # key of the random draws of a sample, apart from the shuffling of epochs
_KINDS = 2  # key of what a step is made of
_WINDOWS = 3  # key of which step of a student is learned


BatchType = TypeVar("BatchType", bound=Batch, covariant=True)


class BatchSource(Protocol[BatchType]):
    """Makes the batch of given positions."""

    def at(self, positions: Sequence[int]) -> BatchType:
        """The batch of these positions; a pure function of them."""
        ...


def _normal(generator: np.random.Generator, shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


class CropBatches:
    """Random spacetime crops for the VAE.

    Args:
        clips: where they are cut from.
        crop: (frames, height, width) in pixels.
        latent_shape: Z T' H' W' of a crop.
        seed: of order, crops and noise.
    """

    def __init__(self, clips: ClipMemory, crop: Sequence[int], latent_shape: Sequence[int], seed: int):
        self.clips, self.crop, self.latent_shape, self.seed = clips, crop, latent_shape, seed

    def at(self, positions: Sequence[int]) -> VAEBatch:
        """The batch of these positions."""
        indices = [sample_indices(self.clips.num_clips, range(p, p + 1), self.seed)[0] for p in positions]
        generators = [rng(self.seed, _DRAWS, p) for p in positions]
        crops = [
            random_crop(clip, self.crop, generator)
            for clip, generator in zip(self.clips.clips(indices), generators, strict=True)
        ]
        noise = torch.stack([_normal(generator, self.latent_shape) for generator in generators])
        return VAEBatch(indices, from_bytes(torch.stack(crops)), noise)


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
    """Latents, noise and captions for the DiT; a share of the captions is dropped for guidance."""

    def __init__(self, source: LatentSource, flow: FlowConfig, seed: int):
        self.source, self.flow, self.seed = source, flow, seed
        self.all_captions = source.captions()

    def at(self, positions: Sequence[int]) -> DiTBatch:
        """The batch of these positions."""
        indices = [sample_indices(len(self.source), range(p, p + 1), self.seed)[0] for p in positions]
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
            given = generator.random() < self.flow.known_share
            rows.append(draw_known(generator, frames) if given else np.zeros(frames, dtype=bool))
            levels.append(max(0.0, 2 * generator.random() - 1) * self.flow.known_sigma)
        return torch.from_numpy(np.stack(rows)), torch.tensor(levels, dtype=torch.float32)


class MixedBatches:
    """Steps of different kinds from one stream of positions: clips of several sizes, and images among videos.

    Every step is of one kind, drawn from (seed, step) alone, so all processes and micro-batches of a step agree.

    Args:
        parts: batches of each size.
        shares: how often each is drawn, relative to each other.
        image_share: steps that take only the first frame of their clips.
        batch_size: positions of a step, over all processes and micro-batches.
        seed: of the draws.
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
        self.parts, self.image_share, self.batch_size, self.seed = parts, image_share, batch_size, seed
        self.cumulative = np.cumsum(shares) / np.sum(shares)
        self.all_captions = [caption for part in parts for caption in part.all_captions]

    def at(self, positions: Sequence[int]) -> DiTBatch:
        """The batch of these positions, all of one step."""
        size, image = rng(self.seed, _KINDS, positions[0] // self.batch_size).random(2)
        batch = self.parts[_which(self.cumulative, size)].at(positions)
        return batch.images() if image < self.image_share else batch


class PackedBatches:
    """Clips of several sizes, and images, within one step: every position draws its own.

    Args:
        parts, shares, image_share, seed: as of `MixedBatches`.
    """

    def __init__(
        self, parts: Sequence[LatentBatches], shares: Sequence[float], *, image_share: float, seed: int
    ):
        self.parts, self.image_share, self.seed = parts, image_share, seed
        self.cumulative = np.cumsum(shares) / np.sum(shares)
        self.all_captions = [caption for part in parts for caption in part.all_captions]

    def at(self, positions: Sequence[int]) -> PackedBatch:
        """The batch of these positions, grouped by size."""
        groups: defaultdict[tuple[int, bool], list[int]] = defaultdict(list)
        for position in positions:
            size, image = rng(self.seed, _KINDS, position).random(2)
            groups[_which(self.cumulative, size), bool(image < self.image_share)].append(position)
        batches = []
        for (part, image), of_size in sorted(groups.items()):
            batch = self.parts[part].at(of_size)
            batches.append(batch.images() if image else batch)
        return PackedBatch([index for batch in batches for index in batch.indices], tuple(batches))


def _which(cumulative: np.ndarray, draw: float) -> int:
    """The part that a draw in [0, 1) falls into."""
    return min(int(np.searchsorted(cumulative, draw, side="right")), len(cumulative) - 1)


class TrajectoryBatches:
    """Steps of a student: from a teacher's state at the start of a window straight to the one at its end.

    The line through both, drawn on to noise level 1 and to 0, stands for noise and latents, so the velocity to
    learn is their difference as everywhere.

    Args:
        states: N K+1 Z T' H' W', of N samples.
        sigmas: K+1 noise levels of the states, falling.
        captions: N.
        seed: of the order and of the windows.
    """

    def __init__(self, states: Tensor, sigmas: Sequence[float], captions: Sequence[str], seed: int):
        self.states, self.sigmas, self.all_captions, self.seed = states, list(sigmas), list(captions), seed

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.states)

    def at(self, positions: Sequence[int]) -> DiTBatch:
        """The batch of these positions."""
        indices = [sample_indices(len(self), range(p, p + 1), self.seed)[0] for p in positions]
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
