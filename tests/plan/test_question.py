from typing import Any

import pytest

from minisora.errors import UserError
from minisora.flops.calibration import PASS_KINDS, read_calibration
from minisora.flops.machines import shipped_calibrations
from minisora.plan.question import Question, ask, card_named, cards_by_name
from minisora.plan.spending import INPUTS
from minisora.plan.subject import named, parse_attention


def asked(model: str = "wan 14b", card: str = "h100 sxm", **changes: Any) -> Question:
    return ask(named(model), card=card_named(card), **changes)


def test_a_question_that_says_nothing_is_the_clip_of_the_makers() -> None:
    question = asked()
    assert (question.frames, question.height, question.width) == (81, 720, 1280)
    assert (question.steps, question.passes, question.cards) == (50, 2, 1)


def test_every_input_of_the_arithmetic_is_given() -> None:
    assert list(asked().inputs(0.3, 0.4, 0.05)) == list(INPUTS)


def test_seconds_become_the_nearest_clip_that_the_vae_can_code() -> None:
    assert asked(seconds=5.0).frames == 81
    assert asked(seconds=0.001).frames == 1
    # Allegro's VAE has no first frame of its own, Step-Video's starts anew every 17.
    assert asked("allegro", seconds=5.9).frames == 88
    assert asked("step-video", frames=204).frames == 204


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"frames": 80}, "--frames 81"),
        ({"frames": 1 << 21}, "at most"),
        ({"size": (481, 832)}, "--size 480x832"),
        ({"size": (8, 8)}, "--size 16x16"),
        ({"cards": 64, "tensor": 64}, "40 heads to divide: use --tensor 40"),
        ({"cards": 3, "tensor": 3}, "--tensor 2"),
        ({"cards": 6, "tensor": 4}, "--cards 8"),
        ({"cards": 3, "sequence": 3}, "--sequence 2"),
        ({"cards": 8, "data": 2, "sequence": 2}, "--cards 4"),
        ({"cards": 8, "fsdp": 3}, "--fsdp 2"),
        ({"cards": 0}, "at least 1"),
        ({"seconds": float("nan")}, "above 0"),
        ({"reused": 1.0}, "at most 0.99"),
        ({"fps": 0.0}, "at least 0.01"),
        ({"batch": 0}, "at least 1"),
        ({"budget": -1.0}, "at least 0"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(changes: dict[str, Any], remedy: str) -> None:
    with pytest.raises(UserError, match=remedy):
        asked(**changes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("H100 SMX", "did you mean 'H100 SXM'"),
        ("h100", "H100 PCIe or H100 NVL or H100 SXM"),
        ("", "there are: "),
        ("no.json", "no calibration"),
    ],
)
def test_a_card_that_is_none_or_several_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        card_named(name)


def test_a_precision_without_a_peak_is_refused() -> None:
    with pytest.raises(UserError, match="use --precision float16 or float32"):
        asked(card="v100")


def test_products_in_8_bits_are_as_fast_as_they_were_measured() -> None:
    card = cards_by_name()["H100 SXM"]
    assert card.peak("float8") == pytest.approx(1.13 * card.peak("bfloat16"))


def test_cards_share_a_clip_in_serving_and_the_weights_in_training() -> None:
    serving, training = asked(cards=8), asked(cards=8, train=True)
    assert (serving.data, serving.fsdp, serving.sequence) == (1, 1, 8)
    assert (training.data, training.fsdp, training.sequence) == (8, 8, 1)
    # 40 heads do not divide by 16: eight cards a clip, and two clips.
    assert (asked(cards=16).sequence, asked(cards=16).data) == (8, 2)


def test_a_calibration_is_a_card_of_ones_own() -> None:
    shipped = shipped_calibrations()[-1]
    assert shipped.path is not None
    calibration = read_calibration(shipped.path)
    card = card_named(str(shipped.path))
    assert card.use
    for (least, middle, most), kind in zip(card.use, PASS_KINDS, strict=True):
        assert 0 < least <= middle <= most == calibration.best_mfu(kind)
    assert card.peak("float32") == pytest.approx(calibration.measured_peak)
    assert (card.memory, card.price, card.power) == (None, None, None)


def test_a_card_that_is_not_listed_is_near_one_in_any_case() -> None:
    with pytest.raises(UserError, match="no card 'h1000' .did you mean 'H100"):
        card_named("h1000")


def test_a_tile_larger_than_a_frame_is_refused_with_the_largest_that_is_not() -> None:
    subject = named("wan 14b").seeing(parse_attention("tile:3x99x24"))
    with pytest.raises(UserError, match="45x80 tokens: use --attention tile:3x45x24"):
        ask(subject, card=card_named("h100 sxm"))
    assert ask(subject.seeing(parse_attention("tile:3x45x24")), card=card_named("h100 sxm"))
