"""Training of a VAE against a discriminator: the arithmetic against counted passes of a small one built here."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner

from minisora.cli import app
from minisora.config import load
from minisora.errors import UserError
from minisora.flops.count_torch import count_forward, count_step
from minisora.models.build import build_vae
from minisora.plan import vae_training
from minisora.plan.answer import plan
from minisora.plan.blocks import WAN_DECODER
from minisora.plan.question import Question, ask, card_named
from minisora.plan.subject import named, of_size
from minisora.plan.vae_training import DISCRIMINATOR_PARAMS, SMALLEST_SIDE, discriminator_macs, vae_spend

FRAMES, HEIGHT, WIDTH = 5, 48, 40


def discriminator() -> nn.Module:
    """A PatchGAN over frames, written out: no memory."""
    layers: list[nn.Module] = []
    for i, (into, out, stride) in enumerate(vae_training.CONVOLUTIONS):
        ends = i in (0, len(vae_training.CONVOLUTIONS) - 1)
        layers.append(nn.Conv2d(into, out, 4, stride, 1, bias=ends))
        layers += [nn.BatchNorm2d(out)] if not ends else []
        layers += [nn.LeakyReLU(0.2)] if out > 1 else []
    return nn.Sequential(*layers).to("meta")


def asked(**changes: Any) -> Question:
    settings = {"frames": 17, "size": (256, 256), **changes}
    return ask(named("wan 14b"), card=card_named("h100 sxm"), vae=True, **settings)


def numbers(question: Question) -> dict[str, float]:
    found = vae_spend(question.subject, question.inputs(0.3, 0.3, 0.05))
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("size", [(24, 24), (31, 57), (256, 256)])
def test_a_pass_of_the_discriminator_is_what_is_counted(size: tuple[int, int]) -> None:
    judge = discriminator()
    assert sum(p.numel() for p in judge.parameters()) == DISCRIMINATOR_PARAMS
    counted = count_forward(lambda: judge(torch.empty(1, 3, *size, device="meta")))
    assert 2 * sum(map(float, discriminator_macs(*size))) == counted


def test_a_step_is_what_is_counted() -> None:
    """Of our own VAE, whose first convolution needs no gradient of the clip."""
    config = load("toy")
    vae, judge = build_vae(config).to("meta"), discriminator()
    clip = torch.empty(1, 3, FRAMES, HEIGHT, WIDTH, device="meta")

    def frames(video: Tensor) -> Tensor:
        return video.transpose(1, 2).flatten(0, 1)

    def coded() -> Tensor:
        return vae.decode(vae.encode(clip).mean)

    def learn_to_code() -> Tensor:
        judge.requires_grad_(False)
        video = coded()
        return (video - clip).abs().mean() - judge(frames(video)).mean()

    def learn_to_judge() -> Tensor:
        judge.requires_grad_(True)
        fake = torch.empty_like(clip)
        return F.relu(1 - judge(frames(clip))).mean() + F.relu(1 + judge(frames(fake))).mean()

    alone = count_step(lambda: (coded() - clip).abs().mean()).train_flops
    with_it = count_step(learn_to_code).train_flops + count_step(learn_to_judge).train_flops
    forward = count_forward(coded)
    pixels = FRAMES * HEIGHT * WIDTH
    question = asked()
    coder = replace(WAN_DECODER, encode_macs_per_pixel=0.0, macs_per_pixel=forward / 2 / pixels)
    inputs = question.inputs(0.3, 0.3, 0.05)
    inputs |= {"clip.frames": float(FRAMES), "clip.height": float(HEIGHT), "clip.width": float(WIDTH)}
    told = vae_spend(replace(question.subject, decoder=coder), inputs)
    assert float(told["discriminator_flops"]) == with_it - alone
    assert float(told["train_flops"]) == pytest.approx(with_it, rel=0.01)


def test_clips_are_shared_by_no_cards_and_weights_by_all() -> None:
    one, eight = numbers(asked()), numbers(asked(cards=8))
    assert eight["train_samples_per_second"] == pytest.approx(8 * one["train_samples_per_second"])
    assert 8 * eight["train_moments"] == pytest.approx(one["train_moments"])
    assert eight["train_activations"] == one["train_activations"]
    twice = numbers(asked(batch=2))
    assert twice["train_step_seconds"] == pytest.approx(2 * one["train_step_seconds"])
    assert twice["train_activations"] == pytest.approx(2 * one["train_activations"])


def test_an_answer_tells_what_it_is_made_of() -> None:
    made = plan(asked(samples=1e6))
    answers = {each.line.name: each for each in made.answers()}
    parts = [answers[f"{part}_flops"].value or 0.0 for part in ("encode", "decode", "discriminator", "train")]
    assert parts[3] == pytest.approx(3 * (parts[0] + parts[1]) + parts[2])
    assert answers["train_step_seconds"].interval
    assert answers["train_cost"].value
    # Transformers' share is taken for it, which no disclosed training of a VAE tests.
    assert answers["train_step_seconds"].kind == "assumed"
    assert "none of a VAE" in answers["train_step_seconds"].source
    assert made.fits is True
    assert "tokens" not in answers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (16, 256)}, f"use {SMALLEST_SIDE} pixels"),
        ({"cards": 2, "sequence": 2}, "share no clip"),
    ],
)
def test_what_cannot_be_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(**changes)


def test_a_vae_that_was_not_counted_is_told_with_those_that_were() -> None:
    with pytest.raises(UserError, match="Wan 2.1 14B"):
        ask(of_size(5e9), card=card_named("h100 sxm"), vae=True)


def test_the_command_plans_it() -> None:
    line = ["plan", "wan 14b", "--train-vae", "--frames", "17", "--size", "256x256", "--samples", "1M"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    assert "discriminator" in done.output
    refused = CliRunner().invoke(app, [*line, "--rank", "8"])
    assert isinstance(refused.exception, UserError)
    assert "--rank would do nothing beside --train-vae" in str(refused.exception)
