"""The loop: which button a step gets, when it is due, and what those who look on see. No test waits for a clock."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from minisora.errors import UserError
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.game import Beginning, Game
from minisora.worlds.play import Keys, Loop, Pace, keys
from minisora.worlds.world import TrueWorld

SMALL = ArenaSettings(32, 32, walls=0)


def arena(seed: int = 0) -> Game:
    game = Game(TrueWorld(SMALL))
    game.begin(Beginning(seed))
    return game


def test_arrows_wasd_and_digits_hold_what_the_world_has() -> None:
    held = keys(["noop", "up", "left", "fire"])
    assert (held["ArrowUp"], held["KeyA"], held["Space"]) == ("up", "left", "fire")
    assert (held["Digit1"], held["Digit4"]) == ("noop", "fire")
    assert "ArrowRight" not in held
    jumps = keys(["left", "jump"])
    assert jumps["ArrowUp"] == jumps["Space"] == "jump"
    assert keys([f"code {number}" for number in range(16)]) == {f"Digit{n}": f"code {n}" for n in range(10)}


def test_the_key_pressed_last_counts_until_it_comes_up() -> None:
    held = Keys(["left", "right", "up"])
    assert held.take() == (None, 0)
    held.press("left", 1)
    held.press("right", 2)
    assert held.take() == ("right", 2)
    held.release("right")
    assert held.take() == ("left", 2)
    held.release("left")
    assert held.take() == (None, 2)
    held.press("down", 3)
    assert held.take() == (None, 2)


def test_a_tap_between_two_steps_counts_for_one() -> None:
    held = Keys(["left"])
    held.press("left", 1)
    held.release("left")
    assert [held.take()[0], held.take()[0]] == ["left", None]


def test_a_key_that_repeats_is_no_new_press() -> None:
    held = Keys(["left"])
    held.press("left", 1)
    held.take()
    held.press("left", 1)
    assert not held.fresh


@pytest.mark.parametrize("name", ["jump left", "left jump", "leftjump"])
def test_two_keys_make_a_button_that_is_named_after_both(name: str) -> None:
    held = Keys(["left", "jump", name])
    held.press("left")
    held.press("jump")
    assert held.take()[0] == name


def test_steps_follow_each_other_at_the_beat() -> None:
    pace = Pace(10)
    assert pace.left(5.0, fresh=False) <= 0
    pace.stepped(5.0)
    assert pace.left(5.0, fresh=False) == pytest.approx(0.1)
    # A step that begins late does not move the beat.
    pace.stepped(5.104)
    assert pace.left(5.104, fresh=False) == pytest.approx(0.096)
    assert pace.late == 0
    for beat in range(2, 30):
        pace.stepped(5 + beat / 10)
    assert pace.fps == pytest.approx(10)


def test_beats_that_a_slow_step_missed_are_counted_and_not_made_up_for() -> None:
    pace = Pace(10)
    pace.stepped(0.0)
    pace.stepped(0.37)
    assert pace.late == 2
    assert pace.left(0.37, fresh=False) == pytest.approx(0.03)
    pace.rest()
    assert pace.left(99.0, fresh=False) <= 0
    pace.stepped(99.0)
    assert pace.late == 2


def test_a_press_brings_the_step_forward_by_half_a_beat_at_most() -> None:
    pace = Pace(10)
    pace.stepped(0.0)
    assert pace.left(0.02, fresh=True) == pytest.approx(0.03)
    assert pace.left(0.07, fresh=True) <= 0
    pace.stepped(0.07)
    assert pace.left(0.07, fresh=False) == pytest.approx(0.1)


@pytest.mark.parametrize("fps", [0.0, -1.0, 61.0, float("nan")])
def test_a_pace_that_cannot_be_is_refused(fps: float) -> None:
    with pytest.raises(UserError, match="fps"):
        Pace(fps)


def test_a_picture_says_which_press_it_answers() -> None:
    loop, alone = Loop(arena()), TrueWorld(SMALL)
    alone.start(seed=0)
    loop.beat()
    assert (loop.shown.step, loop.shown.button, loop.shown.press) == (1, "noop", 0)
    alone.step([0])
    loop.press("left", 7)
    loop.beat()
    assert (loop.shown.number, loop.shown.button, loop.shown.press) == (3, "left", 7)
    assert torch.equal(loop.shown.frame, alone.step([3])[0])


def test_a_beginning_that_fails_is_told_and_the_game_goes_on(dream: Callable[..., Any]) -> None:
    game = Game(dream())
    game.begin(Beginning(3))
    loop = Loop(game)
    loop.press("right")
    loop.beat()
    before = loop.shown.frame
    loop.begin(Beginning(4, torch.zeros(3, 1, 8, 8, dtype=torch.uint8)))
    loop.beat()
    assert "shows" in loop.complaint
    assert torch.equal(loop.shown.frame, before)
    loop.begin(Beginning(4))
    loop.beat()
    assert (loop.complaint, loop.shown.step, game.beginning.seed) == ("", 0, 4)


def test_the_thread_plays_and_what_fails_in_it_is_raised_to_those_who_look(
    dream: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    game, seen = Game(dream()), threading.Semaphore(0)
    game.begin(Beginning())
    loop = Loop(game, 60, seen.release)
    with loop:
        for _ in range(3):
            assert seen.acquire(timeout=60)
        assert loop.shown.step >= 3
        assert loop.pause()

        def broken(codes: object) -> None:
            raise RuntimeError("broken on purpose")

        monkeypatch.setattr(game.world, "step", broken)
        loop.press("right")
        loop._thread.join(60)
        with pytest.raises(RuntimeError, match="on purpose"):
            assert loop.shown


def test_a_world_in_which_nothing_means_nothing_waits_for_a_key(dream: Callable[..., Any]) -> None:
    world, seen = dream(), threading.Semaphore(0)
    world.names = ("right", "code 1", "left")
    game = Game(world)
    game.begin(Beginning())
    assert game.idle is None
    loop = Loop(game, 60, seen.release)
    with loop:
        loop.press("right")
        loop.release()
        assert seen.acquire(timeout=60)
    assert game.played().buttons == ["right"]
