"""Videos of any length: one clip, extended again and again from its last frames, piece after piece."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.limits import MAX_FRAMES, check_number, check_seed, seed_after
from minisora.pipelines.modes import Prompt, extend, known_length
from minisora.pipelines.pipeline import MiniSoraPipeline

_OF_FIRST = ("num_frames", "height", "width")  # what extensions take from the clip before


def long_video_pieces(
    pipeline: MiniSoraPipeline,
    prompt: Prompt,
    *,
    context: int = 2,
    later: Sequence[Prompt] = (),
    seed: int = 0,
    **options: Any,
) -> Iterator[Tensor]:
    """An endless video, B 3 t H W at a time: a clip, then what each extension adds. Only one piece is kept.

    Args:
        pipeline: trained with `flow.known_share` above 0.
        prompt: one per video.
        context: latent frames that each extension sees; the more, the fewer new ones.
        later: prompts of the extensions, in turn and over again; the first prompt if there are none.
        seed: of the first clip; extension k uses seed + 1000 k.
        options: of the pipeline; num_frames is of the first clip alone.

    Raises:
        UserError: the context is longer than what an extension adds, or an option is out of its range.
    """
    check_seed(seed)
    if options.get("guidance_scale") is None:  # the prompts lead here, not what is there already
        options["guidance_scale"] = pipeline.config.default_guidance
    piece = pipeline(prompt, seed=seed, **options).videos
    options = {name: value for name, value in options.items() if name not in _OF_FIRST}
    yield piece
    need = known_length(pipeline, context, at_start=True)
    for number in itertools.count(1):
        tail = piece[:, :, -need:]
        if tail.shape[2] < need:
            raise UserError(
                f"context = {context} latent frames is longer than what an extension adds: use less"
            )
        said = later[(number - 1) % len(later)] if later else prompt
        longer = extend(
            pipeline, said, tail, context=context, seed=seed_after(seed, 1000 * number), **options
        )
        piece = longer[:, :, need:]
        yield piece


def long_video(pipeline: MiniSoraPipeline, prompt: Prompt, num_frames: int, **options: Any) -> Tensor:
    """A video of `num_frames` frames, B 3 T H W; the other arguments are those of `long_video_pieces`.

    Raises:
        UserError: as `long_video_pieces`, or the length is not at least 1.
    """
    check_number("num_frames", num_frames, 1, MAX_FRAMES)
    pieces: list[Tensor] = []
    for piece in long_video_pieces(pipeline, prompt, **options):
        pieces.append(piece)
        if sum(part.shape[2] for part in pieces) >= num_frames:
            break
    return torch.cat(pieces, dim=2)[:, :, :num_frames]
