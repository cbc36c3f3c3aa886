"""Whole clips sampled anew: a region of one, or all of it under another prompt. Any model can, however it was trained.

Videos are B 3 T H W in [-1, 1], of the model's frame rate; `settings` say how to sample.
"""

from itertools import pairwise

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.flow.known_frames import KnownLatents
from minisora.flow.path import interpolate
from minisora.flow.schedules import euler_sigmas
from minisora.limits import MAX_STEPS, check_number
from minisora.pipelines.modes import Prompt, encode_video
from minisora.pipelines.pipeline import MiniSoraPipeline

RESAMPLE = 6
SDEDIT_STRENGTH = 0.7
FLOW_EDIT_STEPS, FLOW_EDIT_GUIDANCE, FLOW_EDIT_STRENGTH, FLOW_EDIT_NOISES = 40, 20.0, 0.75, 4
# Below this noise level the style is decided, and guidance only moves what should stay.
FLOW_EDIT_INTERVAL = (0.68, 1.0)


def inpaint(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    video: Tensor,
    mask: Tensor,
    *,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video B 3 T H W with a region sampled anew; pixels outside it come back untouched.

    Args:
        pipeline: any.
        prompt: one per video.
        video: B 3 T H W, of a length and size that fits the model.
        mask: B T H W or 1 T H W, true where the video is to change.
        settings: how to sample. `resample` is 6 by default where the scheduler is Euler's: the region then fits its
            surroundings twice as often as with 1, in six times the time.

    Raises:
        UserError: mask and video differ in size, or the mask is empty.
    """
    if mask.shape[1:] != video.shape[2:] or len(mask) not in (1, len(video)):
        raise UserError(
            f"the mask is {tuple(mask.shape)}, the video {tuple(video.shape)}: give B T H W of its size"
        )
    if not bool(mask.any()):
        raise UserError("the mask is empty: mark what is to change")
    mask = mask.bool()
    known = KnownLatents(encode_video(pipeline, video), cells=~_cells(pipeline, mask))
    if isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
        settings = settings.otherwise(resample=RESAMPLE)
    new = pipeline.videos(prompt, _size(video), settings, known).to(video)
    return torch.where(mask[:, None].to(video.device), new, video)


def restyle(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    video: Tensor,
    *,
    source: Prompt | None = None,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video B 3 T H W sampled anew from itself under another prompt.

    Args:
        pipeline: any.
        prompt: what it is to become, one per video.
        video: B 3 T H W, of a length and size that fits the model.
        source: what the video shows now. With it only the difference of the prompts moves the video (`flow_edit`),
            without it the video is noised and denoised (SDEdit, Meng et al. 2021, arXiv 2108.01073), which keeps
            less.
        settings: how to sample. `strength` is the noise level to start from: low keeps more of the video, 1 keeps
            nothing; 0.7 by default, with a source 0.75.
    """
    if source is not None:
        return flow_edit(pipeline, source, prompt, video, settings=settings)
    known = KnownLatents(encode_video(pipeline, video))
    return pipeline.videos(prompt, _size(video), settings.otherwise(strength=SDEDIT_STRENGTH), known)


@torch.no_grad()
def flow_edit(
    pipeline: MiniSoraPipeline,
    source: Prompt,
    target: Prompt,
    video: Tensor,
    *,
    num_noises: int = FLOW_EDIT_NOISES,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video B 3 T H W under another prompt, with all that its own prompt shares with it left alone.

    FlowEdit (Kulikov et al. 2024, arXiv 2412.08629, algorithm 1). SDEdit noises a video and hopes that the new prompt
    wins over what is still seen of the old one. Here the model is asked twice at each noise level, for the velocity of
    the noised video under its own prompt and for that of the edited video under the new one, both with the same noise;
    the video moves by the difference alone. Where the prompts agree, such as on shape and path, nothing moves.

    Args:
        pipeline: a text-conditional model.
        source, target: what the video shows and what it is to show; one prompt each, or one per video.
        video: B 3 T H W in [-1, 1], of a length and size that fits the model.
        num_noises: noises that the difference is averaged over at each step.
        settings: `strength` is the highest noise level, 0.75 by default: lower keeps more of the video. `steps` count
            from noise level 1, 40 by default; those above `strength` are left out. `guidance`, 20 by default, acts
            under both prompts (not 1.5 and 3 as in the paper), so that what it does to what they share cancels too;
            its `interval` is (0.68, 1) by default. The steps are Euler's, whatever the pipeline's scheduler.

    Raises:
        UserError: the model has no text, or an argument is out of its range.
    """
    if pipeline.text_encoder is None:
        raise UserError("this model knows no prompts: flow_edit moves a video from one to another")
    check_number("num_noises", num_noises, 1, MAX_STEPS)
    steps, strength = settings.steps or FLOW_EDIT_STEPS, settings.strength or FLOW_EDIT_STRENGTH
    guidance = FLOW_EDIT_GUIDANCE if settings.guidance is None else settings.guidance
    low, high = settings.interval or FLOW_EDIT_INTERVAL
    count = len(video)
    old = pipeline.encode_prompts(_rows(source, count, "source"), True)
    new = pipeline.encode_prompts(_rows(target, count, "target"), True)
    start = encode_video(pipeline, video)  # B Z T' H' W'
    levels = euler_sigmas(steps, pipeline.config.sigma_shift)
    levels = levels[levels <= strength + 1e-9].float().to(start.device)
    if len(levels) < 2:
        raise UserError(f"no step of {steps} lies below strength = {strength}: take more steps")

    edited = start.clone()
    noises = pipeline.noises(count, pipeline.latent_shape(*_size(video)), settings.seed, settings.generator)
    pipeline.set_progress_bar_config(disable=not settings.progress, desc="editing", leave=False)
    with pipeline.progress_bar(total=len(levels) - 1) as bar, pipeline.autocast():
        for step, (now, then) in enumerate(pairwise(levels)):
            sigma, move = now.expand(count), torch.zeros_like(start)
            scale = guidance if low <= float(now) <= high else 1.0
            for _ in range(num_noises):
                noised = interpolate(start, next(noises).to(start.device), sigma).noisy
                under_new = pipeline.guided_velocity(edited + noised - start, sigma, new, scale)
                under_old = pipeline.guided_velocity(noised, sigma, old, scale)
                move += (under_new - under_old) / num_noises
            edited = edited + (then - now) * move
            if settings.on_step is not None:
                settings.on_step(step, float(now), edited)
            bar.update()
    return pipeline.decode(edited)


def _rows(prompt: Prompt, count: int, name: str) -> list[str]:
    prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
    if len(prompts) != count:
        raise UserError(f"{len(prompts)} {name} prompts for {count} videos: give one, or one each")
    return prompts


def _size(video: Tensor) -> tuple[int, int, int]:
    return video.shape[2], video.shape[3], video.shape[4]


def _cells(pipeline: MiniSoraPipeline, mask: Tensor) -> Tensor:
    """The latent cells (B T' H' W') that touch a mask of pixels (B T H W)."""
    t, s = int(pipeline.vae.config.temporal_factor), int(pipeline.vae.config.spatial_factor)
    pipeline.vae.latent_size(*mask.shape[1:])
    # The first cell codes one frame.
    padded = torch.cat([mask[:, :1].expand(-1, t - 1, -1, -1), mask], dim=1)
    return torch.nn.functional.max_pool3d(padded.float()[:, None], (t, s, s))[:, 0] > 0
