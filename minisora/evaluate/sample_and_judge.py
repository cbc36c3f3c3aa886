"""Sample prompts from a model and judge the videos: what is right, how sure that is, and how far to trust the judge.

evaluation = evaluate_model(load_pipeline("runs/demo/model"), prompt_set("all"))
evaluation.score.permanence     # Rate(right=31, total=36), with its interval
evaluation.rendered.permanence  # the same prompts as the world draws them: what the judge gets right
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from rich.console import Group
from torch import Tensor

from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import ATTRIBUTES, MOST_SECOND, Verdict, judge_all
from minisora.evaluate.prompts import KINDS, Kind, kind_of
from minisora.evaluate.score import Score, quality_table, score_table
from minisora.limits import MAX_COUNT, check_number, check_seed, seed_after
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline

# Rendered clips, at least, that the judge's own accuracy is measured on.
CHECKS = 144
# Failures that are kept for the contact sheet, and clips for that of the worst.
SHOWN = 24
NUM_WORST = 10


@dataclass(frozen=True)
class Failure:
    """A clip that is not what its prompt says."""

    caption: str
    wrong: list[str]  # what the clip shows instead, such as "shape square"
    video: Tensor  # 3 T H W in [-1, 1]


@dataclass(frozen=True)
class Judged:
    """A clip beside its verdict."""

    caption: str
    prompt: ShapesPrompt
    verdict: Verdict
    video: Tensor  # 3 T H W in [-1, 1]

    @property
    def goodness(self) -> tuple[bool, bool, float]:
        """The lowest is the worst: what is not right in colour, shape or motion, then second objects, then overlap."""
        verdict = self.verdict
        return verdict.all_right(self.prompt), verdict.second <= MOST_SECOND, verdict.overlap or 0.0

    def line(self) -> str:
        """Caption, and what the judge has against it."""
        verdict = self.verdict
        wrong = wrong_attributes(verdict, self.prompt)
        overlap = "not told" if verdict.overlap is None else f"{verdict.overlap:.2f}"
        parts = [
            "whole" if verdict.whole(self.prompt) else "not whole",
            f"overlap {overlap}",
            *([f"second object in {verdict.second:.0%} of the frames"] if verdict.second else []),
            *([f"seen: {', '.join(wrong)}"] if wrong else []),
        ]
        return f"{self.caption} | {'; '.join(parts)}"


@dataclass
class Evaluation:
    """The result of judging videos; clip i is the video of `captions[i]`."""

    captions: list[str]
    verdicts: list[Verdict]
    rendered: Score  # the judge's own accuracy: the same prompts as the world draws them
    reconstructed: Score | None  # the same after the model's VAE; None without a model
    failures: list[Failure]  # the first `SHOWN`
    worst: list[Judged]  # the worst `NUM_WORST`, right or not, the worst first
    files: list[str] | None = None  # of the clips, where they came from files
    skipped: list[str] = field(default_factory=list)  # files that were not judged, each with the reason
    settings: dict[str, Any] = field(default_factory=dict)  # what it takes to repeat this
    videos: Tensor | None = None  # B 3 T H W in [-1, 1], a model's samples

    @cached_property
    def score(self) -> Score:
        """The score of all clips."""
        return Score.of(self.verdicts, [parse(caption) for caption in self.captions])

    @cached_property
    def kinds(self) -> dict[Kind, Score]:
        """The score of each kind of prompt that occurs: plain, wall, light."""
        pairs = list(zip(self.captions, self.verdicts, strict=True))
        parts = {kind: [pair for pair in pairs if kind_of(pair[0]) == kind] for kind in KINDS}
        return {
            kind: Score.of([verdict for _, verdict in part], [parse(caption) for caption, _ in part])
            for kind, part in parts.items()
            if part
        }

    @cached_property
    def wrong(self) -> list[list[str]]:
        """Of each clip the attributes that differ from its prompt, as in `wrong_attributes`."""
        pairs = zip(self.verdicts, self.captions, strict=True)
        return [wrong_attributes(verdict, parse(caption)) for verdict, caption in pairs]

    @property
    def num_failures(self) -> int:
        """Clips that differ from their prompt in something."""
        return sum(map(bool, self.wrong))

    def table(self) -> Group:
        """Shares with their intervals, and the measures without right or wrong."""
        scores = (self.score, self.rendered, self.reconstructed)
        return Group(score_table(*scores, self.kinds), quality_table(*scores))

    def to_dict(self) -> dict[str, Any]:
        """For JSON: all but the pixels."""
        names = [{}] * len(self.captions) if self.files is None else [{"file": file} for file in self.files]
        rows = zip(names, self.captions, self.wrong, self.verdicts, strict=True)
        clips = [
            {
                **name,
                "prompt": text,
                "wrong": wrong,
                "whole": v.whole(parse(text)),
                "verdict": asdict(v),
            }
            for name, text, wrong, v in rows
        ]
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
        samples_per_prompt: samples of each prompt; sample k of prompt i starts from the noise of
            seed + k len(prompts) + i, so that the first samples are the same however many are asked for.
        seed: seed of the noise.
        batch_size: prompts sampled at a time.
        steps: sampling steps; the model's own by default.
        guidance: guidance scale; the model's own by default.
        num_checks: rendered clips, at least, that the judge's own accuracy is measured on.
        on_progress: called after every sampling step with (videos done, videos in all).

    Raises:
        UserError: a prompt is not of the shapes world, or a number is out of its range.
    """
    check_number("samples_per_prompt", samples_per_prompt, 1, MAX_COUNT)
    captions = list(prompts) * samples_per_prompt
    videos, verdicts, _ = evaluate_pipeline(
        pipeline,
        captions,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        guidance=guidance,
        on_progress=on_progress,
    )
    size = (videos.shape[2], videos.shape[3], videos.shape[4])
    evaluation = Evaluation(
        captions=captions,
        verdicts=verdicts,
        rendered=judge_accuracy(prompts, size, num_clips=num_checks, fps=pipeline.config.fps),
        reconstructed=judge_accuracy(
            prompts,
            size,
            num_clips=num_checks,
            fps=pipeline.config.fps,
            degrade=lambda clips: reconstruct(pipeline.vae, clips, batch_size),
        ),
        failures=[],
        worst=[],
        settings={
            "samples_per_prompt": samples_per_prompt,
            "seed": seed,
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "size": list(size),
        },
        videos=videos,
    )
    rows = zip(captions, evaluation.wrong, videos, strict=True)
    evaluation.failures = [Failure(*row) for row in rows if row[1]][:SHOWN]
    judged = zip(captions, map(parse, captions), verdicts, videos, strict=True)
    evaluation.worst = worst_of([Judged(*row) for row in judged])
    return evaluation


