"""How well each mode of a checkpoint works, on the shapes world, where the truth is known.

Every test starts from rendered clips of prompts, shows the model a part of them, and judges what it adds: is what
was given still there, does the object go on as it went, is it still the same one. A clip's own second part is what
a perfect model would have made, so the data's own numbers stand beside the model's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.captions import Motion, ShapesPrompt, parse
from minisora.data.shapes import ShapesWorld
from minisora.evaluate.fidelity import psnr
from minisora.evaluate.judge import judge
from minisora.evaluate.observe import observe
from minisora.evaluate.score import Rate
from minisora.pipelines.modes import connect, extend, image_to_video, inpaint, long_video, loop, restyle
from minisora.pipelines.pipeline import MiniSoraPipeline

OPPOSITE: dict[Motion, Motion] = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "still": "still",
}
_SAME_PATH = 0.06  # of the short side: two paths are one if their centres lie nearer on average


@dataclass(frozen=True)
class ModeScore:
    """What was found of one mode: shares with their counts, and plain numbers."""

    rates: dict[str, Rate]
    numbers: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**{name: rate.to_dict() for name, rate in self.rates.items()}, **self.numbers}


def evaluate_modes(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int = 12,
    long_frames: int = 480,
    long_runs: int = 20,
    on_mode: Callable[[str], None] | None = None,
    **options: Any,
) -> dict[str, ModeScore]:
    """The score of every mode.

    Args:
        pipeline: a model of the shapes world, trained with `flow.known_share` above 0.
        prompts: of the grammar, with motion; a mode is tried once on each.
        seed: of clips and noise.
        batch_size: clips at a time.
        long_frames, long_runs: length and number of the long videos; 0 runs leave them out.
        on_mode: called with the name of each mode as it begins.
        options: of the pipeline.
    """
    frames, height, width = pipeline.config.default_size
    world = ShapesWorld(1, frames=frames, height=height, width=width)
    parsed = [parse(prompt) for prompt in prompts]
    clips = torch.cat(
        [world.render(parsed[start : start + 16], seed + start) for start in range(0, len(parsed), 16)]
    )
    tests: dict[str, Callable[[], ModeScore]] = {
        "animate": lambda: _animate(pipeline, parsed, clips, batch_size, seed, options),
        "extend": lambda: _extend(pipeline, parsed, clips, batch_size, seed, options, backward=False),
        "prepend": lambda: _extend(pipeline, parsed, clips, batch_size, seed, options, backward=True),
        "connect": lambda: _connect(pipeline, parsed, clips, batch_size, seed, options),
        "loop": lambda: _loop(pipeline, parsed, clips, batch_size, seed, options),
        "inpaint": lambda: _inpaint(pipeline, parsed, clips, batch_size, seed, options),
        "restyle": lambda: _restyle(pipeline, parsed, clips, batch_size, seed, options),
    }
    if long_runs:
        tests["long"] = lambda: _long(pipeline, parsed[:long_runs], long_frames, seed, options)
    found = {}
    for name, test in tests.items():
        if on_mode is not None:
            on_mode(name)
        found[name] = test()
    return found


def _batches(
    run: Callable[[list[str], Tensor, int], Tensor],
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
) -> Tensor:
    """`run` on so many clips at a time, with their captions and a seed of their own."""
    made = []
    for start in range(0, len(prompts), size):
        captions = [prompt.caption() for prompt in prompts[start : start + size]]
        made.append(run(captions, clips[start : start + size], seed + start).cpu())
    return torch.cat(made)


def _animate(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
    options: dict[str, Any],
) -> ModeScore:
    made = _batches(
        lambda said, part, at: image_to_video(
            pipeline, said, part[:, :, 0], seed=at, progress=False, **options
        ),
        prompts,
        clips,
        size,
        seed,
    )
    kept = psnr(made[:, :, :1], clips[:, :, :1])
    verdicts = [judge(video) for video in made]
    right = [v.motion == p.motion for v, p in zip(verdicts, prompts, strict=True)]
    same = [(v.color, v.shape) == (p.color, p.shape) for v, p in zip(verdicts, prompts, strict=True)]
    return ModeScore(
        {"motion": _rate(right), "identity": _rate(same)},
        {"first_frame_db": float(kept.mean()), "first_frame_worst_db": float(kept.min())},
    )


def _extend(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
    options: dict[str, Any],
    *,
    backward: bool,
) -> ModeScore:
    """Half of every clip is given; the other half is made, and compared with the one that was taken away."""
    factor = int(pipeline.vae.config.temporal_factor)
    total = 1 + (clips.shape[2] - 1) // factor
    context = total // 2
    cut = clips.shape[2] - context * factor if backward else 1 + (context - 1) * factor  # of the first part
    part = clips[:, :, cut:] if backward else clips[:, :, :cut]
    made = _batches(
        lambda said, video, at: extend(
            pipeline, said, video, backward=backward, context=context, seed=at, progress=False, **options
        ),
        prompts,
        part,
        size,
        seed,
    )
    verdicts = [judge(video) for video in made]
    right = [v.motion == p.motion for v, p in zip(verdicts, prompts, strict=True)]
    same = [_identity(video, cut, p) for video, p in zip(made, prompts, strict=True)]
    limit = float(np.nanpercentile([_jump(video, cut) for video in clips], 95))
    jumps = np.array([_jump(video, cut) for video in made])
    return ModeScore(
        {
            "motion": _rate(right),
            "identity": _rate(same),
            "smooth": _rate((jumps <= limit).tolist()),
        },
        {"jump_px": float(np.nanmedian(jumps)), "jump_p95_of_data_px": limit},
    )


def _connect(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
    options: dict[str, Any],
) -> ModeScore:
    """The first frame and the last ones of a clip are given as two videos."""
    factor, frames = int(pipeline.vae.config.temporal_factor), clips.shape[2]
    made = _batches(
        lambda said, video, at: connect(
            pipeline, said, video[:, :, :1], video[:, :, -factor:], seed=at, progress=False, **options
        ),
        prompts,
        clips,
        size,
        seed,
    )
    assert made.shape[2] == frames
    verdicts = [judge(video) for video in made]
    right = [
        (v.color, v.shape, v.motion) == (p.color, p.shape, p.motion)
        for v, p in zip(verdicts, prompts, strict=True)
    ]
    near = [_path_distance(a, b) < _SAME_PATH for a, b in zip(made, clips, strict=True)]
    ends = torch.minimum(
        psnr(made[:, :, :1], clips[:, :, :1]), psnr(made[:, :, -factor:], clips[:, :, -factor:])
    )
    return ModeScore(
        {"all_right": _rate(right), "path": _rate(near)}, {"worst_end_db": float(ends.min().clamp(max=99))}
    )


def _loop(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
    options: dict[str, Any],
) -> ModeScore:
    """There and back: the way home is asked for in words, as the opposite motion."""
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]) for prompt in prompts]
    made = _batches(
        lambda said, video, at: loop(pipeline, said, video, seed=at, progress=False, **options),
        back,
        clips,
        size,
        seed,
    )
    round_trip = torch.cat([made, made[:, :, :1]], dim=2)
    seams, same = [], []
    for video, prompt in zip(round_trip, prompts, strict=True):
        steps = _steps(video)
        seams.append(bool(steps[-1] <= np.nanmax(steps[:-1]) + 1e-6))
        same.append(_identity(video, clips.shape[2], prompt))
    return ModeScore({"no_seam": _rate(seams), "identity": _rate(same)}, {})


def _inpaint(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
    options: dict[str, Any],
) -> ModeScore:
    """The middle third of the columns is made anew."""
    width = clips.shape[4]
    mask = torch.zeros(1, *clips.shape[2:], dtype=torch.bool)
    mask[..., width // 3 : 2 * width // 3] = True
    made = _batches(
        lambda said, video, at: inpaint(pipeline, said, video, mask, seed=at, progress=False, **options),
        prompts,
        clips,
        size,
        seed,
    )
    kept = torch.where(mask[:, None], clips, made)
    verdicts = [judge(video) for video in made]
    right = [
        (v.color, v.shape, v.motion) == (p.color, p.shape, p.motion)
        for v, p in zip(verdicts, prompts, strict=True)
    ]
    untouched = psnr(kept, clips).clamp(max=99)
    return ModeScore({"all_right": _rate(right)}, {"untouched_db": float(untouched.min())})


def _restyle(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    clips: Tensor,
    size: int,
    seed: int,
    options: dict[str, Any],
) -> ModeScore:
    """Night becomes day, and day night."""
    other = [replace(p, light="day" if p.light == "night" else "night") for p in prompts]
    made = _batches(
        lambda said, video, at: restyle(pipeline, said, video, seed=at, progress=False, **options),
        other,
        clips,
        size,
        seed,
    )
    verdicts = [judge(video) for video in made]
    style = [v.light == p.light for v, p in zip(verdicts, other, strict=True)]
    kept = [
        (v.color, v.shape) == (p.color, p.shape) and _path_distance(new, old) < _SAME_PATH
        for v, p, new, old in zip(verdicts, prompts, made, clips, strict=True)
    ]
    return ModeScore({"style": _rate(style), "kept": _rate(kept)}, {})


def _long(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[ShapesPrompt],
    frames: int,
    seed: int,
    options: dict[str, Any],
) -> ModeScore:
    """The object goes to and fro: every extension is asked for the opposite motion of the one before."""
    said = [prompt.caption() for prompt in prompts]
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]).caption() for prompt in prompts]
    made = long_video(
        pipeline, said, frames, context=1, later=(back, said), seed=seed, progress=False, **options
    )
    length = pipeline.config.default_size[0]
    kept = [_identity(video, frames - length, prompt) for video, prompt in zip(made, prompts, strict=True)]
    return ModeScore({"identity_at_end": _rate(kept)}, {"frames": float(frames)})


def _rate(flags: Sequence[bool]) -> Rate:
    return Rate(sum(bool(flag) for flag in flags), len(flags))


def _centers(video: Tensor) -> np.ndarray:
    """The object's centre in every frame, T 2 in pixels; NaN where it is not seen."""
    found = observe(video).object
    return np.full((video.shape[1], 2), np.nan) if found is None else found.centers


