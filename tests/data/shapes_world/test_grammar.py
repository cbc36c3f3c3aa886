import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisora.data.shapes_world.grammar import (
    COLORS,
    DIRECTIONS,
    HELD_OUT,
    SHAPES,
    SIZES,
    ShapesPrompt,
    all_prompts,
    held_out,
    parse,
)
from minisora.errors import UserError


@st.composite
def prompts(draw):
    motion = draw(st.sampled_from((*DIRECTIONS, "still")))
    return ShapesPrompt(
        color=draw(st.sampled_from(list(COLORS))),
        shape=draw(st.sampled_from(SHAPES)),
        motion=motion,
        size=draw(st.sampled_from(SIZES)),
        wall=draw(st.booleans()) and motion in ("left", "right"),
        light=draw(st.sampled_from(("day", "night"))),
    )


@given(prompts(), st.booleans())
def test_a_caption_reads_back_to_its_prompt(prompt, say_night):
    assert parse(prompt.caption(say_night)) == prompt


def test_captions_of_the_issue():
    assert ShapesPrompt("red", "circle", "left").caption() == "a red circle moving left"
    assert (
        ShapesPrompt("blue", "square", "right", "small", wall=True, light="day").caption()
        == "a small blue square moving right behind a gray wall by day"
    )
    assert (
        ShapesPrompt("white", "triangle", "still", "large").caption(say_night=True)
        == "a large white triangle standing still at night"
    )
    assert parse("  A Red  circle moving LEFT at night") == ShapesPrompt("red", "circle", "left")


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle",
        "a pink circle moving left",
        "a huge red circle moving up",
        "a red circle moving left by day now",
    ],
)
def test_what_is_not_of_the_grammar_is_quoted(caption):
    with pytest.raises(UserError, match=f"'{caption}' is not of the shapes world"):
        parse(caption)


@pytest.mark.parametrize("motion", ["up", "down", "still"])
def test_a_wall_needs_sideways_motion(motion):
    with pytest.raises(UserError, match="wall needs an object moving left or right"):
        ShapesPrompt("red", "circle", motion, wall=True)


def test_a_wrong_word_gets_the_nearest_right_one():
    with pytest.raises(UserError, match="did you mean 'purple'"):
        ShapesPrompt("purpel", "circle", "left")


def test_a_tenth_is_held_out_and_training_still_has_every_part():
    triples = [(c, s, d) for c in COLORS for s in SHAPES for d in DIRECTIONS]
    out = [triple for triple in triples if held_out(*triple)]
    assert len(triples) == 72
    assert len(out) == len(HELD_OUT) == 7
    for axis, words, of_each in ((0, COLORS, 12), (1, SHAPES, 24), (2, DIRECTIONS, 18)):
        for word in words:
            lost = sum(triple[axis] == word for triple in out)
            assert 1 <= lost <= of_each / 6
    assert not held_out("red", "circle", "still")


def test_all_prompts_are_the_72_of_the_evaluation():
    captions = all_prompts()
    assert len(set(captions)) == 72
    assert captions[0] == "a red circle moving left"
    assert sum(parse(caption).held_out for caption in captions) == 7
