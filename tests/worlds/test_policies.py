"""Policies: their shares are as documented, none needs what it may not see, and ways around walls are ways."""

from dataclasses import replace

import numpy as np
import pytest

from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.policies import LET_GO, PolicyName, goes, make_policy, towards, ways


def pressed(name: PolicyName, arena: Arena, num_arenas: int, frames: int) -> np.ndarray:
    """Buttons, B T."""
    state, policy = arena.start(0, range(num_arenas)), make_policy(name, arena)
    buttons = []
    for _ in range(frames):
        buttons.append(policy.press(state))
        state = arena.step(state, buttons[-1])
    return np.stack(buttons, axis=1)


@pytest.mark.parametrize(("name", "changes"), [("random", 1.0), ("sticky", LET_GO)])
def test_buttons_are_equally_frequent_and_held_as_long_as_documented(
    name: PolicyName, changes: float
) -> None:
    buttons = pressed(name, Arena(), 400, 50)
    assert np.bincount(buttons.ravel()) / buttons.size == pytest.approx(np.full(5, 0.2), abs=0.02)
    # A fifth of the buttons that are drawn are those that were held.
    assert (np.diff(buttons) != 0).mean() == pytest.approx(0.8 * changes, abs=0.01)


@pytest.mark.parametrize("name", ["random", "sticky"])
def test_what_looks_at_nothing_presses_the_same_whatever_there_is(name: PolicyName) -> None:
    bare, rich = Arena(ArenaSettings(walls=0)), Arena(ArenaSettings(movers=2, coins=5))
    assert np.array_equal(pressed(name, bare, 20, 30), pressed(name, rich, 20, 30))


def test_mixed_is_sticky_but_for_a_fifth() -> None:
    arena = Arena()
    layout = arena.start(0, range(1000)).layout
    assert goes(layout).mean() == pytest.approx(0.2, abs=0.03)
    mixed, sticky, goal = (pressed(name, arena, 20, 20) for name in ("mixed", "sticky", "goal"))
    where = goes(arena.start(0, range(20)).layout)
    assert 0 < where.sum() < 20
    assert np.array_equal(mixed[~where], sticky[~where])
    assert np.array_equal(mixed[where], goal[where])


def test_from_everywhere_there_is_a_way_to_the_goal_and_towards_goes_it() -> None:
    arena = Arena()
    state = arena.start(11, range(30))
    fields = ways(arena, state.layout, state.layout.goal)
    pixel = np.round(state.player).astype(int)
    far = fields[np.arange(30), pixel[:, 0], pixel[:, 1]]
    assert np.isfinite(far).all()
    there = np.zeros(30, bool)
    # Steps of 3 pixels, and some that are lost at corners.
    for _ in range(int(far.max() / 3) + 10):
        state = arena.step(state, towards(arena, state, fields))
        there |= arena.at_goal(state)
    assert there.all()


def test_ways_are_straight_where_nothing_stands_and_around_where_a_wall_does() -> None:
    arena = Arena(ArenaSettings(walls=1))
    state = arena.start(0, range(1))
    # A player in the shape of a circle, 7.04 pixels; the wall leaves a passage below.
    layout = replace(state.layout, shape=np.zeros(1, np.int64), walls=np.array([[[-0.5, 30.0, 40.5, 33.0]]]))
    field = ways(arena, layout, np.array([[10.0, 50.0]]))[0]
    assert field[20, 50] == 10
    assert np.isinf(field[10, 31])
    assert np.isinf(field[3, 50])
    # Down until the wall is passed (its end 40.5 and the radius), over, and up again.
    assert field[10, 15] == pytest.approx(35 + 2 * (40.5 + 7.04 - 10), abs=2)


def test_the_button_of_a_policy_is_one_there_is() -> None:
    buttons = pressed("goal", Arena(ArenaSettings(height=32, width=48)), 10, 40)
    assert buttons.min() >= 0
    assert buttons.max() < len(BUTTONS)
