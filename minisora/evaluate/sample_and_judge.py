"""Judge a model: videos of a pipeline against their prompts, and shapes after a VAE's reconstruction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.errors import UserError
from minisora.evaluate.fidelity import psnr
from minisora.evaluate.judge.verdict import Verdict, judge_all
from minisora.evaluate.score import Rate, Score
from minisora.limits import MAX_COUNT, check_number, check_seed, seed_after
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline


@dataclass(frozen=True)
class Survival:
    """What of the clips' objects is still judged right after a VAE has coded and decoded them."""

    color: Rate
    shape: Rate
    both: Rate
    psnr: float  # dB, mean over the clips

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        rates = {name: getattr(self, name).to_dict() for name in ("color", "shape", "both")}
        return {**rates, "psnr": self.psnr}


def evaluate_pipeline(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str | ShapesPrompt],
    seed: int = 0,
    batch_size: int = 8,
    steps: int | None = None,
    guidance: float | None = None,
    progress: bool = False,
    on_progress: Callable[[float, int], None] | None = None,
    size: tuple[int, int, int] | None = None,
    **options: Any,
) -> tuple[Tensor, list[Verdict], Score]:
    """Sample one video per prompt and judge it.

    Args:
        pipeline: a model of the shapes world.
        prompts: captions of the grammar, or their fields.
        seed: prompt i starts from the noise of seed + i, whatever the batch size.
        batch_size: prompts sampled at a time.
        steps, guidance: of sampling; the model's own by default.
        progress: show a bar per batch.
        on_progress: called after every sampling step with (videos done, videos in all); the first is a
            fraction within a batch, so that the time left is known soon.
        size: (frames, height, width); as trained by default.
        options: further ones of the pipeline.

    Returns:
        Videos B 3 T H W in [-1, 1] on the CPU, a verdict each, and the score of all.

    Raises:
        UserError: a prompt is not of the shapes world, or the pipeline cannot sample it.
    """
    check_number("batch_size", batch_size, 1, MAX_COUNT)
    check_seed(seed)
    wanted = [parse(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    captions = [prompt if isinstance(prompt, str) else prompt.caption() for prompt in prompts]
    if not wanted:
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
            progress=progress,
            callback_on_step_end=_after_step(pipeline, start, len(part), len(captions), on_progress),
            num_frames=frames,
            height=height,
            width=width,
            **options,
        )
        batches.append(output.videos.float().cpu())
    videos = torch.cat(batches)
    verdicts = judge_all(videos)
    return videos, verdicts, Score.of(verdicts, wanted)


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
    """Clips `B 3 T H W` in [-1, 1] after the VAE has coded and decoded them, on the CPU."""
    return torch.cat(
        [vae.to_video(vae.to_latents(part.to(vae.device))).float().cpu() for part in clips.split(batch_size)]
    )


def survival(
    vae: VideoVAE, clips: Tensor, prompts: Sequence[str | ShapesPrompt], batch_size: int = 8
) -> Survival:
    """How many objects keep their judged colour and shape through a VAE.

    Args:
        vae: in evaluation mode; it is called on its own device.
        clips: `B 3 T H W` in [-1, 1], of the shapes world.
        prompts: what they show, captions or fields.
        batch_size: clips coded at a time.

    Raises:
        UserError: there are not as many prompts as clips, or none.
    """
    wanted = [parse(prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    if len(wanted) != len(clips) or not wanted:
        raise UserError(f"{len(clips)} clips and {len(wanted)} prompts: one prompt per clip is needed")
    back = reconstruct(vae, clips, batch_size)
    matches = [verdict.matches(prompt) for verdict, prompt in zip(judge_all(back), wanted, strict=True)]
    count = len(matches)
    return Survival(
        color=Rate(sum(match["color"] for match in matches), count),
        shape=Rate(sum(match["shape"] for match in matches), count),
        both=Rate(sum(match["color"] and match["shape"] for match in matches), count),
        psnr=float(psnr(clips.cpu(), back).mean()),
    )
