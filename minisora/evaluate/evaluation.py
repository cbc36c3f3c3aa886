"""A model, or videos with captions, evaluated: what is right, how sure that is, and how far to trust the judge.

evaluation = evaluate_model(load_pipeline("runs/demo/model"), prompt_set("all"))
evaluation.score.permanence  # Rate(right=31, total=36), with its interval
evaluation.rendered.permanence  # the same prompts drawn by the world itself: what the judge gets right
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group
from torch import Tensor

from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import ATTRIBUTES, Verdict, judge_all
from minisora.evaluate.prompts import KINDS, Kind, kind_of
from minisora.evaluate.sample_and_judge import evaluate_pipeline, reconstruct
from minisora.evaluate.score import Score
from minisora.evaluate.tables import quality_table, score_table
from minisora.limits import MAX_COUNT, check_number
from minisora.pipelines.pipeline import MiniSoraPipeline

CHECKS = 144  # rendered clips, at least, that the judge's own accuracy is measured on
SHOWN = 24  # failures that are kept for the contact sheet


@dataclass(frozen=True)
class Failure:
    """A clip that is not what its prompt says."""

    caption: str
    wrong: list[str]  # what is seen instead: "shape square"
    video: Tensor  # 3 T H W in [-1, 1]


@dataclass
class Evaluation:
    """Everything that was found; clip i is the video of `captions[i]`."""

    captions: list[str]
    verdicts: list[Verdict]
    score: Score
    kinds: dict[Kind, Score]  # the same apart by what the prompts test
    rendered: Score  # the judge's own accuracy: the same prompts as the world draws them
    reconstructed: Score | None  # the same after the model's VAE; None without a model
    failures: list[Failure]  # the first `SHOWN`
    num_failures: int
    files: list[str] | None = None  # of the clips, where they came from files
    skipped: list[str] = field(default_factory=list)  # files that were not judged, each with the reason
    settings: dict[str, Any] = field(default_factory=dict)  # what it takes to repeat this
    videos: Tensor | None = None  # B 3 T H W in [-1, 1], a model's samples

    def table(self) -> Group:
        """Shares and their intervals, and the measures without right or wrong, for a terminal."""
        scores = (self.score, self.rendered, self.reconstructed)
        return Group(score_table(*scores, self.kinds), quality_table(*scores))

    def to_dict(self) -> dict[str, Any]:
        """All but the pixels, ready for JSON."""
        clips = []
        for number, (caption, verdict) in enumerate(zip(self.captions, self.verdicts, strict=True)):
            name = {} if self.files is None else {"file": self.files[number]}
            wrong = wrong_attributes(verdict, parse(caption))
            clips.append({**name, "prompt": caption, "wrong": wrong, "verdict": asdict(verdict)})
        return {
            "settings": self.settings,
            "score": self.score.to_dict(),
            "kinds": {kind: score.to_dict() for kind, score in self.kinds.items()},
            "judge": {
                "rendered": self.rendered.to_dict(),
                "reconstructed": self.reconstructed.to_dict() if self.reconstructed else None,
            },
            "num_failures": self.num_failures,
            "skipped": self.skipped,
            "clips": clips,
        }


def evaluate_model(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    *,
    samples_per_prompt: int = 1,
    seed: int = 0,
    batch_size: int = 8,
    steps: int | None = None,
    guidance: float | None = None,
    num_checks: int = CHECKS,
    on_progress: Callable[[float, int], None] | None = None,
) -> Evaluation:
    """Sample prompts and judge the videos, and the judge on clips of the same prompts that are surely right.

    Args:
        pipeline: a model of the shapes world.
        prompts: captions of the grammar, such as `prompt_set("all")`.
        samples_per_prompt: sample k of prompt i starts from the noise of seed + k len(prompts) + i: the first
            samples are the same however many are asked for.
        seed: of the noise.
        batch_size: prompts sampled at a time.
        steps, guidance: of sampling; the model's own by default.
        num_checks: the judge's own accuracy is measured on at least so many rendered clips.
        on_progress: called after every sampling step with (videos done, videos in all).

    Raises:
        UserError: a prompt is not of the shapes world, or a number is out of its range.
    """
    check_number("samples_per_prompt", samples_per_prompt, 1, MAX_COUNT)
    captions = list(prompts) * samples_per_prompt
    videos, verdicts, score = evaluate_pipeline(
        pipeline,
        captions,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        guidance=guidance,
        on_progress=on_progress,
    )
    size = (videos.shape[2], videos.shape[3], videos.shape[4])
    failures, num_failures = _failures(captions, verdicts, videos)
    return Evaluation(
        captions=captions,
        verdicts=verdicts,
        score=score,
        kinds=score_kinds(captions, verdicts),
        rendered=judge_accuracy(prompts, size, num_clips=num_checks, fps=pipeline.config.fps),
        reconstructed=judge_accuracy(
            prompts,
            size,
            num_clips=num_checks,
            fps=pipeline.config.fps,
            degrade=lambda clips: reconstruct(pipeline.vae, clips, batch_size),
        ),
        failures=failures,
        num_failures=num_failures,
        settings={
            "samples_per_prompt": samples_per_prompt,
            "seed": seed,
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "size": list(size),
        },
        videos=videos,
    )


def judge_accuracy(
    captions: Sequence[str],
    size: tuple[int, int, int],
    *,
    seed: int = 0,
    num_clips: int = CHECKS,
    fps: float = 8.0,
    degrade: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 16,
) -> Score:
    """The score that the world's own clips get: everything in them is right, so what is missing is the judge.

    Args:
        captions: rendered in turn, each equally often.
        size: (frames, height, width) of the clips.
        seed: of what the captions leave open.
        num_clips: at least so many are rendered.
        fps: frames a second of the clips.
        degrade: makes B 3 T H W worse before it is judged, such as a VAE's reconstruction.
        batch_size: clips rendered and degraded at a time.

    Raises:
        UserError: a caption is not of the shapes world, there is none, or the size cannot be drawn.
    """
    once = [parse(caption) for caption in captions]
    if not once:
        raise UserError("no caption to validate the judge on: pass at least one")
    frames, height, width = size
    world = ShapesWorld(1, frames=frames, height=height, width=width, fps=fps)
    prompts = once * math.ceil(num_clips / len(once))
    verdicts: list[Verdict] = []
    for number, start in enumerate(range(0, len(prompts), batch_size)):
        clips = world.render(prompts[start : start + batch_size], seed + number)
        verdicts += judge_all(degrade(clips) if degrade else clips)
    return Score.of(verdicts, prompts)


def score_kinds(captions: Sequence[str], verdicts: Sequence[Verdict]) -> dict[Kind, Score]:
    """The scores of plain, wall and light prompts apart, those that there are."""
    parts: dict[Kind, Score] = {}
    for kind in KINDS:
        pairs = [(v, parse(c)) for c, v in zip(captions, verdicts, strict=True) if kind_of(c) == kind]
        if pairs:
            parts[kind] = Score.of([verdict for verdict, _ in pairs], [prompt for _, prompt in pairs])
    return parts


def wrong_attributes(verdict: Verdict, prompt: ShapesPrompt) -> list[str]:
    """What a clip shows instead of what was asked for, such as `["shape square"]`; empty where all is right."""
    matches = verdict.matches(prompt)
    wrong = [f"{name} {_word(getattr(verdict, name))}" for name in ATTRIBUTES if not matches[name]]
    if prompt.wall and verdict.permanence is not True:
        wrong.append("not permanent")
    return wrong


def _word(value: str | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not told" if value is None else value


def _failures(
    captions: Sequence[str], verdicts: Sequence[Verdict], videos: Tensor
) -> tuple[list[Failure], int]:
    """The first failures, and how many there are."""
    found = [
        Failure(caption, wrong, video)
        for caption, verdict, video in zip(captions, verdicts, videos, strict=True)
        if (wrong := wrong_attributes(verdict, parse(caption)))
    ]
    return found[:SHOWN], len(found)
