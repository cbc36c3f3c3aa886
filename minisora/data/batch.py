"""What a task computes its loss from: crops for the VAE, latents and captions for the DiT, or several sizes at once.

Letters: B clips, Z channels, T H W frames and pixels, T' H' W' latent grid.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a task computes its loss from; `indices` name the clips, for error messages."""

    indices: list[int]

    def _tensors(self) -> dict[str, Any]:
        return {f.name: v for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}

    def to(self, device: torch.device) -> Self:
        """The batch with its tensors on `device`, copied without waiting where memory is pinned."""
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in self._tensors().items()})

    def pin_memory(self) -> Self:
        """The batch in page-locked memory; the data loader calls it for CUDA."""
        return replace(self, **{k: v.pin_memory() for k, v in self._tensors().items()})


@dataclass(frozen=True)
class VAEBatch(Batch):
    """Crops and the noise of the posterior draw."""

    video: Tensor  # B 3 T H W in [-1, 1]
    noise: Tensor  # B Z T' H' W'


@dataclass(frozen=True)
class DiTBatch(Batch):
    """Latents (or videos still to be encoded), captions, and the point on the path to noise."""

    latents: Tensor  # B Z T' H' W', normalised
    noise: Tensor  # B Z T' H' W'
    normal: Tensor  # B, standard normal draws that become sigma
    captions: list[str]
    known: Tensor | None = None  # B T', latent frames that are given; None where no clip has any
    known_sigma: Tensor | None = None  # B, noise level of the given frames
    sigma: Tensor | None = None  # B, noise levels where they are not to be drawn from `normal`

    def images(self) -> Self:
        """The first frame of every clip: a causal VAE codes it as it codes an image."""
        return replace(
            self, latents=self.latents[:, :, :1], noise=self.noise[:, :, :1], known=None, known_sigma=None
        )


@dataclass(frozen=True)
class PackedBatch(Batch):
    """Clips of several sizes for one step, those of a size together."""

    parts: tuple[DiTBatch, ...]

    def to(self, device: torch.device) -> Self:
        """Every part on `device`."""
        return replace(self, parts=tuple(part.to(device) for part in self.parts))

    def pin_memory(self) -> Self:
        """Every part in page-locked memory."""
        return replace(self, parts=tuple(part.pin_memory() for part in self.parts))
