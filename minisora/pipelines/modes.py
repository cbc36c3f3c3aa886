"""What one checkpoint does beside text to video: each mode a call of the pipeline with other frames known.

    image_to_video     the first frame is known
    extend             a clip goes on after its end, or begins earlier
    connect            what happens between two clips
    loop               a clip whose end leads back to its start
    keyframes          what happens between known images; keyframe_segments: each two with a prompt of their own
    long_video_pieces  extension without end

Videos are B 3 T H W in [-1, 1], of the model's frame rate; latent frame 0 codes the first frame alone, every later
one the next `vae.temporal_factor` frames. Known frames come back through the VAE, but whole videos that were
passed in are returned as they were, with the new frames beside them. `settings` say how to sample.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.flow.known_frames import KnownLatents
from minisora.limits import seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline

Prompt = str | Sequence[str]


def image_to_video(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    image: Tensor,
    num_frames: int | None = None,
    *,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video B 3 T H W that begins with an image.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: one per image.
        image: B 3 H W in [-1, 1].
        num_frames: length of the video; the training length by default.
        settings: how to sample.

    Raises:
        UserError: the image does not fit the model's strides, or an option is out of its range.
    """
    if image.ndim != 4 or image.shape[1] != 3:
        raise UserError(f"an image must be B 3 H W; got {tuple(image.shape)}")
    frames = _length(pipeline, num_frames)
    return _sample(pipeline, prompt, frames, settings, first=image[:, :, None])


