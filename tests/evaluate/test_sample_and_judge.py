"""A model that draws well scores fully, what it gets wrong is counted and shown, and so is the judge."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from minisora.config import Config
from minisora.data.shapes_world.grammar import ShapesPrompt, parse
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.errors import UserError
from minisora.evaluate.judge.verdict import judge
from minisora.evaluate.likeness import psnr
from minisora.evaluate.prompts import prompt_set
from minisora.evaluate.sample_and_judge import (
    SHOWN,
    Evaluation,
    Judged,
    evaluate_model,
    evaluate_pipeline,
    judge_accuracy,
    worst_of,
    wrong_attributes,
)
from minisora.evaluate.score import Rate
from minisora.models.build import build_dit, build_text_encoder, build_vae
from minisora.pipelines.pipeline import MiniSoraPipeline, VideoOutput

WALL = "a small red square moving left behind a gray wall"
DAY, NIGHT = "a blue circle moving right by day", "a blue circle moving right at night"
HELD_OUT = "a red circle moving left"
PROMPTS = [HELD_OUT, WALL, DAY, NIGHT]


@dataclass
class Coder:
    """A VAE that does one thing to its input."""

    to_latents: Callable[[Tensor], Tensor]
    device = torch.device("cpu")

    def to_video(self, latents: Tensor) -> Tensor:
        return latents


class Painter:
    """A pipeline that draws what `change` makes of the words it is asked for."""

    config = SimpleNamespace(fps=8.0)

    def __init__(
        self,
        change: Callable[[str], str] = lambda text: text,
        code: Callable[[Tensor], Tensor] = lambda video: video,
    ) -> None:
        self.change, self.vae, self.seeds = change, Coder(code), []
        self.calls: list[dict[str, Any]] = []

    def size(self, *asked: int | None) -> tuple[int, ...]:
        return 17, 64, 64

    def check_memory(self, *asked: Any) -> None:
        """It has no activations."""

    def __call__(self, prompt: list[str], *, seed: int, **options: Any) -> VideoOutput:
        self.calls.append({"count": len(prompt), "seed": seed, **options})
        self.seeds += [(text, seed + i) for i, text in enumerate(prompt)]
        prompts = [parse(self.change(text)) for text in prompt]
        return VideoOutput(videos=ShapesWorld(1).render(prompts, seed))


def evaluated(painter: Painter, prompts: list[str] = PROMPTS, **options: Any) -> Evaluation:
    return evaluate_model(painter, prompts, **{"num_checks": 4, **options})  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_judge_is_right_on_what_the_world_draws() -> None:
    score = judge_accuracy(prompt_set("all"), (17, 64, 64), seed=11, num_clips=288)
    names = ("color", "shape", "motion", "all_right", "size", "light", "day", "night", "wall", "permanence")
    totals = {name: getattr(score, name).total for name in names}
    assert totals == dict.fromkeys(names, 288) | {"day": 36, "night": 252, "permanence": 72}
    assert min(getattr(score, name).share for name in names) >= 0.995


def test_a_model_that_draws_well_scores_fully_of_every_kind() -> None:
    evaluation = evaluated(Painter(), batch_size=3)
    score = evaluation.score
    assert (score.all_right, score.permanence, score.day, score.night) == (
        Rate(4, 4),
        Rate(1, 1),
        Rate(1, 1),
        Rate(3, 3),
    )
    assert set(evaluation.kinds) == {"plain", "wall", "light"}
    assert evaluation.kinds["light"].all_right == Rate(2, 2)
    assert score.held_out is not None
    assert score.held_out.all_right == Rate(1, 1)
    assert (evaluation.failures, evaluation.num_failures) == ([], 0)
    assert evaluation.videos is not None
    assert evaluation.videos.shape == (4, 3, 17, 64, 64)


def test_what_a_model_gets_wrong_is_counted_and_shown() -> None:
    evaluation = evaluated(
        Painter(lambda text: text.replace(" behind a gray wall", "").replace("by day", "at night"))
    )
    assert (evaluation.score.permanence, evaluation.score.day, evaluation.score.wall) == (
        Rate(0, 1),
        Rate(0, 1),
        Rate(3, 4),
    )
    assert evaluation.score.night == Rate(3, 3)
    assert [failure.caption for failure in evaluation.failures] == [WALL, DAY]
    assert [failure.wrong for failure in evaluation.failures] == [
        ["wall no", "not permanent"],
        ["light night"],
    ]
    assert evaluation.num_failures == 2


def test_failures_for_the_sheet_are_bounded_and_all_are_counted() -> None:
    always_green = Painter(lambda text: text.replace("red", "green"))
    evaluation = evaluated(always_green, [HELD_OUT] * (SHOWN + 3))
    assert (len(evaluation.failures), evaluation.num_failures) == (SHOWN, SHOWN + 3)


def test_the_worst_are_wrong_then_doubled_then_misshapen(draw: Callable[..., Tensor]) -> None:
    video, prompt = draw(HELD_OUT), parse(HELD_OUT)
    right = judge(video)
    verdicts = {
        "good": right,
        "misshapen": replace(right, overlap=0.7),
        "cut": replace(right, overlap=None),
        "doubled": replace(right, second=0.5),
        "wrong": replace(right, color="blue"),
    }
    clips = [Judged(name, prompt, verdict, video) for name, verdict in verdicts.items()]
    worst = worst_of(clips * 3)
    assert [clip.caption for clip in worst] == ["wrong"] * 3 + ["doubled"] * 3 + ["cut"] * 3 + ["misshapen"]
    assert clips[1].line() == "misshapen | not whole; overlap 0.70"
    assert clips[2].line() == "cut | not whole; overlap not told"
    assert "second object in 50% of the frames" in clips[3].line()
    assert clips[4].line().endswith("seen: color blue")


def test_more_samples_per_prompt_leave_the_first_ones_as_they_are() -> None:
    once, thrice = Painter(), Painter()
    evaluated(once, seed=5)
    evaluation = evaluated(thrice, seed=5, samples_per_prompt=3, batch_size=5)
    assert thrice.seeds[:4] == once.seeds
    assert len(set(thrice.seeds)) == 12
    assert evaluation.score.color == Rate(12, 12)


def test_the_judge_is_measured_on_what_the_models_own_vae_makes_of_rendered_clips() -> None:
    evaluation = evaluated(Painter(code=torch.zeros_like), num_checks=7)  # a VAE that forgets everything
    assert evaluation.rendered.color.share == 1
    assert evaluation.reconstructed is not None
    assert evaluation.reconstructed.color == Rate(0, 8)  # each of the four prompts equally often


def test_it_is_json_and_a_table() -> None:
    evaluation = evaluated(Painter(lambda text: text.replace("red", "green")))
    written = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert written["score"]["color"] | {"interval": 0} == {
        "right": 2,
        "total": 4,
        "share": 0.5,
        "interval": 0,
    }
    assert written["clips"][0]["wrong"] == ["color green"]
    assert written["judge"]["rendered"]["permanence"]["share"] == 1
    console = Console(width=110)
    with console.capture() as printed:
        console.print(evaluation.table())
    text = printed.get()
    for word in ("permanence", "2/4 50.0%", "15 to 85 %", "held-out", "second blob", "light named"):
        assert word in text


def test_wrong_attributes_are_said_in_words(draw: Callable[..., Tensor]) -> None:
    verdict = judge(torch.full((3, 9, 64, 64), -0.9))
    assert wrong_attributes(verdict, ShapesPrompt("red", "circle", "left", wall=True)) == [
        "color not told",
        "shape not told",
        "motion not told",
        "size not told",
        "wall no",
        "not permanent",
    ]
    assert wrong_attributes(judge(draw(HELD_OUT)), parse(HELD_OUT)) == []


def test_seeds_and_options_reach_the_pipeline_whatever_the_batch_size() -> None:
    painter = Painter()
    videos, verdicts, _ = evaluate_pipeline(painter, PROMPTS[:3], seed=5, batch_size=2, steps=7, guidance=2.0)  # type: ignore[arg-type]
    assert (len(videos), len(verdicts)) == (3, 3)
    assert [(call["count"], call["seed"]) for call in painter.calls] == [(2, 5), (1, 7)]
    assert painter.calls[0]["num_inference_steps"] == 7
    assert painter.calls[0]["guidance_scale"] == 2.0


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
    text = build_text_encoder(config, PROMPTS[:3])
    pipeline = MiniSoraPipeline.build(config, build_vae(config), build_dit(config, 16), text)
    prompts = [parse(text) for text in PROMPTS[:3]]
    videos, verdicts, score = evaluate_pipeline(pipeline, prompts, batch_size=2, steps=1, guidance=1.0)
    assert videos.shape == (3, 3, 5, 32, 32)
    assert len(verdicts) == 3
    assert score.all_right == Rate(0, 3)  # an untrained model draws nothing


def test_psnr_of_a_known_error_per_clip() -> None:
    video = torch.zeros(3, 3, 2, 8, 8)
    other = video + torch.tensor([0.2, 0.02, 0.0]).view(3, 1, 1, 1, 1)
    values = psnr(video, other)  # 10 log10(2^2 / 0.2^2) = 20
    torch.testing.assert_close(values[:2], torch.tensor([20.0, 40.0]))
    assert values[2] == torch.inf


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="samples_per_prompt = 0"):
        evaluated(Painter(), samples_per_prompt=0)
    with pytest.raises(UserError, match="no prompt"):
        evaluated(Painter(), [])
    with pytest.raises(UserError, match="no caption"):
        judge_accuracy([], (17, 64, 64))
    with pytest.raises(UserError, match="not of the shapes world"):
        evaluated(Painter(), ["a cat"])
    with pytest.raises(UserError, match="batch_size = 0"):
        evaluated(Painter(), batch_size=0)
    with pytest.raises(UserError, match=r"\(1, 3, 2, 8, 8\) and \(1, 3, 3, 8, 8\)"):
        psnr(torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 3, 8, 8))
