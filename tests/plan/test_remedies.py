from dataclasses import replace

import pytest

from minisora.errors import UserError
from minisora.plan.answer import plan
from minisora.plan.question import Question, ask, card_named
from minisora.plan.remedies import cheapest, fitting, verdict
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
    assert any(line.startswith("--place streamed --tiles: ") for line in fitting(plan(question)))
    assert plan(replace(question, place="streamed", tiles=True)).fits


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
