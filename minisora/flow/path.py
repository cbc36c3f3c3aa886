"""The one noise convention: sigma = 1 is noise, x_t = (1 - sigma) x_0 + sigma noise, velocity = noise - x_0.

A straight path between data and noise (rectified flow, Liu et al. 2022, arXiv 2209.03003; flow matching,
Lipman et al. 2022, arXiv 2210.02747), with sigma drawn from a logit-normal density (Esser et al. 2024,
arXiv 2403.03206, section 3.1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FlowSample:
    """A point on the path from data to noise; all but sigma have the shape of the latents, B C T H W."""

    noisy: Tensor
    velocity: Tensor
    sigma: Tensor  # B, or B T for one noise level per latent frame


def broadcast_sigma(sigma: Tensor, like: Tensor) -> Tensor:
    """Sigma (B or B T) shaped to multiply latents B C T H W."""
    per_frame = sigma if sigma.ndim == 2 else sigma[:, None]  # B F
    return per_frame[:, None, :, None, None].to(like.dtype)


def interpolate(latents: Tensor, noise: Tensor, sigma: Tensor) -> FlowSample:
    """The path at sigma: latents and noise are B C T H W, sigma B or B T in [0, 1]."""
    s = broadcast_sigma(sigma, latents)
    return FlowSample(noisy=(1 - s) * latents + s * noise, velocity=noise - latents, sigma=sigma)


def to_data(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The x_0 that a velocity at a noisy point implies."""
    return noisy - broadcast_sigma(sigma, noisy) * velocity


def to_noise(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The noise that a velocity at a noisy point implies."""
    return noisy + (1 - broadcast_sigma(sigma, noisy)) * velocity


def renoise(x: Tensor, low: float, high: float, noise: Tensor) -> Tensor:
    """x at noise level `low` as it may have been at a higher one: the way back up that RePaint resamples by.

    Scaled by (1 - high) / (1 - low), x has the data's share of the higher level; fresh noise makes up the variance.

    Args:
        x: noisy latents, any shape.
        low, high: noise levels, 0 <= low <= high <= 1 and low < 1.
        noise: standard normal, independent of x, of the same shape.
    """
    scale = (1 - high) / (1 - low)
    return scale * x + (high**2 - (scale * low) ** 2) ** 0.5 * noise


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards noise for shift > 1: s sigma / (1 + (s - 1) sigma) (Esser et al., eq. 23).

    Written so that rounding never leaves [0, 1]: at sigma = 1 the published form gives 1 + 2e-16 for s = 0.2.
    """
    return shift * sigma / ((1 - sigma) + shift * sigma)


def logit_normal(normal: Tensor, mean: float, std: float, shift: float = 1.0) -> Tensor:
    """Noise levels in (0, 1) from standard normal draws: sigmoid(mean + std normal), then shifted."""
    return shift_sigma(torch.sigmoid(mean + std * normal), shift)


def flow_loss(predicted: Tensor, sample: FlowSample, known: Tensor | None = None) -> Tensor:
    """Mean squared error of the velocity per clip (B), over the frames that are not `known` (B T)."""
    errors = (predicted.float() - sample.velocity.float()).square()
    if known is None:
        return errors.flatten(1).mean(1)
    unknown = (~known).float()  # B T
    return (errors * broadcast_sigma(unknown, errors)).flatten(1).mean(1) / unknown.mean(1)
