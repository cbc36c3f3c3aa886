"""What of a video is given when the rest is sampled: whole latent frames, or single latent cells.

Letters: B batch, Z channels, T' H' W' latent grid.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.known_frames import FrameCondition
from minisora.flow.path import interpolate


@dataclass(frozen=True)
class Given:
    """Known latents, and where they are known.

    Known frames are shown to the model clean, as in training (`minisora.flow.known_frames`). Known cells are put
    in at the noise level of each step (RePaint, Lugmayr et al. 2022, arXiv 2201.09865), which needs no training.
    """

    latents: Tensor  # B Z T' H' W', normalised; zeros where nothing is known
    frames: Tensor | None = None  # B T', true where a frame is known
    cells: Tensor | None = None  # B T' H' W', true where a cell is known

    def match(self, noise: Tensor) -> "Given":
        """Moved to the noise's device and repeated to its batch; raises UserError where sizes differ."""

        def fit(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(noise.device).expand(len(noise), *tensor.shape[1:])

        if len(self.latents) not in (1, len(noise)):
            raise UserError(f"{len(noise)} prompts for {len(self.latents)} videos: give one each")
        if self.latents.shape[1:] != noise.shape[1:]:
            raise UserError(
                f"the given latents are {tuple(self.latents.shape)}, the video to sample is {tuple(noise.shape)}: "
                "give a video of the size and length that is sampled"
            )
        latents = self.latents.float().to(noise.device).expand_as(noise)
        if self.frames is not None and bool(self.frames.all(dim=1).any()):
            raise UserError("every frame is known already: leave at least one to generate")
        return replace(self, latents=latents, frames=fit(self.frames), cells=fit(self.cells))

    def start(self, noise: Tensor, strength: float) -> Tensor:
        """Where sampling starts: noise, or below strength 1 the given latents with that much noise."""
        if strength == 1:
            return noise
        return interpolate(
            self.latents, noise, torch.full((len(noise),), strength, device=noise.device)
        ).noisy

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
