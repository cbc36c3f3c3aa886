import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisora.plan import spending
from minisora.plan.lines import LINES
from minisora.plan.question import Question, ask, card_named
from minisora.plan.spending import Numbers, decoder_values, spend
from minisora.plan.subject import disclosed, named, of_disclosed
from minisora.report.cost import Band, fitting_frames, forward_macs, latent_frames

SERVE = {"use.serve": 0.35, "use.alone": 0.05}


def asked(model: str = "wan 14b", **changes: Any) -> Question:
    return ask(named(model), card=card_named("h100 sxm"), **changes)


def numbers(question: Question, **changes: float) -> Numbers:
    inputs = question.inputs(0.35, 0.36, 0.05)
    return spend(
        question.subject, inputs | {name.replace("_", "."): value for name, value in changes.items()}
    )


def test_a_pass_of_every_disclosed_model_is_that_of_the_report() -> None:
    for model in disclosed().values():
        subject, grid, shape = of_disclosed(model), model.grid(), model.shape()
        assert grid
        assert shape
        assert model.attention
        question = ask(subject, card=card_named("h100 sxm"))
        found = numbers(question)
        assert float(found["tokens"]) == grid[0] * grid[1]
        cost = forward_macs(shape, *grid, model.attention.value)
        assert float(found["pass_flops"]) == pytest.approx(2 * float(cost.total), rel=1e-12)


def test_a_clip_is_its_passes_its_prompt_and_its_decoding() -> None:
    one, two = numbers(asked(steps=10)), numbers(asked(steps=20))
    assert float(two["denoise_flops"]) == pytest.approx(2 * float(one["denoise_flops"]))
    assert two["decode_flops"] == one["decode_flops"]
    half = numbers(asked(steps=20, reused=0.5))
    assert float(half["denoise_flops"]) == pytest.approx(float(one["denoise_flops"]))
    assert half["serve_cache"] > 0


def test_every_result_is_read() -> None:
    """By a line of the answer, by the page, or by the back-test."""
    told = {line.name for line in LINES}
    plan, page = Path(spending.__file__).parent, Path(spending.__file__).with_name("sliders.js").read_text()
    code = page + "".join(path.read_text() for path in plan.glob("*.py") if path.name != "lines.py")
    for name in numbers(asked()):
        assert name in told or re.search(rf'numbers(\["{name}"\]|\.{name}\b)', code), name


def test_values_may_be_arrays() -> None:
    question = asked()
    inputs = question.inputs(0.35, 0.36, 0.05)
    steps = np.array([10.0, 50.0])
    many = spend(question.subject, {**inputs, "serve.steps": steps})
    assert np.asarray(many["clip_seconds"])[1] == pytest.approx(
        float(spend(question.subject, inputs)["clip_seconds"])
    )


@pytest.mark.parametrize("fsdp", [1, 2, 8])
def test_shards_divide_weights_gradients_and_moments(fsdp: int) -> None:
    whole, shared = numbers(asked(train=True)), numbers(asked(train=True, cards=8, fsdp=fsdp))
    for part in ("train_gradients", "train_moments", "train_average"):
        assert float(shared[part]) * fsdp == pytest.approx(float(whole[part]))
    assert shared["train_activations"] == whole["train_activations"]


def test_ranks_that_share_a_clip_divide_its_activations() -> None:
    one, eight = numbers(asked(train=True)), numbers(asked(train=True, cards=8, sequence=8))
    ratio = float(one["train_activations"]) / float(eight["train_activations"])
    # All but keys and values of the prompt, which every rank has.
    assert 7.5 < ratio <= 8
    tensor = numbers(asked(train=True, cards=8, tensor=8, fsdp=1))
    assert (
        float(one["train_activations"])
        > float(tensor["train_activations"])
        > float(eight["train_activations"])
    )
    assert float(tensor["train_moments"]) * 8 == pytest.approx(float(one["train_moments"]))


def test_checkpointing_trades_memory_for_a_pass() -> None:
    none, some, full = (
        numbers(asked(train=True, checkpointing=kind)) for kind in ("none", "selective", "full")
    )
    kept = [float(each["train_activations"]) for each in (none, some, full)]
    assert kept[0] > kept[1] > kept[2]
    assert float(full["recomputed_flops"]) == pytest.approx(float(full["pass_flops"]), rel=0.01)
    assert float(full["train_step_seconds"]) == pytest.approx(
        4 / 3 * float(none["train_step_seconds"]), rel=0.01
    )


def test_cards_shorten_a_clip_but_for_what_stays_and_what_they_say() -> None:
    one, eight = numbers(asked()), numbers(asked(cards=8))
    alone = float(one["clip_seconds"])
    assert float(eight["clip_compute_seconds"]) == pytest.approx(alone * (0.05 + 0.95 / 8))
    assert float(eight["clip_seconds"]) == pytest.approx(
        float(eight["clip_compute_seconds"]) + float(eight["clip_talk_seconds"])
    )
    # 40 blocks x 100 passes x 4 x 7 / 8 of an eighth of 75,600 x 5,120 bfloat16 numbers, at 450 GB/s.
    sent = 40 * 100 * 4 * 7 / 8 * 75_600 / 8 * 5_120 * 2
    assert float(eight["clip_talk_seconds"]) == pytest.approx(sent / 450e9)
    # Sixteen cards are two machines.
    far = numbers(asked("cogvideox-5b", cards=16, sequence=16))
    near = numbers(asked("cogvideox-5b", cards=8, sequence=8))
    assert float(far["clip_talk_seconds"]) > 4 * float(near["clip_talk_seconds"])