def extend(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    video: Tensor,
    *,
    backward: bool = False,
    context: int | None = None,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video with what comes after it, or with `backward` what came before: B 3 (T + new) H W.

    One clip of the training length is sampled with `context` latent frames of the video known; the new frames
    are joined to the video.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: one per video.
        video: B 3 T H W, at least as long as the context.
        backward: make the past instead of the future.
        context: latent frames of the video that the model sees: the more, the better it goes on, and the fewer are
            new. Half of a clip by default, rounded up, or as many as the video has.
        settings: how to sample. Guidance is off by default: the video says most of what a prompt would, and guidance
            pulls the new frames away from it.

    Raises:
        UserError: the video is shorter than the context, or an option is out of its range.
    """
    total = _latent_frames(pipeline, pipeline.config.default_size[0])
    if context is None:
        context = default_context(pipeline, video, backward=backward)
    if not 1 <= context < total:
        raise UserError(f"context = {context} latent frames must be 1 to {total - 1}: a clip has {total}")
    need = known_length(pipeline, context, at_start=not backward)
    _check_length(video, need, "extend")
    frames = pipeline.config.default_size[0]
    settings = settings.otherwise(guidance=1.0)
    if backward:
        clip = _sample(pipeline, prompt, frames, settings, last=video[:, :, :need])
        return torch.cat([clip[:, :, : frames - need].to(video), video], dim=2)
    clip = _sample(pipeline, prompt, frames, settings, first=video[:, :, -need:])
    return torch.cat([video, clip[:, :, need:].to(video)], dim=2)


def connect(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    before: Tensor,
    after: Tensor,
    *,
    context: int = 1,
    num_frames: int | None = None,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """Two videos with what happens between them, B 3 (T1 + new + T2) H W.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: one per pair.
        before, after: B 3 T H W, of one size; lengths may differ.
        context: latent frames of each that the model sees.
        num_frames: length of the sampled clip, which overlaps both videos by the context; the training length by
            default.
        settings: how to sample.

    Raises:
        UserError: the videos differ in size, are shorter than the context, or leave nothing to sample.
    """
    if before.shape[3:] != after.shape[3:]:
        raise UserError(
            f"the videos to connect are {before.shape[3]}x{before.shape[4]} and {after.shape[3]}x{after.shape[4]} "
            "(height x width): resize one to the other's size"
        )
    frames = _length(pipeline, num_frames)
    total = _latent_frames(pipeline, frames)
    if context < 1 or 2 * context >= total:
        raise UserError(f"context = {context} at both ends leaves nothing of {total} latent frames: use less")
    head = known_length(pipeline, context, at_start=True)
    tail = known_length(pipeline, context, at_start=False)
    _check_length(before, head, "connect")
    _check_length(after, tail, "connect")
    clip = _sample(pipeline, prompt, frames, settings, first=before[:, :, -head:], last=after[:, :, :tail])
    return torch.cat([before, clip[:, :, head : frames - tail].to(before), after], dim=2)


def loop(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    video: Tensor,
    *,
    context: int = 1,
    num_frames: int | None = None,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video with a way back from its end to its start: played over and over, it has no seam.

    B 3 (T + new) H W; the frame after the last one is the first. The way back arrives over the first frames run
    backwards, so that what left the first frame comes back to it.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: what the way back shows, one per video.
        video: B 3 T H W.
        context: latent frames of either end that the model sees.
        num_frames, settings: as of `connect`.
    """
    tail = known_length(pipeline, context, at_start=False)
    _check_length(video, tail, "loop")
    arrival = video[:, :, :tail].flip(2)
    joined = connect(
        pipeline, prompt, video, arrival, context=context, num_frames=num_frames, settings=settings
    )
    return joined[:, :, :-1]


def keyframes(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    images: Tensor,
    at: Sequence[int] | None = None,
    num_frames: int | None = None,
    *,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video B 3 T H W through known images: what happens between them is sampled.

    A latent frame codes `vae.temporal_factor` frames (the first only one), so an image after the first is shown to
    the model as standing still for that long, and appears within the latent frame that its frame falls into.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: one per row of images.
        images: B K 3 H W in [-1, 1].
        at: frames that they belong to, rising; evenly from the first to the last frame by default.
        num_frames: length of the video; the training length by default.
        settings: how to sample.

    Raises:
        UserError: two images fall into one latent frame, or a frame is not in the video.
    """
    frames = _length(pipeline, num_frames)
    if images.ndim != 5 or images.shape[2] != 3 or not images.shape[1]:
        raise UserError(f"keyframes must be B K 3 H W; got {tuple(images.shape)}")
    count, factor = images.shape[1], int(pipeline.vae.config.temporal_factor)
    shown_at = [round(i * (frames - 1) / max(count - 1, 1)) for i in range(count)] if at is None else list(at)
    cells = [-(-frame // factor) for frame in shown_at]
    if len(shown_at) != count or sorted(set(cells)) != cells or not 0 <= shown_at[0] <= shown_at[-1] < frames:
        raise UserError(
            f"keyframes at {shown_at} for {count} images: give rising frames from 0 to {frames - 1}, one per image, "
            f"no two within {factor} frames"
        )
    held = [
        next((k for k in reversed(range(count)) if cells[k] <= -(-t // factor)), 0) for t in range(frames)
    ]
    latents = encode_video(pipeline, images[:, held].transpose(1, 2))
    known = torch.zeros(len(images), latents.shape[2], dtype=torch.bool, device=latents.device)
    known[:, cells] = True
    size = (frames, images.shape[3], images.shape[4])
    return pipeline.videos(prompt, size, settings, KnownLatents(latents, frames=known))


def keyframe_segments(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    images: Tensor,
    num_frames: int | None = None,
    *,
    settings: SampleSettings = DEFAULTS,
) -> Tensor:
    """A video through known images, between each two a clip with a prompt of its own: 1 3 (1 + (K - 1) (T - 1)) H W.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompts: K - 1, one for each segment.
        images: 1 K 3 H W in [-1, 1].
        num_frames: length T of a segment, both images with it; the training length by default.
        settings: how to sample; segment k uses seed + 1000 k.

    Raises:
        UserError: as of `keyframes`.
    """
    pieces = []
    for k, prompt in enumerate(prompts):
        seeded = replace(settings, seed=seed_after(settings.seed, 1000 * k))
        piece = keyframes(pipeline, prompt, images[:, k : k + 2], num_frames=num_frames, settings=seeded)
        # It begins with the image that the one before it ends with.
        pieces.append(piece if k == 0 else piece[:, :, 1:])
    return torch.cat(pieces, dim=2)


def _sample(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    frames: int,
    settings: SampleSettings,
    *,
    first: Tensor | None = None,
    last: Tensor | None = None,
) -> Tensor:
    """A clip of so many frames whose first and last ones (B 3 t H W each) are known; B 3 frames H W."""
    some = first if first is not None else last
    assert some is not None
    size = (frames, some.shape[3], some.shape[4])
    shape = pipeline.latent_shape(*size)
    latents = torch.zeros(len(some), *shape, device=pipeline.device)
    known = torch.zeros(len(some), shape[1], dtype=torch.bool, device=pipeline.device)
    if first is not None:
        head = encode_video(pipeline, first)
        latents[:, :, : head.shape[2]] = head
        known[:, : head.shape[2]] = True
    if last is not None:
        # The VAE looks back: frames at the end are coded behind a past that is not sampled yet, so behind a still one.
        count = last.shape[2] // pipeline.vae.config.temporal_factor
        past = last[:, :, :1].expand(-1, -1, frames - last.shape[2], -1, -1)
        latents[:, :, -count:] = encode_video(pipeline, torch.cat([past, last], dim=2))[:, :, -count:]
        known[:, shape[1] - count :] = True
    return pipeline.videos(prompt, size, settings, KnownLatents(latents, frames=known))


def encode_video(pipeline: MiniSoraPipeline, video: Tensor) -> Tensor:
    """Normalised latents of a video; raises UserError with the nearest size where it does not fit."""
    if video.ndim != 5 or video.shape[1] != 3:
        raise UserError(f"a video must be B 3 T H W; got {tuple(video.shape)}")
    return pipeline.vae.to_latents(video.to(pipeline.device, pipeline.vae.dtype)).float()


def _length(pipeline: MiniSoraPipeline, num_frames: int | None) -> int:
    """Frames to sample; the training length by default."""
    return int(pipeline.config.default_size[0] if num_frames is None else num_frames)


def _latent_frames(pipeline: MiniSoraPipeline, frames: int) -> int:
    return 1 + (frames - 1) // int(pipeline.vae.config.temporal_factor)


def known_length(pipeline: MiniSoraPipeline, context: int, *, at_start: bool) -> int:
    """Frames that `context` latent frames stand for, at the start of a clip or further on."""
    factor = int(pipeline.vae.config.temporal_factor)
    return 1 + (context - 1) * factor if at_start else context * factor


def default_context(pipeline: MiniSoraPipeline, video: Tensor, *, backward: bool) -> int:
    """Latent frames that `extend` sees: half a clip, rounded up, or as many as the video has; at least one."""
    context = (_latent_frames(pipeline, pipeline.config.default_size[0]) + 1) // 2
    while context > 1 and known_length(pipeline, context, at_start=not backward) > video.shape[-3]:
        context -= 1
    return context


def _check_length(video: Tensor, need: int, verb: str) -> None:
    if video.ndim != 5 or video.shape[2] < need:
        raise UserError(
            f"a video to {verb} must be B 3 T H W with at least {need} frames; got {tuple(video.shape)}: "
            "use a longer one, or less context"
        )


def long_video_pieces(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    *,
    context: int = 2,
    later: Sequence[Prompt] = (),
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    settings: SampleSettings = DEFAULTS,
) -> Iterator[Tensor]:
    """An endless video, B 3 t H W at a time: a clip, then what each extension adds. Only one piece is kept.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: one per video.
        context: latent frames that each extension sees; the more, the fewer new ones.
        later: prompts of the extensions, in turn and over again; the first prompt if there are none.
        num_frames: length of the first clip; the training length by default.
        height, width: size of the video; the training size by default.
        settings: how to sample; extension k uses seed + 1000 k. Guidance is the model's by default, as the prompts
            lead here, not what is there already.

    Raises:
        UserError: the context is longer than what an extension adds, or the size does not fit.
    """
    settings = settings.otherwise(guidance=pipeline.config.default_guidance)
    piece = pipeline.videos(prompt, pipeline.size(num_frames, height, width), settings)
    yield piece
    need = known_length(pipeline, context, at_start=True)
    for number in itertools.count(1):
        tail = piece[:, :, -need:]
        if tail.shape[2] < need:
            raise UserError(
                f"context = {context} latent frames is longer than what an extension adds: use less"
            )
        following = later[(number - 1) % len(later)] if later else prompt
        seeded = replace(settings, seed=seed_after(settings.seed, 1000 * number))
        piece = extend(pipeline, following, tail, context=context, settings=seeded)[:, :, need:]
        yield piece
