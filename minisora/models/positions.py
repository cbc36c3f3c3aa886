"""Positions on three axes (time, height, width): rotary angles for attention, sinusoids for the input.

The rotary part tells how far apart two tokens are (Su et al. 2021, arXiv 2104.09864, one block of
frequencies per axis); the fixed sinusoid added to the tokens tells where each one is, as in DiT. Neither has
parameters or depends on the size a model was trained at.
"""

import math

import torch
from torch import Tensor

# Longest wavelength of the sinusoids over 2 pi, in tokens: neighbours must look different.
_LONGEST = 64.0


def axis_split(num_frequencies: int) -> tuple[int, int, int]:
    """How many of `num_frequencies` go to time, height and width: 1/4, 3/8, 3/8, remainder to time."""
    spatial = max(1, num_frequencies * 3 // 8)
    return num_frequencies - 2 * spatial, spatial, spatial


def rotary_table(
    grid: tuple[int, int, int], head_width: int, theta: float, device: torch.device, first: int = 0
) -> Tensor:
    """Cosines and sines of the rotary angles of every token.

    Args:
        grid: tokens along (time, height, width).
        head_width: channels of one attention head, even and at least 6.
        theta: longest wavelength over 2 pi, in tokens.
        device: where to build it.
        first: number of the first token along time.

    Returns:
        2 N 1 head_width, float32, tokens in T H W order: factors of a channel, and of its partner (`rotate`).
    """
    half = head_width // 2
    angles = []
    for axis, num in enumerate(axis_split(half)):
        frequencies = theta ** (-torch.arange(num, dtype=torch.float32, device=device) / max(num, 1))
        shape = [1, 1, 1, num]
        shape[axis] = grid[axis]
        start = first if axis == 0 else 0
        positions = torch.arange(start, start + grid[axis], dtype=torch.float32, device=device)
        angles.append(torch.outer(positions, frequencies).view(shape).expand(*grid, num))
    flat = torch.cat(angles, dim=-1).reshape(-1, half)  # N head_width/2
    own = torch.cat([flat.cos(), flat.cos()], dim=-1)
    partner = torch.cat([-flat.sin(), flat.sin()], dim=-1)
    return torch.stack([own, partner])[:, :, None]  # 2 N 1 head_width


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate each channel pair (i, i + head_width/2) of queries or keys by the token's angles.

    (a, b) becomes (a cos - b sin, b cos + a sin): every channel times its own factor, plus its partner, half
    a head away, times another. Three passes over memory, where writing the halves apart takes seven.

    Args:
        x: B N heads head_width.
        table: 2 N 1 head_width, from `rotary_table`.
    """
    own, partner = table.to(x.dtype)
    return torch.addcmul(x * own, x.roll(x.shape[-1] // 2, dims=-1), partner)


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


def grid_sinusoid(grid: tuple[int, int, int], width: int, device: torch.device) -> Tensor:
    """Fixed position features, T S D for a (time, height, width) grid of tokens, S = height * width.

    Each axis has its share of the channels (`axis_split` over pairs); a width that is not even is padded
    with a zero channel.
    """
    parts = []
    for axis, num in enumerate(axis_split(width // 2)):
        shape = [1, 1, 1, 2 * num]
        shape[axis] = grid[axis]
        positions = torch.arange(grid[axis], dtype=torch.float32, device=device)
        parts.append(sinusoid(positions, 2 * num, _LONGEST).view(shape).expand(*grid, 2 * num))
    features = torch.cat(parts, dim=-1)  # T H W D
    if width % 2:
        features = torch.nn.functional.pad(features, (0, 1))
    return features.reshape(grid[0], grid[1] * grid[2], width)
