"""Known frames: which latent frames of a clip are given rather than generated.

A frame is known by its noise level alone: the DiT takes one sigma per latent frame, and a known frame has sigma 0
(or a small one of its own) while the others stand anywhere on the path to noise. Image-to-video, extension to
either side, connection and loops are then one network with different frames known (Diffusion Forcing, Chen et al.
2024, arXiv 2407.01392, for the idea of a noise level per frame).

Letters: B batch, Z channels, T' H' W' latent grid.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Pattern = Literal["first", "last", "ends", "prefix", "suffix", "subset"]
# One of these is drawn. A prefix or suffix of several frames shows how fast things move, and to go on at that speed
# is learned late.
PATTERNS: tuple[Pattern, ...] = ("first", "last", "ends", "prefix", "prefix", "suffix", "suffix", "subset")


@dataclass(frozen=True)
class FrameCondition:
    """Which latent frames of a batch are known, and the noise level that they are given at."""

    known: Tensor  # B T', true where known
    sigma: Tensor  # B, of the known frames; 0 is clean

    def sigmas(self, sigma: Tensor) -> Tensor:
        """Noise level of every frame, B T': the known frames' own, and `sigma` (B) elsewhere."""
        return torch.where(self.known, self.sigma[:, None], sigma[:, None])


def draw_known(generator: np.random.Generator, frames: int) -> np.ndarray:
    """The known frames (T' bool) of one training clip, after one of `PATTERNS`; at least one frame is left.

    Args:
        generator: of this clip's draws.
        frames: T', at least 2.
    """
    pattern = PATTERNS[int(generator.integers(len(PATTERNS)))]
    known = np.zeros(frames, dtype=bool)
    length = int(generator.integers(1, frames))  # of a prefix or suffix, 1 to T' - 1
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