def _steps(video: Tensor) -> np.ndarray:
    """How far the object goes from frame to frame, T - 1."""
    return np.linalg.norm(np.diff(_centers(video), axis=0), axis=1)


def _jump(video: Tensor, cut: int) -> float:
    """Change of velocity, in pixels a frame, at the step into frame `cut`: beside the steps next to it."""
    velocity = np.diff(_centers(video), axis=0)  # T-1 2
    around = [velocity[i] for i in (cut - 2, cut) if 0 <= i < len(velocity)]
    return float(np.linalg.norm(velocity[cut - 1] - np.nanmean(around, axis=0)))


def _identity(video: Tensor, cut: int, prompt: ShapesPrompt) -> bool:
    """Whether the frames from `cut` on, and those before, show the prompt's object."""
    parts = [part for part in (video[:, :cut], video[:, cut:]) if part.shape[1]]
    return all((v.color, v.shape) == (prompt.color, prompt.shape) for v in map(judge, parts))


def _path_distance(first: Tensor, second: Tensor) -> float:
    """Mean distance of the two objects' centres over the frames, as a share of the short side."""
    apart = np.linalg.norm(_centers(first) - _centers(second), axis=1)
    if np.isnan(apart).mean() > 0.5:
        return float("inf")
    return float(np.nanmean(apart)) / min(first.shape[2:])
