import shlex
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from minisora.errors import UserError
from minisora.plan.answer import plan
from minisora.plan.question import Question, ask, card_named
from minisora.plan.remedies import cheapest, fitting, smaller_clips, verdict
from minisora.plan.subject import named


def hunyuan(card: str = "l40s") -> Question:
    return ask(named("hunyuanvideo"), card=card_named(card))


def test_what_does_not_fit_is_told_with_what_does() -> None:
    made = plan(hunyuan())
    assert made.fits is False
    assert verdict(made).startswith("does not fit L40S")
    lines = fitting(made)
    assert lines
    assert all(line.startswith("--") for line in lines)


def test_a_remedy_that_is_told_fits() -> None:
    question = hunyuan()
    assert any(line.startswith("--place swapped --tiles: ") for line in fitting(plan(question)))
    assert plan(replace(question, place="swapped", tiles=True)).fits


@pytest.mark.parametrize("card", ["a100 80gb", "h100 nvl"])
def test_a_card_without_a_peak_in_8_bits_is_not_told_to_use_it(card: str) -> None:
    question = ask(named("wan 14b"), card=card_named(card), batch=8)
    assert plan(question).fits is False
    assert not any("float8" in line for line in fitting(plan(question)))


QUESTIONS: list[dict[str, Any]] = [
    {},
    {"tiles": True},
    {"tiles": True, "place": "swapped"},
    {"cards": 2},
    {"cards": 4, "tensor": 2, "data": 2},
    {"train": True},
    {"train": True, "batch": 8, "cards": 8},
    {"train": True, "batch": 3, "cards": 8, "sequence": 4, "checkpointing": "full"},
]


@pytest.mark.parametrize("model", ["hunyuanvideo", "wan 14b", "step-video"])
@pytest.mark.parametrize("changes", QUESTIONS, ids=str)
def test_what_is_told_is_told_once_and_fits_as_it_is_typed(model: str, changes: dict[str, Any]) -> None:
    card = card_named("l40s")
    own = {"cards": 1, "batch": 8, **changes}
    made = plan(ask(named(model), card=card, **own))
    assert made.fits is False
    lines = fitting(made)
    assert len({line.split(": ")[0] for line in lines}) == len({line.split(": ")[1] for line in lines})
    for line in lines:
        parts = shlex.split(line.split(":")[0].split(",")[0])
        given: dict[str, Any] = {"tiles": True} if "--tiles" in parts else {}
        for name, value in pairwise(parts):
            if name in ("--size", "--place", "--precision", "--checkpointing"):
                given[name[2:]] = tuple(map(int, value.split("x"))) if name == "--size" else value
            elif name.startswith("--") and not value.startswith("--"):
                given[name[2:]] = int(value)
        assert plan(ask(named(model), card=card, **{**own, **given})).fits, line


def test_a_smaller_clip_is_one_that_the_vae_can_code() -> None:
    """Step-Video's VAE starts anew every 17 frames."""
    frames = [
        change.settings["frames"]
        for change in smaller_clips(ask(named("step-video"), card=card_named("l40s")))
        if set(change.settings) == {"frames"}
    ]
    assert len(frames) == 4
    assert all(ask(named("step-video"), card=card_named("l40s"), frames=each).frames for each in frames)


def test_where_neither_alone_suffices_the_clip_is_shorter_and_smaller() -> None:
    """What autograd keeps of Wan's VAE is 18 times a card, of a clip of 81 x 720 x 1280."""
    question = ask(named("wan 14b"), card=card_named("h100 sxm"), cards=8, vae=True)
    (line,) = fitting(plan(question))
    assert line.startswith("--frames 29 --size 256x480: ")
    assert plan(
        ask(named("wan 14b"), card=card_named("h100 sxm"), cards=8, vae=True, frames=29, size=(256, 480))
    ).fits


def test_a_training_that_does_not_fit_has_remedies_too() -> None:
    question = ask(named("wan 1.3b"), card=card_named("h100 sxm"), train=True, batch=4)
    assert plan(question).fits is False
    assert fitting(plan(question))


def test_the_cheapest_way_is_the_cheapest_of_those_in_time() -> None:
    question = ask(named("cogvideox-5b"), card=card_named("h100 sxm"))
    ways = cheapest(question, 60.0)
    assert ways.ways
    costs = [float(way.numbers["clip_cost"]) for way in ways.ways]
    assert costs == sorted(costs)
    assert all(way.seconds <= 60 and way.fits for way in ways.ways)
    # With more time it can only become cheaper.
    assert float(cheapest(question, 600.0).ways[0].numbers["clip_cost"]) <= costs[0]


def test_a_limit_that_nothing_meets_names_the_fastest() -> None:
    ways = cheapest(hunyuan(), 0.01)
    assert not ways.ways
    assert ways.fastest is not None
    assert "the fastest takes" in str(ways.table().caption)


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="above 0"):
        cheapest(hunyuan(), -5.0)


def test_a_limit_is_of_clips() -> None:
    question = ask(named("wan 14b"), card=card_named("h100 sxm"), train=True)
    with pytest.raises(UserError, match="leave out --train"):
        cheapest(question, 60.0)
