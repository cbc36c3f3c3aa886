from typing import Any

import pytest

from minisora.config import load
from minisora.errors import UserError
from minisora.plan.question import ask, card_named
from minisora.plan.spending import spend
from minisora.plan.subject import (
    WIDTH_PER_LAYER,
    Subject,
    attention_words,
    disclosed,
    named,
    of_config,
    of_disclosed,
    of_size,
    parse_attention,
    parse_count,
    parse_triple,
)
from minisora.report.assumptions import shipped
from minisora.report.cost import Band


def pass_flops(subject: Subject, **clip: Any) -> float:
    question = ask(subject, card=card_named("h100 sxm"), **clip)
    return float(spend(subject, question.inputs(1.0, 1.0, 0.0))["pass_flops"])


@pytest.mark.parametrize(("words", "name"), [("wan 14b", "Wan 2.1 14B"), ("hunyuanvideo", "HunyuanVideo")])
def test_a_model_is_found_by_words_of_its_name(words: str, name: str) -> None:
    assert named(words).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wan", "Wan 2.1 1.3B or Wan 2.1 14B"),
        ("hunyuan vidoe", "did you mean 'HunyuanVideo'"),
        ("midjourney", "there are: "),
    ],
)
def test_a_name_that_is_none_or_several_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        named(name)


def test_every_disclosed_pass_is_met() -> None:
    models = [model for model in disclosed().values() if model.pass_macs]
    assert models
    for model in models:
        assert model.pass_macs
        assert pass_flops(of_disclosed(model)) == pytest.approx(2 * model.pass_macs.value, rel=0.005)


def test_a_shape_given_by_numbers_costs_what_the_same_shape_by_name_does() -> None:
    published = named("step-video")
    # Of its prompt nothing is disclosed there.
    stated = {"layers": 48, "width": 6144, "hidden": 24576, "text": "cross", "text_tokens": 0}
    same = of_size(30e9, vae=(8, 16, 16), patch=(1, 1, 1), **stated)  # type: ignore[arg-type]
    # 281 frames are 36 latent frames here, as its 204 are there, where the VAE starts anew every 17.
    flops = [pass_flops(published), pass_flops(same, frames=281, size=(544, 992))]
    assert flops[1] == pytest.approx(flops[0], rel=1e-12)
    assert same.shape.params() == pytest.approx(30e9, rel=0.05)


def test_a_size_alone_becomes_a_model_of_that_size() -> None:
    for params in (675e6, 5e9, 30e9):
        subject = of_size(params)
        assert float(subject.shape.params()) == pytest.approx(params, rel=0.05)
        assert float(subject.shape.width) % 128 == 0


def test_a_size_alone_is_as_wide_as_the_report_takes_it() -> None:
    assert shipped("measured").entries["sora.width_per_layer"].value == WIDTH_PER_LAYER


def test_a_config_has_the_passes_that_its_scheduler_makes() -> None:
    heun = load("toy", ["sample.scheduler=heun", "sample.steps=10"])
    assert of_config(heun, "toy").steps == heun.sample.evaluations == 19


def test_a_shape_of_another_size_is_refused_with_the_size_that_it_has() -> None:
    with pytest.raises(UserError, match="have 540K weights, not 5B: use --params 540K"):
        of_size(5e9, width=100, layers=3)
    with pytest.raises(UserError, match="1 blocks of 128 channels"):
        of_size(1e3)


def test_our_own_config_costs_what_the_instrument_counts() -> None:
    from minisora.flops.count_closed_form import dit_terms, total

    config = load("toy", ["text.max_tokens=24"])
    counted = total(dit_terms(config, (5, 8, 8), text_width=config.text.width, text_tokens=24))
    # The embeddings of noise level and text are not in the closed form of the report.
    assert pass_flops(of_config(config, "toy")) == pytest.approx(2 * counted, rel=0.02)


@pytest.mark.parametrize(("text", "count"), [("5B", 5e9), ("1.3b", 1.3e9), ("675M", 675e6), ("30e9", 30e9)])
def test_numbers_of_weights(text: str, count: float) -> None:
    assert parse_count(text, "--params") == count


@pytest.mark.parametrize("text", ["5Q", "", "nan", "-1B", "1e400", "1..5B", "0"])
def test_what_is_no_number_of_weights(text: str) -> None:
    with pytest.raises(UserError, match="--params"):
        parse_count(text, "--params")


def test_kinds_of_attention_are_read_as_they_are_written() -> None:
    for text in ("full", "factorised", "divided", "causal:1", "causal:3", "window:5", "tile:3x24x24"):
        assert attention_words(parse_attention(text)) == text
    assert parse_attention("causal") == Band("causal", 1)
    with pytest.raises(UserError, match="use window:5"):
        parse_attention("window:4")
    for text in ("windw:3", "causal:", "window", "window:0", "full:2"):
        with pytest.raises(UserError, match="--attention"):
            parse_attention(text)


def test_strides() -> None:
    assert parse_triple("4x8x8", "--vae") == (4, 8, 8)
    for text in ("4x8", "4x8x0", "axbxc", "4x8x8x8", "4x-8x8"):
        with pytest.raises(UserError, match="--vae"):
            parse_triple(text, "--vae")
