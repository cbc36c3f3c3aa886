"""How well each mode of a checkpoint works, on the shapes world, where the truth is known.

Every test starts from rendered clips of prompts, shows the model a part of them, and judges what it adds: is what
was given still there, does the object go on as it went, is it still the same one. A clip's own second part is what
a perfect model would have made, so the data's own numbers stand beside the model's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.captions import COLORS, Light, Motion, ShapesPrompt, parse
from minisora.data.shapes import ShapesWorld
from minisora.evaluate.fidelity import psnr
from minisora.evaluate.judge import judge, judge_all
from minisora.evaluate.observe import observe
from minisora.evaluate.prompts import reconstruct
from minisora.evaluate.score import Rate
from minisora.measure.device import peak_memory_mib
from minisora.pipelines.long_video import long_video_pieces
from minisora.pipelines.modes import connect, extend, image_to_video, inpaint, keyframes, loop, restyle
from minisora.pipelines.pipeline import MiniSoraPipeline

OPPOSITE: dict[Motion, Motion] = {
    "left": "right",
    "right": "left",
    "up": "down",
    "down": "up",
    "still": "still",
}
_EXAMPLE = 5  # which prompt's video is shown
_SAME_DB = 99.0  # what equal clips are given for their infinite PSNR
_SAME_PATH = 0.06  # of the short side: two paths are one if their centres lie nearer on average


@dataclass(frozen=True)
class ModeScore:
    """What was found of one mode: shares with their counts, plain numbers, and one of the videos."""

    rates: dict[str, Rate]
    numbers: dict[str, float]
    caption: str  # of the example
    example: Tensor  # 3 T H W in [-1, 1], always of the same prompt: not chosen

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, ready for JSON."""
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
    parsed = [parse(prompt) for prompt in prompts]
    trial = _Trial.of(pipeline, parsed, batch_size, seed, options)
    days = [replace(prompt, light="day") for prompt in parsed]
    by_day = _Trial.of(pipeline, days, batch_size, seed, options)
    tests: dict[str, Callable[[], ModeScore]] = {
        "animate": lambda: _animate(trial),
        "extend": lambda: _extend(trial, backward=False),
        "prepend": lambda: _extend(trial, backward=True),
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
    found = {}
    for name, test in tests.items():
        if on_mode is not None:
            on_mode(name)
        found[name] = test()
    return found


@dataclass(frozen=True)
class _Trial:
    """What every mode is tried on."""

    pipeline: MiniSoraPipeline
    prompts: list[ShapesPrompt]  # B
    clips: Tensor  # B 3 T H W, one of each prompt
    batch_size: int
    seed: int
    options: dict[str, Any]  # of the pipeline
    say_night: bool = False  # in captions; left out, night is what the world means

    @classmethod
    def of(
        cls,
        pipeline: MiniSoraPipeline,
        prompts: list[ShapesPrompt],
        batch_size: int,
        seed: int,
        options: dict[str, Any],
    ) -> "_Trial":
        """A trial on a rendered clip of every prompt."""
        frames, height, width = pipeline.config.default_size
        world = ShapesWorld(1, frames=frames, height=height, width=width)
        starts = range(0, len(prompts), 16)
        clips = torch.cat([world.render(prompts[start : start + 16], seed + start) for start in starts])
        return cls(pipeline, prompts, clips, batch_size, seed, options)

    @property
    def frames_per_latent(self) -> int:
        return int(self.pipeline.vae.config.temporal_factor)

    def make(
        self,
        mode: Callable[..., Tensor],
        prompts: Sequence[ShapesPrompt],
        given: Sequence[Tensor],
        *others: Any,
        sources: Sequence[str] | None = None,
        **options: Any,
    ) -> Tensor:
        """What a mode makes of prompts, `given` tensors and `sources` of B rows each, so many at a time, on the CPU."""
        made = []
        for start in range(0, len(prompts), self.batch_size):
            rows = slice(start, start + self.batch_size)
            captions = self.captions(prompts[rows])
            chosen = {**self.options, **options, "seed": self.seed + start, "progress": False}
            parts = [tensor[rows] for tensor in given]
            chosen |= {} if sources is None else {"source": sources[rows]}
            made.append(mode(self.pipeline, captions, *parts, *others, **chosen).cpu())
        return torch.cat(made)

    def captions(self, prompts: Sequence[ShapesPrompt]) -> list[str]:
        """In words."""
        return [prompt.caption(say_night=self.say_night) for prompt in prompts]

    def score(
        self,
        rates: dict[str, Rate],
        numbers: dict[str, float],
        prompts: Sequence[ShapesPrompt],
        made: Tensor,
    ) -> ModeScore:
        """The score of a mode, with the video of the `_EXAMPLE`th prompt."""
        which = min(_EXAMPLE, len(made) - 1)
        return ModeScore(rates, numbers, prompts[which].caption(say_night=True), made[which])


def _animate(trial: _Trial) -> ModeScore:
    made = trial.make(image_to_video, trial.prompts, [trial.clips[:, :, 0]])
    kept = psnr(made[:, :, :1], trial.clips[:, :, :1])
    rates = {
        "motion": _shows(made, trial.prompts, "motion"),
        "identity": _shows(made, trial.prompts, "color", "shape"),
    }
    numbers = {"first_frame_db": float(kept.mean()), "first_frame_worst_db": float(kept.min())}
    return trial.score(rates, numbers, trial.prompts, made)


def _extend(trial: _Trial, *, backward: bool) -> ModeScore:
    """Half of every clip is given; the other half is made, and compared with the one that was taken away."""
    clips, factor = trial.clips, trial.frames_per_latent
    context = (1 + (clips.shape[2] - 1) // factor) // 2
    cut = clips.shape[2] - context * factor if backward else 1 + (context - 1) * factor  # of the first part
    part = clips[:, :, cut:] if backward else clips[:, :, :cut]
    made = trial.make(extend, trial.prompts, [part], backward=backward, context=context)
    same = [_identity(video, cut, prompt) for video, prompt in zip(made, trial.prompts, strict=True)]
    limit = float(np.nanpercentile([_jump(video, cut) for video in clips], 95))
    coded = reconstruct(trial.pipeline.vae, clips)  # the true second half, as sharp as the VAE can show it
    joined = torch.cat(
        [coded[:, :, :cut], clips[:, :, cut:]] if backward else [part, coded[:, :, cut:]], dim=2
    )
    coded_limit = float(np.nanpercentile([_jump(video, cut) for video in joined], 95))
    jumps = np.array([_jump(video, cut) for video in made])
    rates = {
        "motion": _shows(made, trial.prompts, "motion"),
        "identity": _rate(same),
        "smooth": _rate((jumps <= limit).tolist()),
        "smooth_as_coded_data": _rate((jumps <= coded_limit).tolist()),
    }
    numbers = {
        "jump_px": float(np.nanmedian(jumps)),
        "jump_p95_of_data_px": limit,
        "jump_p95_of_coded_data_px": coded_limit,
    }
    return trial.score(rates, numbers, trial.prompts, made)


def _connect(trial: _Trial) -> ModeScore:
    """The first frame and the last ones of a clip are given as two videos."""
    clips, factor = trial.clips, trial.frames_per_latent
    made = trial.make(connect, trial.prompts, [clips[:, :, :1], clips[:, :, -factor:]])
    ends = torch.minimum(
        psnr(made[:, :, :1], clips[:, :, :1]), psnr(made[:, :, -factor:], clips[:, :, -factor:])
    )
    rates = {
        "all_right": _shows(made, trial.prompts, "color", "shape", "motion"),
        "path": _rate(_near(made, clips)),
    }
    return trial.score(rates, {"worst_end_db": float(ends.min().clamp(max=_SAME_DB))}, trial.prompts, made)


def _loop(trial: _Trial) -> ModeScore:
    """There and back: the way home is asked for in words, as the opposite motion."""
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]) for prompt in trial.prompts]
    made = trial.make(loop, back, [trial.clips])
    round_trip = torch.cat([made, made[:, :, :1]], dim=2)
    seams, same, excess = [], [], []
    for video, prompt in zip(round_trip, trial.prompts, strict=True):
        steps = _steps(video)
        excess.append(steps[-1] - np.nanmax(steps[:-1]))
        seams.append(bool(excess[-1] <= 1e-6))
        same.append(_identity(video, trial.clips.shape[2], prompt))
    numbers = {"seam_over_largest_step_px": float(np.nanmedian(excess))}
    return trial.score({"no_seam": _rate(seams), "identity": _rate(same)}, numbers, back, made)


