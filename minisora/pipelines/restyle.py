"""Whole clips made anew: a region of one, or all of it under another prompt. Any model can, however it was trained.

Videos are B 3 T H W in [-1, 1], of the model's frame rate.
"""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from minisora.errors import UserError
from minisora.pipelines.flow_edit import STRENGTH, flow_edit
from minisora.pipelines.known import Given
from minisora.pipelines.modes import Prompt, encode_video
from minisora.pipelines.pipeline import MiniSoraPipeline

_RESAMPLE = 6


def inpaint(
    pipeline: MiniSoraPipeline, prompt: Prompt, video: Tensor, mask: Tensor, **options: Any
) -> Tensor:
    """A video with a region made anew; pixels outside it come back untouched.

    Args:
        pipeline: any.
        prompt: one per video.
        video: B 3 T H W, of a length and size that fits the model.
        mask: B T H W or 1 T H W, true where the video is to change.
        options: of the pipeline. `resample` is 6 by default where its scheduler is Euler's: what is made in the
            region fits its surroundings twice as often as with 1, in six times the time.

    Returns:
        B 3 T H W.

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
    latents = encode_video(pipeline, video)
    given = Given(latents, cells=~_cells(pipeline, mask))
    if isinstance(pipeline.scheduler, FlowMatchEulerDiscreteScheduler):
        options.setdefault("resample", _RESAMPLE)
    made = _run(pipeline, prompt, video, given, options).to(video)
    return torch.where(mask[:, None].to(video.device), made, video)


def restyle(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    video: Tensor,
    strength: float | None = None,
    *,
    source: Prompt | None = None,
    **options: Any,
) -> Tensor:
    """A video made anew from itself under another prompt.

    Args:
        pipeline: any.
        prompt: what it is to become, one per video.
        video: B 3 T H W, of a length and size that fits the model.
        strength: noise level to start from, in (0, 1]: low keeps more of the video, 1 keeps nothing; by default 0.7,
            with a source 0.75.
        source: what the video shows now. If it is given only the difference of the prompts moves the video
            (`minisora.pipelines.flow_edit`), else it is noised and made again (SDEdit, Meng et al. 2021, arXiv
            2108.01073), which keeps less.
        options: of the pipeline; with a source those of `flow_edit`.

    Returns:
        B 3 T H W.
    """
    if source is not None:
        return flow_edit(
            pipeline, source, prompt, video, strength=STRENGTH if strength is None else strength, **options
        )
    given = Given(encode_video(pipeline, video))
    return _run(
        pipeline, prompt, video, given, {**options, "strength": 0.7 if strength is None else strength}
    )


def _run(
    pipeline: MiniSoraPipeline, prompt: Prompt, video: Tensor, given: Given, options: dict[str, Any]
) -> Tensor:
    size: dict[str, Any] = {"num_frames": video.shape[2], "height": video.shape[3], "width": video.shape[4]}
    return pipeline(prompt, given=given, **size, **options).videos


def _cells(pipeline: MiniSoraPipeline, mask: Tensor) -> Tensor:
    """The latent cells (B T' H' W') that touch a mask of pixels (B T H W)."""
    t, s = int(pipeline.vae.config.temporal_factor), int(pipeline.vae.config.spatial_factor)
    pipeline.vae.latent_size(*mask.shape[1:])
    padded = torch.cat([mask[:, :1].expand(-1, t - 1, -1, -1), mask], dim=1)  # the first cell codes one frame
    return torch.nn.functional.max_pool3d(padded.float()[:, None], (t, s, s))[:, 0] > 0
