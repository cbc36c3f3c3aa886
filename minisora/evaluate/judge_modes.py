"""How well each mode of a checkpoint works, on the shapes world, where the truth is known.

Every test renders clips of prompts, shows the model a part of each, and judges the rest that it samples: is the
known part still there, does the object go on as it went, is it still the same one. A clip's own second part is
what a perfect model would have sampled, so the data's own numbers stand beside the model's.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.shapes_world.grammar import COLORS, Light, Motion, ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.evaluate.judge.follow import observe
from minisora.evaluate.judge.verdict import judge, judge_all
from minisora.evaluate.likeness import psnr
from minisora.evaluate.sample_and_judge import reconstruct
from minisora.evaluate.score import Rate
from minisora.flops.device import peak_memory_mib
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.limits import seed_after
from minisora.pipelines.modes import (
    connect,
    default_context,
    extend,
    image_to_video,
    keyframes,
    known_length,
    long_video_pieces,
    loop,
)
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.restyle import inpaint, restyle

OPPOSITE: dict[Motion, Motion] = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "still": "still",
}
# What stands for the infinite PSNR of equal clips.
_SAME_DB = 99.0
# Which prompt's video is shown.
_EXAMPLE = 5
# Share of the short side: two paths are one if their centres lie nearer on average.
_SAME_PATH = 0.06


@dataclass(frozen=True)
class ModeScore:
    """The score of one mode: shares with their counts, plain numbers, and one of the videos."""

    rates: dict[str, Rate]
    numbers: dict[str, float]
    caption: str  # the example's
    example: Tensor  # 3 T H W in [-1, 1], always of the same prompt: not chosen

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, for JSON; null for a number that no video gave."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {**{name: rate.to_dict() for name, rate in self.rates.items()}, **numbers}


@dataclass(frozen=True)
class Trial:
    """The rendered clips and settings that every mode is tried on."""

    pipeline: MiniSoraPipeline
    prompts: list[ShapesPrompt]  # B
    clips: Tensor  # B 3 T H W, one of each prompt
    batch_size: int
    seed: int
    settings: SampleSettings
    say_night: bool = False  # whether captions name the night, which is the world's default

    @classmethod
    def of(
        cls,
        pipeline: MiniSoraPipeline,
        prompts: list[ShapesPrompt],
        batch_size: int,
        seed: int,
        settings: SampleSettings,
    ) -> "Trial":
        """A trial on a rendered clip of every prompt."""
        frames, height, width = pipeline.config.default_size
        world = ShapesWorld(1, frames=frames, height=height, width=width, fps=pipeline.config.fps)
        starts = range(0, len(prompts), 16)
        clips = torch.cat([world.render(prompts[start : start + 16], seed + start) for start in starts])
        return cls(pipeline, prompts, clips, batch_size, seed, settings)

    @property
    def frames_per_latent(self) -> int:
        """Frames in a latent frame; the first one holds a single frame."""
        return int(self.pipeline.vae.config.temporal_factor)

    def make(
        self,
        mode: Callable[..., Tensor],
        prompts: Sequence[ShapesPrompt],
        inputs: Sequence[Tensor],
        *others: Any,
        sources: Sequence[str] | None = None,
        **options: Any,
    ) -> Tensor:
        """Run a mode in batches; the videos B 3 T H W on the CPU.

        Args:
            mode: a function of `minisora.pipelines`, called with the pipeline, captions, inputs and the others.
            prompts: B prompts.
            inputs: tensors of B rows each, such as clips or images.
            others: further arguments of the mode, the same for every batch.
            sources: captions of the inputs, for modes that take them as `source`.
            options: further options of the mode.
        """
        videos = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            captions = self.captions(prompts[rows])
            settings = replace(self.settings, seed=seed_after(self.seed, start), progress=False)
            chosen = {**options, "settings": settings}
            parts = [tensor[rows] for tensor in inputs]
            chosen |= {} if sources is None else {"source": sources[rows]}
            videos.append(mode(self.pipeline, captions, *parts, *others, **chosen).cpu())
        return torch.cat(videos)

    def captions(self, prompts: Sequence[ShapesPrompt]) -> list[str]:
        """The captions of prompts."""
        return [prompt.caption(say_night=self.say_night) for prompt in prompts]

    def score(
        self,
        rates: dict[str, Rate],
        numbers: dict[str, float],
        prompts: Sequence[ShapesPrompt],
        videos: Tensor,
    ) -> ModeScore:
        """The score of a mode, with the video of the `_EXAMPLE`th prompt."""
        which = min(_EXAMPLE, len(videos) - 1)
        return ModeScore(rates, numbers, prompts[which].caption(say_night=True), videos[which])


def evaluate_modes(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int = 12,
    long_frames: int = 480,
    long_runs: int = 20,
    on_mode: Callable[[str], object] | None = None,
    settings: SampleSettings = DEFAULTS,
) -> dict[str, ModeScore]:
    """The score of every mode.

    Args:
        pipeline: a model of the shapes world, trained with `flow.known_share` above 0.
        prompts: captions of the grammar, with motion; a mode is tried once on each.
        seed: seed of the rendered clips and of the noise.
        batch_size: clips sampled at a time.
        long_frames: length of the long videos.
        long_runs: number of the long videos; 0 leaves them out.
        on_mode: called with the name of each mode as it begins.
        settings: how to sample; `seed` is the one above.
    """
    parsed = [parse(prompt) for prompt in prompts]
    trial = Trial.of(pipeline, parsed, batch_size, seed, settings)
    days = [replace(prompt, light="day") for prompt in parsed]
    by_day = Trial.of(pipeline, days, batch_size, seed, settings)
    tests: dict[str, Callable[[], ModeScore]] = {
        "animate": lambda: _animate(trial),
        "extend": lambda: score_extension(trial, backward=False),
        "prepend": lambda: score_extension(trial, backward=True),
        "connect": lambda: _connect(trial),
        "loop": lambda: _loop(trial),
        "inpaint": lambda: _inpaint(trial),
        "keyframes": lambda: _keyframes(trial),
        "day_to_night": lambda: _restyle(by_day, "night"),
        "night_to_day": lambda: _restyle(trial, "day"),
        "recolour": lambda: _recolour(trial),
    }
    if long_runs:
        tests["long"] = lambda: _long(trial, long_runs, long_frames)
    scores = {}
    for name, test in tests.items():
        if on_mode is not None:
            on_mode(name)
        scores[name] = test()
    return scores


def _animate(trial: Trial) -> ModeScore:
    videos = trial.make(image_to_video, trial.prompts, [trial.clips[:, :, 0]])
    first_frame = psnr(videos[:, :, :1], trial.clips[:, :, :1])
    rates = {
        "motion": shows(videos, trial.prompts, "motion"),
        "identity": shows(videos, trial.prompts, "color", "shape"),
        "whole": are_whole(videos, trial.prompts),
    }
    numbers = {
        "first_frame_db": float(first_frame.mean()),
        "first_frame_worst_db": float(first_frame.min()),
    }
    return trial.score(rates, numbers, trial.prompts, videos)


def score_extension(trial: Trial, *, backward: bool) -> ModeScore:
    """Every clip is cut to what `extend` sees of it by default; the extension is compared with what was cut away.

    Args:
        trial: the clips and their prompts.
        backward: extend towards earlier frames, from the end of the clip.
    """
    pipeline, clips = trial.pipeline, trial.clips
    context = default_context(pipeline, clips, backward=backward)
    known = known_length(pipeline, context, at_start=not backward)
    # Frames of the first part.
    cut = clips.shape[2] - known if backward else known
    part = clips[:, :, cut:] if backward else clips[:, :, :cut]
    videos = trial.make(extend, trial.prompts, [part], backward=backward, context=context)
    same = [same_object(video, cut, prompt) for video, prompt in zip(videos, trial.prompts, strict=True)]
    limit = float(np.nanpercentile([velocity_jump(video, cut) for video in clips], 95))
    # The true second part, as sharp as the VAE can show it.
    coded = reconstruct(pipeline.vae, clips)
    joined = torch.cat(
        [coded[:, :, :cut], clips[:, :, cut:]] if backward else [part, coded[:, :, cut:]], dim=2
    )
    coded_limit = float(np.nanpercentile([velocity_jump(video, cut) for video in joined], 95))
    jumps = np.array([velocity_jump(video, cut) for video in videos])
    # The extension, and the frame that it joins.
    new = videos[:, :, : cut + 1] if backward else videos[:, :, cut - 1 :]
    rates = {
        "motion": shows(new, trial.prompts, "motion"),
        "identity": rate(same),
        "whole": are_whole(new, trial.prompts),
        "smooth": rate((jumps <= limit).tolist()),
        "smooth_as_coded_data": rate((jumps <= coded_limit).tolist()),
    }
    numbers = {
        "jump_px": float(np.nanmedian(jumps)),
        "jump_p95_of_data_px": limit,
        "jump_p95_of_coded_data_px": coded_limit,
    }
    return trial.score(rates, numbers, trial.prompts, videos)


def _connect(trial: Trial) -> ModeScore:
    """The first frame and the last latent frame of a clip, as two videos to connect."""
    clips, factor = trial.clips, trial.frames_per_latent
    videos = trial.make(connect, trial.prompts, [clips[:, :, :1], clips[:, :, -factor:]])
    ends = torch.minimum(
        psnr(videos[:, :, :1], clips[:, :, :1]), psnr(videos[:, :, -factor:], clips[:, :, -factor:])
    )
    rates = {
        "all_right": shows(videos, trial.prompts, "color", "shape", "motion"),
        "whole": are_whole(videos, trial.prompts),
        "path": rate(near_paths(videos, clips)),
    }
    return trial.score(rates, {"worst_end_db": float(ends.min().clamp(max=_SAME_DB))}, trial.prompts, videos)


def _loop(trial: Trial) -> ModeScore:
    """There and back: the prompt asks for the way back as the opposite motion.

    The seam closes by construction (`loop` arrives over the clip's start run backwards), so the largest step of all,
    which includes both ends of the new part, stands beside it.
    """
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]) for prompt in trial.prompts]
    videos = trial.make(loop, back, [trial.clips])
    round_trip = torch.cat([videos, videos[:, :, :1]], dim=2)
    seams, same, excess, largest = [], [], [], []
    for video, prompt in zip(round_trip, trial.prompts, strict=True):
        steps = step_sizes(video)
        excess.append(steps[-1] - np.nanmax(steps[:-1]))
        seams.append(bool(excess[-1] <= 1e-6))
        largest_known = np.nanmax(steps[: trial.clips.shape[2] - 1])
        largest.append(np.nanmax(steps) / max(largest_known, 1e-6))
        same.append(same_object(video, trial.clips.shape[2], prompt))
    numbers = {
        "seam_over_largest_step_px": float(np.nanmedian(excess)),
        "largest_step_over_given": float(np.nanmedian(largest)),
    }
    return trial.score({"no_seam": rate(seams), "identity": rate(same)}, numbers, back, videos)


def _inpaint(trial: Trial) -> ModeScore:
    """The middle third of the columns is sampled anew."""
    clips, width = trial.clips, trial.clips.shape[4]
    mask = torch.zeros(1, *clips.shape[2:], dtype=torch.bool)
    mask[..., width // 3 : 2 * width // 3] = True
    videos = trial.make(inpaint, trial.prompts, [clips], mask)
    untouched = psnr(torch.where(mask[:, None], clips, videos), clips).clamp(max=_SAME_DB)
    rates = {
        "all_right": shows(videos, trial.prompts, "color", "shape", "motion"),
        "whole": are_whole(videos, trial.prompts),
    }
    return trial.score(rates, {"untouched_db": float(untouched.min())}, trial.prompts, videos)


def _keyframes(trial: Trial) -> ModeScore:
    """The first, the middle and the last frame of a clip as keyframes."""
    clips = trial.clips
    frames = [0, (clips.shape[2] - 1) // 2, clips.shape[2] - 1]
    videos = trial.make(keyframes, trial.prompts, [clips[:, :, frames].transpose(1, 2)], frames)
    keyframe_psnr = psnr(videos[:, :, frames], clips[:, :, frames])
    rates = {
        "all_right": shows(videos, trial.prompts, "color", "shape", "motion"),
        "whole": are_whole(videos, trial.prompts),
        "path": rate(near_paths(videos, clips)),
    }
    return trial.score(rates, {"keyframes_db": float(keyframe_psnr.mean())}, trial.prompts, videos)


def _restyle(trial: Trial, light: Light) -> ModeScore:
    """The same clip in another light."""
    other = [replace(prompt, light=light) for prompt in trial.prompts]
    return _restyled(replace(trial, say_night=True), other, "light", ("color", "shape"))


def _recolour(trial: Trial) -> ModeScore:
    """The same clip with an object of another colour."""
    colors = list(COLORS)
    other = [replace(p, color=colors[colors.index(p.color) - 1]) for p in trial.prompts]
    return _restyled(trial, other, "color", ("shape",))


def _restyled(trial: Trial, prompts: list[ShapesPrompt], changed: str, unchanged: Sequence[str]) -> ModeScore:
    """Clips restyled to prompts that differ in one attribute: is it there, and is all else as it was?"""
    videos = trial.make(restyle, prompts, [trial.clips], sources=trial.captions(trial.prompts))
    near = near_paths(videos, trial.clips)
    same = [
        all(verdict.matches(prompt)[name] for name in unchanged)
        for verdict, prompt in zip(judge_all(videos), prompts, strict=True)
    ]
    rates = {
        "style": shows(videos, prompts, changed),
        "whole": are_whole(videos, prompts),
        "kept": rate([a and b for a, b in zip(near, same, strict=True)]),
        "kept_" + "_and_".join(unchanged): rate(same),
        "kept_path": rate(near),
    }
    return trial.score(rates, {}, prompts, videos)


def _long(trial: Trial, runs: int, frames: int) -> ModeScore:
    """The object goes to and fro: every extension is asked for the opposite motion of the one before.

    Drift is the share of runs whose object is still the prompt's, piece after piece.
    """
    prompts = trial.prompts[:runs]
    captions = [prompt.caption() for prompt in prompts]
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]).caption() for prompt in prompts]
    settings = replace(trial.settings, seed=trial.seed, progress=False)
    pieces = long_video_pieces(trial.pipeline, captions, context=1, later=(back, captions), settings=settings)
    # Only the first run's pieces are kept: memory is measured.
    count, example = 0, []
    drift, seconds, peak_mib = {}, [], []
    while count < frames:
        start = time.perf_counter()
        piece = next(pieces).cpu()
        seconds.append((time.perf_counter() - start) / piece.shape[2] / len(prompts))
        peak_mib.append(peak_memory_mib())
        count += piece.shape[2]
        example.append(piece[:1].clone())
        same = [same_object(video, 0, prompt) for video, prompt in zip(piece, prompts, strict=True)]
        drift[f"identity_at_frame_{count}"] = sum(same) / len(same)
    half = len(seconds) // 2
    numbers = {
        "frames": float(count),
        "seconds_a_frame_first_half": float(np.median(seconds[:half])),
        "seconds_a_frame_second_half": float(np.median(seconds[half:])),
        "peak_memory_half_way_mib": peak_mib[half],
        "peak_memory_mib": peak_mib[-1],
        **drift,
    }
    return ModeScore({"identity_at_end": rate(same)}, numbers, captions[0], torch.cat(example, dim=2)[0])


def shows(videos: Tensor, prompts: Sequence[ShapesPrompt], *attributes: str) -> Rate:
    """The share of videos that have all of these attributes of their prompts."""
    verdicts = [verdict.matches(p) for verdict, p in zip(judge_all(videos), prompts, strict=True)]
    return rate([all(matches[name] for name in attributes) for matches in verdicts])


def are_whole(videos: Tensor, prompts: Sequence[ShapesPrompt]) -> Rate:
    """The share of videos that show their prompt's object whole; see `Verdict.whole`."""
    return rate([verdict.whole(p) for verdict, p in zip(judge_all(videos), prompts, strict=True)])


def near_paths(videos: Tensor, real: Tensor) -> list[bool]:
    """Which of two rows of videos show the same path."""
    return [path_distance(a, b) < _SAME_PATH for a, b in zip(videos, real, strict=True)]


def rate(flags: Sequence[bool]) -> Rate:
    """The share of true flags."""
    return Rate(sum(bool(flag) for flag in flags), len(flags))


def _centers(video: Tensor) -> np.ndarray:
    """The object's centre in every frame, T 2 in pixels; NaN where it is not seen."""
    tracked = observe(video).object
    return np.full((video.shape[1], 2), np.nan) if tracked is None else tracked.centers


def step_sizes(video: Tensor) -> np.ndarray:
    """How far the object goes from frame to frame, T - 1."""
    return np.linalg.norm(np.diff(_centers(video), axis=0), axis=1)


def velocity_jump(video: Tensor, cut: int) -> float:
    """Change of velocity at the step into frame `cut`, in pixels a frame: the larger of those before and after it."""
    velocity = np.diff(_centers(video), axis=0)  # T-1 2
    changes = np.linalg.norm(np.diff(velocity, axis=0), axis=1)[max(cut - 2, 0) : cut]
    return float(changes.max()) if len(changes) else math.nan


def same_object(video: Tensor, cut: int, prompt: ShapesPrompt) -> bool:
    """Whether the frames from `cut` on, and those before, show the prompt's object."""
    parts = [part for part in (video[:, :cut], video[:, cut:]) if part.shape[1]]
    return all((v.color, v.shape) == (prompt.color, prompt.shape) for v in map(judge, parts))


def path_distance(video: Tensor, real: Tensor) -> float:
    """Mean distance of the two objects' centres over the frames that show the real one, as a share of the short side.

    Infinite where the other is not seen in all of them.
    """
    apart = np.linalg.norm(_centers(video) - _centers(real), axis=1)[~np.isnan(_centers(real)[:, 0])]
    if not len(apart) or np.isnan(apart).any():
        return math.inf
    return float(apart.mean()) / min(real.shape[2:])
