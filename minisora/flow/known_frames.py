"""Known frames: which latent frames of a clip are known rather than generated, in training and in sampling.

A frame is known by its noise level alone: the DiT takes one sigma per latent frame, and a known frame has sigma 0
(or a small one of its own) while the others stand anywhere on the path to noise. Image-to-video, extension to
either side, connection and loops are then one network with different frames known (Diffusion Forcing, Chen et al.
2024, arXiv 2407.01392, for the idea of a noise level per frame).

Letters: B batch, Z channels, T' H' W' latent grid.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.path import interpolate

Pattern = Literal["first", "last", "ends", "prefix", "suffix", "subset"]
# One of these is drawn. A prefix or suffix of several frames shows how fast things move, and to go on at that speed
# is learned late.
PATTERNS: tuple[Pattern, ...] = ("first", "last", "ends", "prefix", "prefix", "suffix", "suffix", "subset")


@dataclass(frozen=True)
class FrameCondition:
    """Which latent frames of a batch are known, and the noise level they are shown at."""

    known: Tensor  # B T', true where known
    sigma: Tensor  # B, of the known frames; 0 is clean

    def sigmas(self, sigma: Tensor) -> Tensor:
        """Noise level of every frame, B T': the known frames' own, and `sigma` (B) elsewhere."""
        return torch.where(self.known, self.sigma[:, None], sigma[:, None])


def draw_known(generator: np.random.Generator, frames: int) -> np.ndarray:
    """The known frames (T' bool) of one training clip, after one of `PATTERNS`; at least one frame is left.

    Args:
        generator: draws the pattern of this clip.
        frames: latent frames T' of the clip, at least 2.
    """
    pattern = PATTERNS[int(generator.integers(len(PATTERNS)))]
    known = np.zeros(frames, dtype=bool)
    # Of a prefix or suffix, 1 to T' - 1.
    length = int(generator.integers(1, frames))
    if pattern == "first":
        known[0] = True
    elif pattern == "last":
        known[-1] = True
    elif pattern == "ends":
        known[[0, -1]] = frames > 2
        known[0] = True
    elif pattern == "prefix":
        known[:length] = True
    elif pattern == "suffix":
        known[-length:] = True
    else:
        known[generator.permutation(frames)[:length]] = True
    return known


@dataclass(frozen=True)
class KnownLatents:
    """What of a video is known when the rest is sampled: whole latent frames, or single latent cells.

    Known frames are shown to the model clean, as in training. Known cells are put in at the noise level of each step
    (RePaint, Lugmayr et al. 2022, arXiv 2201.09865), which needs no training.
    """

    latents: Tensor  # B Z T' H' W', normalised; zeros where nothing is known
    frames: Tensor | None = None  # B T', true where a frame is known
    cells: Tensor | None = None  # B T' H' W', true where a cell is known

    def match(self, noise: Tensor) -> "KnownLatents":
        """Moved to the noise's device and repeated to its batch; raises UserError where sizes differ."""

        def fit(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(noise.device).expand(len(noise), *tensor.shape[1:])

        if len(self.latents) not in (1, len(noise)):
            raise UserError(f"{len(noise)} prompts for {len(self.latents)} videos: give one each")
        if self.latents.shape[1:] != noise.shape[1:]:
            raise UserError(
                f"the known latents are {tuple(self.latents.shape)}, the video to sample is {tuple(noise.shape)}: "
                "give a video of the size and length that is sampled"
            )
        latents = self.latents.float().to(noise.device).expand_as(noise)
        if self.frames is not None and bool(self.frames.all(dim=1).any()):
            raise UserError("every frame is known already: leave at least one to generate")
        return replace(self, latents=latents, frames=fit(self.frames), cells=fit(self.cells))

    def start(self, noise: Tensor, strength: float) -> Tensor:
        """Where sampling starts: noise, or below strength 1 the known latents with that much noise."""
        if strength == 1:
            return noise
        sigma = torch.full((len(noise),), strength, device=noise.device)  # B
        return interpolate(self.latents, noise, sigma).noisy

    def put(self, x: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """x with what is known put in: frames clean, cells at noise level sigma (B)."""
        if self.frames is not None:
            x = torch.where(self.frames[:, None, :, None, None], self.latents, x)
        if self.cells is not None:
            x = torch.where(self.cells[:, None], interpolate(self.latents, noise, sigma).noisy, x)
        return x

    def sigmas(self, sigma: Tensor) -> Tensor:
        """Noise level per clip (B), or per frame (B T') where frames are known."""
        if self.frames is None:
            return sigma
        return FrameCondition(self.frames, torch.zeros_like(sigma)).sigmas(sigma)
