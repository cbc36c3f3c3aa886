"""What modes are tried on, and the measures of what they make: rendered clips of prompts, whose truth is known."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minisora.data.shapes_world.grammar import ShapesPrompt
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.evaluate.judge.motion import observe
from minisora.evaluate.judge.verdict import judge, judge_all
from minisora.evaluate.score import Rate
from minisora.flow.denoise import SampleSettings
from minisora.limits import seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline

_EXAMPLE = 5  # which prompt's video is shown
_SAME_PATH = 0.06  # of the short side: two paths are one if their centres lie nearer on average


@dataclass(frozen=True)
class ModeScore:
    """What was found of one mode: shares with their counts, plain numbers, and one of the videos."""

    rates: dict[str, Rate]
    numbers: dict[str, float]
    caption: str  # of the example
    example: Tensor  # 3 T H W in [-1, 1], always of the same prompt: not chosen

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, ready for JSON; null for a number that nothing was seen of."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {**{name: rate.to_dict() for name, rate in self.rates.items()}, **numbers}


@dataclass(frozen=True)
class Trial:
    """What every mode is tried on."""

    pipeline: MiniSoraPipeline
    prompts: list[ShapesPrompt]  # B
    clips: Tensor  # B 3 T H W, one of each prompt
    batch_size: int
    seed: int
    settings: SampleSettings
    say_night: bool = False  # in captions; left out, night is what the world means

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
        """Frames that a latent frame codes, but for the first one's single frame."""
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
            settings = replace(self.settings, seed=seed_after(self.seed, start), progress=False)
            chosen = {**options, "settings": settings}
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


def shows(videos: Tensor, prompts: Sequence[ShapesPrompt], *attributes: str) -> Rate:
    """How many videos have these attributes of their prompts, all of them."""
    verdicts = [verdict.matches(p) for verdict, p in zip(judge_all(videos), prompts, strict=True)]
    return rate([all(matches[name] for name in attributes) for matches in verdicts])


def near_paths(made: Tensor, real: Tensor) -> list[bool]:
    """Which of two rows of videos show the same path."""
    return [path_distance(a, b) < _SAME_PATH for a, b in zip(made, real, strict=True)]


def rate(flags: Sequence[bool]) -> Rate:
    """How many are true."""
    return Rate(sum(bool(flag) for flag in flags), len(flags))


def _centers(video: Tensor) -> np.ndarray:
    """The object's centre in every frame, T 2 in pixels; NaN where it is not seen."""
    found = observe(video).object
    return np.full((video.shape[1], 2), np.nan) if found is None else found.centers


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


def path_distance(made: Tensor, real: Tensor) -> float:
    """Mean distance of the two objects' centres over the frames that show the real one, as a share of the short side.

    Infinite where the other is not seen in all of them.
    """
    apart = np.linalg.norm(_centers(made) - _centers(real), axis=1)[~np.isnan(_centers(real)[:, 0])]
    if not len(apart) or np.isnan(apart).any():
        return math.inf
    return float(apart.mean()) / min(real.shape[2:])
