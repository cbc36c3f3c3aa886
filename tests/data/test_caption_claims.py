"""By its words, what a view must leave as it is."""

import pytest

from minisora.data.caption_claims import (
    may_be_mirrored,
    names_brightness,
    names_side,
    names_speed,
    names_writing,
)


@pytest.mark.parametrize(
    "caption",
    [
        "a red circle moving left",
        "Rightmost car turns",
        "a left-handed boxer",
        "a storm comes from the north-west",
        "the eastern gate",
        "a wheel turning counter-clockwise",
        "anticlockwise",
        "ein Auto nach rechts",
        "une balle vers la gauche",
        "una pelota a la izquierda",
        "машина едет направо и налево, левый поворот",
        "球向左移动",
    ],
)
def test_sides_are_named(caption: str) -> None:
    assert names_side(caption)
    assert not may_be_mirrored(caption)


@pytest.mark.parametrize(
    "caption",
    ["a seven", "the digit 3", "two white digits moving", "letter b rising", "B", "eight", 'a sign that says "stop"',
     "a white nine spinning", "a wall clock", "subtitles over a film", "clip_12"],
)  # fmt: skip
def test_writing_is_named(caption: str) -> None:
    assert names_writing(caption)
    assert not may_be_mirrored(caption)


@pytest.mark.parametrize(
    "caption",
    ["", "a bright ball rising", "two boxers", "pong: two paddles and a ball", "a dog's tail", "I see a beast",
     "upright", "seven cars cross", "les feuilles d'un arbre"],
)  # fmt: skip
def test_what_names_neither_may_be_mirrored(caption: str) -> None:
    assert may_be_mirrored(caption)


def test_speed_and_brightness_are_named() -> None:
    assert names_speed("a car passing quickly")
    assert names_speed("slow-motion splash")
    assert not names_speed("breakfast is eaten")
    assert names_brightness("a dark room")
    assert names_brightness("brighter and brighter")
    assert not names_brightness("a red car at a traffic light")
