"""Models judged: a real tiny pipeline runs, one that draws well scores fully, a mild blur keeps shapes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from minisora.config import Config
from minisora.data.clips import to_float
from minisora.data.shapes_world.grammar import parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.sample_and_judge import evaluate_pipeline, survival
from minisora.evaluate.score import Rate
from minisora.models.build import build_dit, build_text_encoder, build_vae
from minisora.models.vae import VideoVAE
from minisora.pipelines.pipeline import MiniSoraPipeline, VideoOutput

PROMPTS = ["a red square moving left", "a blue triangle moving up", "a small green circle standing still"]


@dataclass
class Painter:
    """A pipeline that draws what it is asked for, but everything in red if `sloppy`."""

    sloppy: bool = False
    calls: list[dict[str, Any]] = field(default_factory=list)

    def size(self, *asked: int | None) -> tuple[int, ...]:
        return 17, 64, 64

    def check_memory(self, *asked: Any) -> None:
        """It has no activations."""

    def __call__(self, prompt: list[str], *, seed: int, **options: Any) -> VideoOutput:
        self.calls.append({"count": len(prompt), "seed": seed, **options})
        words = [text.replace("blue", "red") if self.sloppy else text for text in prompt]
        return VideoOutput(videos=ShapesWorld(1).render([parse(text) for text in words], seed))


@dataclass
class Coder:
    """A VAE that does one thing to its input."""

    to_latents: Callable[[Tensor], Tensor]
    device = torch.device("cpu")

    def to_video(self, latents: Tensor) -> Tensor:
        return latents


def test_a_pipeline_that_draws_well_scores_fully_whatever_the_batch_size() -> None:
    painter = Painter()
    videos, verdicts, score = evaluate_pipeline(painter, PROMPTS, seed=5, batch_size=2, steps=7, guidance=2.0)  # type: ignore[arg-type]
    assert videos.shape == (3, 3, 17, 64, 64)
    assert len(verdicts) == 3
    assert score.all_right == Rate(3, 3)
    assert [(call["count"], call["seed"]) for call in painter.calls] == [(2, 5), (1, 7)]
    assert painter.calls[0]["num_inference_steps"] == 7
    assert painter.calls[0]["guidance_scale"] == 2.0


def test_a_wrong_color_is_counted() -> None:
    _, _, score = evaluate_pipeline(Painter(sloppy=True), PROMPTS)  # type: ignore[arg-type]
    assert (score.color, score.shape, score.all_right) == (Rate(2, 3), Rate(3, 3), Rate(2, 3))


def test_a_real_tiny_pipeline_runs() -> None:
    config = Config.model_validate(
        {
            "clip": {"frames": 5, "height": 32, "width": 32},
            "vae": {"latent_channels": 4, "widths": [8, 8], "blocks_per_level": 1},
            "dit": {"width": 24, "depth": 1, "heads": 2},
            "text": {"width": 16, "depth": 1, "heads": 2},
        }
    )
    torch.manual_seed(0)
    text = build_text_encoder(config, PROMPTS)
    pipeline = MiniSoraPipeline.build(config, build_vae(config), build_dit(config, 16), text)
    prompts = [parse(text) for text in PROMPTS]
    videos, verdicts, score = evaluate_pipeline(pipeline, prompts, batch_size=2, steps=1, guidance=1.0)
    assert videos.shape == (3, 3, 5, 32, 32)
    assert len(verdicts) == 3
    assert score.all_right == Rate(0, 3)  # an untrained model draws nothing


def test_survival_counts_what_a_vae_keeps(blurred: Callable[[Tensor, float], Tensor]) -> None:
    world = ShapesWorld(8, seed=2)
    clips, captions = to_float(world.clips(range(8))), world.captions()
    kept = survival(Coder(lambda video: blurred(video, 1.0)), clips, captions, batch_size=3)  # type: ignore[arg-type]
    assert (kept.color, kept.shape, kept.both) == (Rate(8, 8),) * 3
    assert 20 < kept.psnr < 40
    lost = survival(Coder(torch.zeros_like), clips, captions)  # type: ignore[arg-type]
    assert lost.both == Rate(0, 8)
    torch.manual_seed(0)
    fresh = VideoVAE(latent_channels=4, widths=(8, 8), blocks_per_level=1)
    assert survival(fresh, clips[:2], captions[:2]).shape == Rate(0, 2)


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="not of the shapes world"):
        evaluate_pipeline(Painter(), ["a cat"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no prompt"):
        evaluate_pipeline(Painter(), [])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch_size = 0"):
        evaluate_pipeline(Painter(), PROMPTS, batch_size=0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="2 clips and 1 prompts"):
        survival(Coder(torch.zeros_like), torch.zeros(2, 3, 5, 32, 32), PROMPTS[:1])  # type: ignore[arg-type]