def worst_of(clips: list[Judged]) -> list[Judged]:
    """The worst `NUM_WORST`, the worst first; of equals the earlier."""
    return sorted(clips, key=lambda clip: clip.goodness)[:NUM_WORST]


def evaluate_pipeline(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str | ShapesPrompt],
    seed: int = 0,
    batch_size: int = 8,
    steps: int | None = None,
    guidance: float | None = None,
    on_progress: Callable[[float, int], None] | None = None,
    size: tuple[int, int, int] | None = None,
    **options: Any,
) -> tuple[Tensor, list[Verdict], Score]:
    """Sample one video per prompt and judge it.

    Args:
        pipeline: a model of the shapes world.
        prompts: captions of the grammar, or their fields.
        seed: seed of the noise: prompt i starts from the noise of seed + i, whatever the batch size.
        batch_size: prompts sampled at a time.
        steps: sampling steps; the model's own by default.
        guidance: guidance scale; the model's own by default.
        on_progress: called after every sampling step with (videos done, videos in all); the first is a
            fraction within a batch, so that the time left is known soon.
        size: (frames, height, width) of the videos; as trained by default.
        options: further options of the pipeline.

    Returns:
        Videos B 3 T H W in [-1, 1] on the CPU, a verdict each, and the score of all.

    Raises:
        UserError: a prompt is not of the shapes world, or the pipeline cannot sample it.
    """
    check_number("batch_size", batch_size, 1, MAX_COUNT)
    check_seed(seed)
    parsed = [parse(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    captions = [prompt if isinstance(prompt, str) else prompt.caption() for prompt in prompts]
    if not parsed:
        raise UserError("no prompt to evaluate: pass at least one, such as 'a red circle moving left'")
    frames, height, width = size or (None, None, None)
    pipeline.check_memory(len(captions), pipeline.size(frames, height, width), torch.device("cpu"))
    batches = []
    for start in range(0, len(captions), batch_size):
        part = captions[start : start + batch_size]
        output = pipeline(
            part,
            seed=seed_after(seed, start),
            num_inference_steps=steps,
            guidance_scale=guidance,
            progress=False,
            callback_on_step_end=_after_step(pipeline, start, len(part), len(captions), on_progress),
            num_frames=frames,
            height=height,
            width=width,
            **options,
        )
        batches.append(output.videos.float().cpu())
    videos = torch.cat(batches)
    verdicts = judge_all(videos)
    return videos, verdicts, Score.of(verdicts, parsed)


def _after_step(
    pipeline: MiniSoraPipeline,
    done: int,
    count: int,
    total: int,
    on_progress: Callable[[float, int], None] | None,
) -> Callable[[int, float, Tensor], None] | None:
    if on_progress is None:
        return None
    return lambda step, sigma, latents: on_progress(
        done + count * (step + 1) / len(pipeline.scheduler.timesteps), total
    )


@torch.no_grad()
def reconstruct(vae: VideoVAE, clips: Tensor, batch_size: int = 8) -> Tensor:
    """Clips `B 3 T H W` in [-1, 1] after the VAE has encoded and decoded them, on the CPU."""
    return torch.cat(
        [vae.to_video(vae.to_latents(part.to(vae.device))).float().cpu() for part in clips.split(batch_size)]
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
    """The score that the world's own clips get: all of them are right, so every miss is the judge's.

    Args:
        captions: captions to render in turn, each equally often.
        size: (frames, height, width) of the clips.
        seed: seed of what the captions leave open.
        num_clips: clips rendered, at least.
        fps: frames a second of the clips.
        degrade: makes clips B 3 T H W worse before they are judged, such as a VAE's reconstruction.
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


def wrong_attributes(verdict: Verdict, prompt: ShapesPrompt) -> list[str]:
    """Attributes of a clip that differ from its prompt, such as `["shape square"]`; empty where all is right."""
    matches = verdict.matches(prompt)
    wrong = [f"{name} {_word(getattr(verdict, name))}" for name in ATTRIBUTES if not matches[name]]
    if prompt.wall and verdict.permanence is not True:
        wrong.append("not permanent")
    return wrong


def _word(value: str | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not told" if value is None else value