def _inpaint(trial: _Trial) -> ModeScore:
    """The middle third of the columns is made anew."""
    clips, width = trial.clips, trial.clips.shape[4]
    mask = torch.zeros(1, *clips.shape[2:], dtype=torch.bool)
    mask[..., width // 3 : 2 * width // 3] = True
    made = trial.make(inpaint, trial.prompts, [clips], mask)
    untouched = psnr(torch.where(mask[:, None], clips, made), clips).clamp(max=_SAME_DB)
    rates = {"all_right": _shows(made, trial.prompts, "color", "shape", "motion")}
    return trial.score(rates, {"untouched_db": float(untouched.min())}, trial.prompts, made)


def _keyframes(trial: _Trial) -> ModeScore:
    """The first, the middle and the last frame of a clip are given."""
    clips = trial.clips
    places = [0, (clips.shape[2] - 1) // 2, clips.shape[2] - 1]
    made = trial.make(keyframes, trial.prompts, [clips[:, :, places].transpose(1, 2)], places)
    kept = psnr(made[:, :, places], clips[:, :, places])
    rates = {
        "all_right": _shows(made, trial.prompts, "color", "shape", "motion"),
        "path": _rate(_near(made, clips)),
    }
    return trial.score(rates, {"keyframes_db": float(kept.mean())}, trial.prompts, made)


def _restyle(trial: _Trial, light: Light) -> ModeScore:
    """The same by another light."""
    other = [replace(prompt, light=light) for prompt in trial.prompts]
    return _remade(replace(trial, say_night=True), other, "light", ("color", "shape"))


def _recolour(trial: _Trial) -> ModeScore:
    """Every object becomes of another colour."""
    colors = list(COLORS)
    other = [replace(p, color=colors[colors.index(p.color) - 1]) for p in trial.prompts]
    return _remade(trial, other, "color", ("shape",))


def _remade(trial: _Trial, wanted: list[ShapesPrompt], changed: str, kept: Sequence[str]) -> ModeScore:
    """Clips restyled to prompts that differ in one attribute: is it there, and is all else as it was?"""
    made = trial.make(restyle, wanted, [trial.clips], sources=trial.captions(trial.prompts))
    near = _near(made, trial.clips)
    same = [
        all(verdict.matches(prompt)[name] for name in kept)
        for verdict, prompt in zip(judge_all(made), wanted, strict=True)
    ]
    rates = {
        "style": _shows(made, wanted, changed),
        "kept": _rate([a and b for a, b in zip(near, same, strict=True)]),
        "kept_" + "_and_".join(kept): _rate(same),
        "kept_path": _rate(near),
    }
    return trial.score(rates, {}, wanted, made)


def _long(trial: _Trial, runs: int, frames: int) -> ModeScore:
    """The object goes to and fro: every extension is asked for the opposite motion of the one before.

    Drift is the share of runs whose object is still the prompt's, piece after piece.
    """
    prompts = trial.prompts[:runs]
    said = [prompt.caption() for prompt in prompts]
    back = [replace(prompt, motion=OPPOSITE[prompt.motion]).caption() for prompt in prompts]
    options = {**trial.options, "seed": trial.seed, "progress": False}
    pieces = long_video_pieces(trial.pipeline, said, context=1, later=(back, said), **options)
    count, example = 0, []  # the pieces of all runs are not kept: memory is measured
    drift, seconds, peak_mib = {}, [], []
    while count < frames:
        start = time.perf_counter()
        piece = next(pieces).cpu()
        seconds.append((time.perf_counter() - start) / piece.shape[2] / len(prompts))
        peak_mib.append(peak_memory_mib())
        count += piece.shape[2]
        example.append(piece[:1].clone())
        same = [_identity(video, 0, prompt) for video, prompt in zip(piece, prompts, strict=True)]
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
    return ModeScore({"identity_at_end": _rate(same)}, numbers, said[0], torch.cat(example, dim=2)[0])


def _shows(videos: Tensor, prompts: Sequence[ShapesPrompt], *attributes: str) -> Rate:
    """How many videos have these attributes of their prompts, all of them."""
    verdicts = [verdict.matches(p) for verdict, p in zip(judge_all(videos), prompts, strict=True)]
    return _rate([all(matches[name] for name in attributes) for matches in verdicts])


def _near(first: Tensor, second: Tensor) -> list[bool]:
    """Which of two rows of videos show the same path."""
    return [_path_distance(a, b) < _SAME_PATH for a, b in zip(first, second, strict=True)]


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
