"""Restyling with both prompts known: what a video shows, and what it is to show.

FlowEdit (Kulikov et al. 2024, arXiv 2412.08629, algorithm 1). SDEdit noises a video and hopes that the new prompt wins
over what is still seen of the old one. Here the model is asked twice at each noise level, for the velocity of the
noised video under its own prompt and for that of the video in the making under the new one, both with the same noise;
the video moves by the difference alone. Where the prompts agree, such as on shape and path, nothing moves.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.path import interpolate
from minisora.flow.schedules import euler_sigmas
from minisora.limits import MAX_GUIDANCE, MAX_STEPS, check_number, check_seed
from minisora.models.precision import sampling_context
from minisora.pipelines.pipeline import MiniSoraPipeline

_STEPS, _GUIDANCE, STRENGTH = 40, 20.0, 0.75


@torch.no_grad()
def flow_edit(
    pipeline: MiniSoraPipeline,
    source: str | Sequence[str],
    target: str | Sequence[str],
    video: Tensor,
    *,
    strength: float = STRENGTH,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    num_noises: int = 4,
    guidance_above: float = 0.68,
    seed: int = 0,
    progress: bool = True,
) -> Tensor:
    """A video under another prompt, with all that its own prompt shares with it left alone.

    Args:
        pipeline: a text-conditional model.
        source, target: what the video shows and what it is to show; one prompt each, or one per video.
        video: B 3 T H W in [-1, 1], of a length and size that fits the model.
        strength: highest noise level, in (0, 1]: lower keeps more of the video.
        num_inference_steps: from noise level 1; those above `strength` are left out. 40 by default.
        guidance_scale: under both prompts, so that what guidance does to what they share cancels too (with 1.5
            under the source and 3 under the target, as in the paper, the toy's objects left their paths twice as
            often). 20 by default.
        guidance_above: noise level below which nothing is guided: there the style is decided, and guidance only
            moves what should stay. (Of 36 clips turned from day to night 33 keep their path with a guidance of 14 or 20
            above this level; with 9 above 0.6, 0.4, 0.2 30, 27 and 26.)
        num_noises: noises that the difference is averaged over at each step.
        seed: of the noises; those of video i are drawn from seed + i.
        progress: show a bar.

    Returns:
        B 3 T H W.

    Raises:
        UserError: the model has no text, or an argument is out of its range.
    """
    if pipeline.text_encoder is None:
        raise UserError("this model knows no prompts: flow_edit moves a video from one to another")
    check_number("strength", strength, 0.0, 1.0, above=True)
    check_seed(seed)
    count = len(video)
    steps = _STEPS if num_inference_steps is None else num_inference_steps
    guidance = _GUIDANCE if guidance_scale is None else guidance_scale
    for name, number in (("num_noises", num_noises), ("num_inference_steps", steps)):
        check_number(name, number, 1, MAX_STEPS)
    check_number("guidance_scale", guidance, 0.0, MAX_GUIDANCE)
    check_number("guidance_above", guidance_above, 0.0, 1.0)
    old = pipeline.encode_prompts(_rows(source, count, "source"), True)
    new = pipeline.encode_prompts(_rows(target, count, "target"), True)
    start = pipeline.vae.to_latents(video.to(pipeline.device, pipeline.vae.dtype)).float()  # B Z T' H' W'
    levels = euler_sigmas(steps, pipeline.config.sigma_shift)
    levels = levels[levels <= strength + 1e-9].float().to(start.device)
    if len(levels) < 2:
        raise UserError(f"no step of {steps} lies below strength = {strength}: take more steps")

    edited = start.clone()
    noises = pipeline.noises(count, pipeline.latent_shape(*video.shape[2:]), seed)
    pipeline.set_progress_bar_config(disable=not progress, desc="editing", leave=False)
    autocast = sampling_context(pipeline.device, pipeline.dit.config.width, pipeline.dit.dtype)
    with pipeline.progress_bar(total=len(levels) - 1) as bar, autocast:
        for now, then in pairwise(levels):
            sigma, move = now.expand(count), torch.zeros_like(start)
            scale = guidance if float(now) > guidance_above else 1.0
            for _ in range(num_noises):
                noised = interpolate(start, next(noises).to(start.device), sigma).noisy
                under_new = pipeline.guided_velocity(edited + noised - start, sigma, new, scale)
                under_old = pipeline.guided_velocity(noised, sigma, old, scale)
                move += (under_new - under_old) / num_noises
            edited = edited + (then - now) * move
            bar.update()
    return pipeline.vae.to_video(edited.to(pipeline.vae.dtype)).float()


def _rows(said: str | Sequence[str], count: int, name: str) -> list[str]:
    prompts = [said] * count if isinstance(said, str) else list(said)
    if len(prompts) != count:
        raise UserError(f"{len(prompts)} {name} prompts for {count} videos: give one, or one each")
    return prompts