def test_memory_stretches_a_pass_by_what_its_blocks_make() -> None:
    question = asked("latte-xl/2")
    shape, code = question.subject.shape, question.subject.code
    # No prompt: what cross-attention would make is left out. Latte's 16 x 256 tokens, in bfloat16.
    numbers_of_a_token = (code.half_width - code.text_width) * 1152 + code.hidden * 4608
    made = 4096 * (2 * numbers_of_a_token + 4 * code.per_head * 16)
    seconds = 2 * 28 * made / 3.35e12
    products = 2 * float(forward_macs(shape, 16.0, 256.0, "factorised").total) / 989.4e12
    stretch = float(numbers(question)["stretch"])
    assert stretch == pytest.approx(1 + seconds / products)
    # A narrow model waits for its memory about as long as for its products, a wide one hardly.
    assert stretch > 1.5
    assert float(numbers(asked())["stretch"]) < 1.2
    measured = numbers(question, card_bandwidth=float("inf"))
    assert float(measured["stretch"]) == 1
    assert float(numbers(question)["clip_compute_seconds"]) == pytest.approx(
        float(measured["clip_compute_seconds"])
        * (1 + (stretch - 1) * float(measured["denoise_flops"] / measured["clip_flops"]))
    )
    training = [
        float(each["train_step_seconds"])
        for each in (
            numbers(asked("latte-xl/2", train=True)),
            numbers(asked("latte-xl/2", train=True), card_bandwidth=float("inf")),
        )
    ]
    assert training[0] == pytest.approx(stretch * training[1])


def test_attention_in_a_slower_kernel_takes_that_much_longer() -> None:
    plan = named("open-sora plan 1.2")
    assert plan.attention_times == 2
    question = ask(plan, card=card_named("h100 sxm"))
    shape = plan.shape
    macs = forward_macs(shape, 24.0, 45.0 * 80.0, "full")
    slow, fast = (float(numbers(question, attention_times=times)["stretch"]) for times in (2.0, 1.0))
    assert slow - fast == pytest.approx(float(macs.attention_share))
    assert float(numbers(question)["stretch"]) == slow


def test_where_weights_are_decides_the_peak() -> None:
    peaks = [
        float(numbers(asked(place=place))["serve_memory"]) for place in ("resident", "swapped", "streamed")
    ]
    assert peaks[0] > peaks[1] > peaks[2]
    seconds = [
        float(numbers(asked(place=place))["clip_seconds"]) for place in ("resident", "swapped", "streamed")
    ]
    assert seconds[0] < seconds[1]
    tiled = numbers(asked(tiles=True))
    assert float(tiled["serve_decode"]) < float(numbers(asked())["serve_decode"]) / 5


def test_a_decoder_holds_the_frames_that_it_decodes_at_once() -> None:
    cog = named("cogvideox-5b")
    question = ask(cog, card=card_named("h100 sxm"))
    sizes = [
        float(decoder_values(cog, question.inputs(1, 1, 0) | {"clip.frames": float(frames)}))
        - 3 * frames * 480 * 720
        for frames in (49, 97)
    ]
    assert sizes[0] == sizes[1] == pytest.approx(480 * 720 * (8 * 1906 + 7590))


def test_causal_attention_keeps_keys_and_values_of_what_was_before() -> None:
    question = asked()
    causal = replace(question, subject=question.subject.seeing(Band("causal", 3)))
    cache = 2 * 40 * 75_600 * 5_120 * 2
    assert float(numbers(causal)["serve_cache"]) == pytest.approx(cache)
    assert float(numbers(causal)["serve_activations"]) < float(numbers(question)["serve_activations"])


def test_money_for_a_training_buys_its_samples() -> None:
    question = asked(train=True, cards=8, samples=1e6, budget=1.0)
    cost = float(numbers(question)["train_cost"])
    assert float(numbers(replace(question, budget=cost))["budget_samples"]) == pytest.approx(1e6)
    found = numbers(question)
    assert float(found["train_card_hours"]) == pytest.approx(
        1e6 / float(found["train_samples_per_second"]) * 8 / 3600
    )
    assert float(found["break_even_clips"]) * float(found["clip_card_hours"]) == pytest.approx(
        float(found["train_card_hours"])
    )


def test_bands_see_what_is_written_out() -> None:
    for frames in range(1, 12):
        for extent in (1, 2, 3, 5):
            chunks = [min(frames, (i // extent + 1) * extent) for i in range(frames)]
            assert float(Band("causal", extent).seen(float(frames))) == pytest.approx(np.mean(chunks))
        for extent in (1, 3, 5, 99):
            half = extent // 2
            around = [min(frames, i + half + 1) - max(0, i - half) for i in range(frames)]
            assert float(Band("window", extent).seen(float(frames))) == pytest.approx(np.mean(around))


@pytest.mark.parametrize(("causal", "chunk"), [(True, 0), (False, 0), (True, 17)])
def test_frames_that_fit_fill_their_latent_frames(causal: bool, chunk: int) -> None:
    for frames in range(1, 60):
        fit = float(fitting_frames(float(frames), 4, causal=causal, chunk=chunk))
        latents = float(latent_frames(fit, 4, causal=causal, chunk=chunk))
        assert float(fitting_frames(fit, 4, causal=causal, chunk=chunk)) == fit
        # One frame more needs one latent frame more.
        assert float(latent_frames(fit + 1, 4, causal=causal, chunk=chunk)) == latents + 1
