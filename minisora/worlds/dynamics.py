"""What follows: the next frame from the frames before and a code, by the project's DiT with a causal time axis.

Every frame of a window is noisy by a level of its own (Diffusion Forcing, Chen et al. 2024, arXiv 2407.01392), half of
them as little as frames before others are at play, so one pass learns every frame of it. Beside the noisy frame the
model sees the frame before, a little noisy too, so that what stands still is copied; how noisy it is stands in one more
channel (as GameNGen, Valevski et al. 2024, arXiv 2408.14837: without noise on what is before, errors grow frame by
frame). The code of the step that leads to a frame modulates that frame alone. The model says the clean frame and not
the velocity, which leaves nothing of the noise to be drawn exactly and makes few steps do (as DIAMOND, Alonso et al.
2024, arXiv 2405.12399).

Letters: B worlds, Z channels, T H W latent grid.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from minisora.config import Config
from minisora.flow.path import broadcast_sigma, interpolate, logit_normal
from minisora.models.build import set_training, shape_of
from minisora.models.dit import VideoDiT
from minisora.models.frame_memory import FrameMemory
from minisora.worlds.step_batches import WindowBatch

# A latent cell changes where a channel differs by more than this from the frame before; channels have variance 1.
_CHANGES = 0.5
# Share of the frames of a window that are as noisy as frames before others.
_CONTEXT_SHARE = 0.5
# Greatest weight of an error: that of velocities is 1 / sigma^2, which has no end.
_MOST_WEIGHT = 5.0


def build_dynamics(config: Config) -> VideoDiT:
    """A fresh model: latents of the VAE twice and one level in, the clean latents out."""
    dit, world, channels = config.dit, config.world, config.vae.latent_channels
    model = VideoDiT(
        in_channels=2 * channels + 1,
        out_channels=channels,
        attention="factorised",
        num_classes=world.codes,
        causal_window=world.window,
        **shape_of(dit),
    )
    set_training(model, dit)
    return model


def beside(noisy: Tensor, before: Tensor, level: Tensor) -> Tensor:
    """Noisy frames, the frame before each, and how noisy that is (B, or B T), as the model sees them: B 2Z+1 T H W."""
    plane = broadcast_sigma(level, noisy).expand(len(noisy), 1, *noisy.shape[2:])
    return torch.cat([noisy, before, plane], dim=1)


def window_errors(model: nn.Module, batch: WindowBatch, config: Config) -> Tensor:
    """Weighted squared error of the clean frames of each window, B.

    Args:
        model: of `build_dynamics`, wrapped or not.
        batch: on the model's device.
        config: the run's.
    """
    flow, world = config.flow, config.world
    most = world.most_context_sigma
    drawn = logit_normal(batch.normal, flow.sigma_mean, flow.sigma_std, flow.shift)
    context = batch.context < _CONTEXT_SHARE
    sigma = torch.where(context, most * batch.context / _CONTEXT_SHARE, drawn)  # B T
    level = most * batch.before_level  # B T
    noisy = interpolate(batch.latents, batch.noise, sigma).noisy  # B Z T H W
    before = interpolate(batch.before, batch.before_noise, level).noisy
    clean = model(beside(noisy, before, level), sigma, labels=batch.codes)  # B Z T H W
    errors = (clean.float() - batch.latents).square()
    changes = (batch.latents - batch.before).abs().amax(dim=1, keepdim=True) > _CHANGES  # B 1 T H W
    weight = 1 + (world.moving_weight - 1) * changes.float()
    weight = weight * broadcast_sigma(sigma.clamp_min(1e-3).pow(-2).clamp_max(_MOST_WEIGHT), errors)
    return (errors * weight).flatten(1).mean(1)


def sampling_sigmas(steps: int) -> list[float]:
    """Noise levels from 1 to 0 by which a frame is made in so many steps."""
    return [1 - step / steps for step in range(steps)] + [0.0]


@torch.no_grad()
def next_frame(
    memory: FrameMemory,
    before: Tensor,
    codes: Tensor,
    noise: Sequence[Tensor],
    sigmas: Sequence[float],
    level: float,
) -> Tensor:
    """The next frame of each world; the memory has seen it then.

    Args:
        memory: of the frames so far.
        before: the frame now, B Z 1 H W, clean.
        codes: B.
        noise: three of the frame's shape, standard normal: where the new frame starts from, and what the frame before
            and then the new one are seen in.
        sigmas: noise levels from 1 to 0.
        level: noise level of frames before.

    Returns:
        B Z 1 H W, clean.
    """
    levels = torch.full((len(before),), level, device=before.device)  # B
    seen = interpolate(before, noise[1], levels).noisy
    x = noise[0]
    for now, then in pairwise(sigmas):
        sigma = torch.full_like(levels, now)
        clean = memory.look(beside(x, seen, levels), sigma, codes).float()
        # A step of Euler's along the velocity (x - clean) / now.
        x = clean + then / now * (x - clean)
    memory.see(beside(interpolate(x, noise[2], levels).noisy, seen, levels), levels, codes)
    return x
