"""What follows: the next frame from the frames before and a code, by the project's DiT with a causal time axis.

Every frame of a window is noisy by a level of its own (Diffusion Forcing, Chen et al. 2024, arXiv 2407.01392), half of
them as little as frames before others are at play, so one pass learns every frame of it; or each stands there twice, as
past of others and to be made, so that what is made always sees the past that it sees at play (`world.streams`). Beside
the noisy frame the model sees the frame before, a little noisy too, and how noisy in one more channel (as GameNGen,
Valevski et al. 2024, arXiv 2408.14837: without noise on what is before, errors grow frame by frame). The code of the
step that leads to a frame modulates that frame alone.

The model says the clean frame and not the velocity, which leaves nothing of the noise to be drawn exactly and makes few
steps do (as DIAMOND, Alonso et al. 2024, arXiv 2405.12399). It also says how much of each latent cell stays as it is in
the frame before, a mask that composes the two (as Vondrick et al. 2016, arXiv 1609.02612, and Finn et al. 2016, arXiv
1605.07157, do). So what stands still is kept, and not drawn anew a little worse, frame after frame, until it is gone.

At play a frame is made in few steps, the first of which begins with noise alone. So a share of the frames is learned at
just these levels, of which a density has next to nothing (`world.played_share`). The model's own errors are no noise,
and can be learned from too (`world.own_share`): a window is made once, each frame from the true one before it, and what
was made is the past of a second pass (as Mihaylova & Martins 2019, arXiv 1906.07651, do for sentences; at length it is
what Self Forcing, Huang et al. 2025, arXiv 2506.08009, does).

Letters: B worlds, Z channels, T H W latent grid.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from minisora.config import Config, WorldConfig
from minisora.data.batches import LatentSource
from minisora.flow.path import broadcast_sigma, interpolate, logit_normal, to_data
from minisora.models.build import set_training, shape_of
from minisora.models.dit import VideoDiT
from minisora.worlds.step_batches import WindowBatch

Objective = Literal["composite", "clean", "velocity"]

# A latent cell changes where a channel differs by more than this from the frame before; channels have variance 1.
_CHANGES = 0.5
# Share of the frames of a window that are as noisy as frames before others, where there is one stream.
_CONTEXT_SHARE = 0.5
# Standard deviation of the embeddings of codes before training.
_CODE_SPREAD = 0.5
# Added to what the model says of how much stays: before training about nine tenths do.
_STAYS = 2.0
# The least noise level that an error is divided by.
_LEAST_SIGMA = 1e-3
# Clips by which it is found which codes do nothing, and how much of the difference between codes is nothing.
_CLIPS_FOR_IDLE, _IDLE = 256, 0.25


class PastFrames(Protocol):
    """The frames so far, as the model looks at them: `minisora.models.frame_memory.FrameMemory` keeps what it needs."""

    def look(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the model says of the next frame."""
        ...

    def see(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> None:
        """Another frame is of the past."""
        ...


def build_dynamics(config: Config) -> VideoDiT:
    """A fresh model: latents of the VAE twice and one level in, what `clean_frame` takes out."""
    dit, world, channels = config.dit, config.world, config.vae.latent_channels
    model = VideoDiT(
        in_channels=2 * channels + 1,
        out_channels=channels + (world.objective == "composite"),
        attention="factorised",
        num_classes=world.codes,
        causal_window=world.window,
        **shape_of(dit),
    )
    assert model.embed_class is not None
    # A DiT's labels begin near zero, where the noise level drowns them: a world is what its codes do.
    nn.init.normal_(model.embed_class.weight, std=_CODE_SPREAD)
    set_training(model, dit)
    return model


def beside(noisy: Tensor, before: Tensor, level: Tensor) -> Tensor:
    """Noisy frames, the frame before each, and how noisy that is (B, or B T), as the model sees them: B 2Z+1 T H W."""
    plane = broadcast_sigma(level, noisy).expand(len(noisy), 1, *noisy.shape[2:])
    return torch.cat([noisy, before, plane], dim=1)


def changed_cells(latents: Tensor, before: Tensor) -> Tensor:
    """Which cells differ from the frame before, B 1 T H W bool, of latents B Z T H W each."""
    return (latents - before).abs().amax(dim=1, keepdim=True) > _CHANGES


def window_errors(model: nn.Module, batch: WindowBatch, config: Config, *, own: bool = True) -> Tensor:
    """Weighted squared error of the frames of each window, B.

    Args:
        model: of `build_dynamics`, wrapped or not.
        batch: on the model's device.
        config: the run's.
        own: whether the past of some windows is what the model makes of it, a share that grows to the config's.
    """
    world = config.world
    sigma, context = _levels(batch, config)
    latents, changes = batch.latents, changed_cells(batch.latents, batch.before)
    if own and world.own_share:
        # What it makes is worth nothing at first, and is what play is in the end.
        chosen = batch.own < world.own_share * batch.done
        if bool(chosen.any()):
            batch = _with_own_past(model, batch, chosen, sigma, context, world)
    clean = _made(model, batch, latents, sigma, context, world)  # B Z T H W
    errors = (clean - latents).square()
    weight = 1 + (world.moving_weight - 1) * changes.float()  # B 1 T H W
    # That of velocities is 1 / sigma^2, which has no end.
    most = _LEAST_SIGMA**-2 if world.objective == "velocity" else world.most_weight
    weight = weight * broadcast_sigma(sigma.clamp_min(_LEAST_SIGMA).pow(-2).clamp_max(most), errors)
    return (errors * weight).flatten(1).mean(1)


def _levels(batch: WindowBatch, config: Config) -> tuple[Tensor, Tensor]:
    """Noise level of each frame as it is to be made, and as past of others; B T each.

    In one stream a frame is one of the two, and so both are the same.
    """
    flow, world = config.flow, config.world
    drawn = logit_normal(batch.normal, flow.sigma_mean, flow.sigma_std, flow.shift)
    if world.played_share:
        levels = torch.tensor(sampling_sigmas(world.steps)[:-1], device=drawn.device)
        which = (batch.at_play / world.played_share * world.steps).long().clamp_max(world.steps - 1)
        drawn = torch.where(batch.at_play < world.played_share, levels[which], drawn)
    if world.streams == 2:
        return drawn, world.most_context_sigma * batch.context
    past = batch.context < _CONTEXT_SHARE
    sigma = torch.where(past, world.most_context_sigma * batch.context / _CONTEXT_SHARE, drawn)
    return sigma, sigma


def _made(
    model: nn.Module, batch: WindowBatch, latents: Tensor, sigma: Tensor, context: Tensor, world: WorldConfig
) -> Tensor:
    """The frames of windows as the model makes them at a look, clean, B Z T H W, float32.

    Args:
        model: see `window_errors`.
        batch: its latents are the past, `before` is the frame before each.
        latents: to be made, of the same shape.
        sigma, context: of `_levels`.
        world: the config's.
    """
    level = world.most_context_sigma * batch.before_level  # B T
    before = interpolate(batch.before, batch.before_noise, level).noisy  # B Z T H W
    noisy = interpolate(latents, batch.noise, sigma).noisy
    past = interpolate(batch.latents, batch.noise, context).noisy
    if world.streams == 2:
        # Nobody sees a frame in both: the same noise does for both.
        twice = torch.cat([beside(past, before, level), beside(noisy, before, level)], dim=2)
        sigmas, codes = torch.cat([context, sigma], dim=1), batch.codes.repeat(1, 2)
        said = model(twice, sigmas, labels=codes, streams=2)[:, :, latents.shape[2] :]  # B Z T H W
    else:
        # A frame that is past of others may stand there as the model made it.
        noisy = torch.where((batch.context < _CONTEXT_SHARE)[:, None, :, None, None], past, noisy)
        said = model(beside(noisy, before, level), sigma, labels=batch.codes)  # B Z T H W
    return clean_frame(said.float(), noisy, sigma, batch.before, world.objective)


def clean_frame(said: Tensor, noisy: Tensor, sigma: Tensor, before: Tensor, objective: Objective) -> Tensor:
    """The clean frame that is meant by what a model says, B Z T H W.

    Args:
        said: by the model, B Z T H W; of "composite" one channel more, how much of a cell stays as before.
        noisy: the frame as it saw it, B Z T H W.
        sigma: noise level of that, B or B T.
        before: the frame before, the same shape, clean.
        objective: what it says.
    """
    if objective == "velocity":
        return to_data(noisy, said, sigma)
    if objective == "clean":
        return said
    stays = (said[:, -1:] + _STAYS).sigmoid()  # B 1 T H W
    return torch.lerp(said[:, :-1], before, stays)


@torch.no_grad()
def _with_own_past(
    model: nn.Module, batch: WindowBatch, chosen: Tensor, sigma: Tensor, context: Tensor, world: WorldConfig
) -> WindowBatch:
    """The batch with what the model makes of each frame, at a look, as the past of the frames after it.

    Args:
        model, batch: see `window_errors`.
        chosen: the windows whose past it becomes, B bool.
        sigma, context: of `_levels`; frames are made from noise alone.
        world: the config's.
    """
    alone = torch.ones_like(sigma)
    if world.streams == 1:
        # Frames that are past of others stay, or all the window would be noise.
        alone = torch.where(batch.context < _CONTEXT_SHARE, sigma, alone)
    part = batch.rows(chosen)
    made = _made(model, part, part.latents, alone[chosen], context[chosen], world)
    latents, before = batch.latents.clone(), batch.before.clone()
    latents[chosen] = made
    before[chosen, :, 1:] = made[:, :, :-1]
    return replace(batch, latents=latents, before=before)


def idle_codes(source: LatentSource, codes: Tensor, num_codes: int) -> Tensor:
    """Which codes are those of doing nothing: under them the fewest latent cells change, K bool.

    A world may move by itself, so few are a small part of the way from the code with the fewest to that with the most.

    Args:
        source: latents of clips, of one frame each.
        codes: of the steps between them, N T-1.
        num_codes: K; a code that is never found is none of them.
    """
    clips = range(min(_CLIPS_FOR_IDLE, len(codes)))
    latents = source.latents(clips)  # N Z T H W
    changes = changed_cells(latents[:, :, 1:], latents[:, :, :-1]).float().sum((1, 3, 4)).flatten()  # N (T-1)
    found = codes[: len(clips)].flatten()
    count = torch.bincount(found, minlength=num_codes)
    mean = torch.zeros(num_codes).index_add_(0, found, changes) / count.clamp_min(1)
    used = mean[count > 0]
    return (count > 0) & (mean <= used.min() + _IDLE * (used.max() - used.min()))


def sampling_sigmas(steps: int) -> list[float]:
    """Noise levels from 1 to 0 by which a frame is made in so many steps."""
    return [1 - step / steps for step in range(steps)] + [0.0]


@torch.no_grad()
def next_frame(
    memory: PastFrames,
    before: Tensor,
    codes: Tensor,
    noise: Sequence[Tensor],
    sigmas: Sequence[float],
    level: float,
    objective: Objective = "clean",
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
        objective: what the model says.

    Returns:
        B Z 1 H W, clean.
    """
    levels = torch.full((len(before),), level, device=before.device)  # B
    seen = interpolate(before, noise[1], levels).noisy
    x = noise[0]
    for now, then in pairwise(sigmas):
        sigma = torch.full_like(levels, now)
        said = memory.look(beside(x, seen, levels), sigma, codes).float()
        clean = clean_frame(said, x, sigma, before, objective)
        # A step of Euler's along the velocity (x - clean) / now.
        x = clean + then / now * (x - clean)
    memory.see(beside(interpolate(x, noise[2], levels).noisy, seen, levels), levels, codes)
    return x
