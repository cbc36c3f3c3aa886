"""Small parts shared by the transformer stacks: MLP, adaLN modulation, sinusoidal embedding, zero init.

Letters: B batch, F 1 or one per latent frame, T latent frames, S tokens per frame, N tokens, D width.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def zero_init(layer: Layer) -> Layer:
    """Zero every parameter of `layer`, so the residual branch it closes starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: x (1 + scale) + shift (Peebles & Xie 2023, arXiv 2212.09748, section 3.2).

    Args:
        x: tokens, B T S D.
        shift, scale: B F 1 D with F = 1 (one noise level per clip) or F = T (one per latent frame).
    """
    return torch.addcmul(shift, x, 1 + scale)


def sinusoid(positions: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Cosines and sines of `positions` at geometrically spaced frequencies.

    Args:
        positions: any shape, float.
        width: number of features, even; the first half are cosines.
        max_period: the longest wavelength is 2 pi max_period.

    Returns:
        `positions.shape + (width,)`, float32.
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=positions.device) / half
    angles = positions.float()[..., None] * torch.exp(-math.log(max_period) * exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MLP(nn.Module):
    """Linear, GELU, linear. (DiT takes GELU's tanh form, within 5e-4 of it and slower on a CPU.)"""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ... D to ... D."""
        return self.down(self.act(self.up(x)))


class SigmaEmbedding(nn.Module):
    """Noise level to conditioning vector: sinusoid of 1000 sigma, then a two-layer MLP (as DiT's timestep)."""

    def __init__(self, width: int, num_frequencies: int = 256):
        super().__init__()
        self.num_frequencies = num_frequencies
        self.up = nn.Linear(num_frequencies, width)
        self.act = nn.SiLU()
        self.down = nn.Linear(width, width)

    def forward(self, sigma: Tensor) -> Tensor:
        """Map sigma (B F, in [0, 1]) to B F D."""
        features = sinusoid(1000 * sigma, self.num_frequencies).to(self.up.weight.dtype)  # B F 256
        return self.down(self.act(self.up(features)))  # B F D
