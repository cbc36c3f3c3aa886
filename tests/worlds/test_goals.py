"""Goals: a picture of a place that can be reached, and no way to it that is shorter than the one found."""

import numpy as np
import pytest
import torch

from minisora.errors import UserError
from minisora.worlds import goals
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.goals import Distances, arrived, draw_episodes, reachable

ARENA = Arena(ArenaSettings(32, 32))


def test_the_way_leads_there_and_the_picture_shows_it() -> None:
    episodes = draw_episodes(ARENA, 4, seed=5, distances=Distances(6, 9))
    for episode in episodes:
        assert 6 <= len(episode.way) <= 9
        assert episode.budget == 2 * len(episode.way)
        state, there = episode.start, []
        for button in episode.way:
            state = ARENA.step(state, [button])
            there.append(bool(arrived(ARENA, episode.goal, state.player)[0]))
        # It is there after its last step and not before.
        assert there == [False] * (len(there) - 1) + [True]
        shown, first = episode.picture, ARENA.render(episode.start)[0]
        assert not torch.equal(shown, first)
        assert (shown != first).any(0).float().mean() < 0.3
    again = draw_episodes(ARENA, 4, seed=5, distances=Distances(6, 9))
    assert [each.way for each in again] == [each.way for each in episodes]
    other = draw_episodes(ARENA, 4, seed=6, distances=Distances(6, 9))
    assert [each.way for each in other] != [each.way for each in episodes]


def test_no_way_is_shorter_than_the_one_the_search_found() -> None:
    start = ARENA.start(5, [3])
    found = {}
    for place, way in reachable(ARENA, start, 3):
        found[tuple(np.round(place, 4))] = len(way)
    # All sequences of up to three buttons, one after another.
    least: dict[tuple[float, ...], int] = {}
    plans = [()]
    for length in range(4):
        for plan in plans:
            state = start
            for button in plan:
                state = ARENA.step(state, [button])
            least.setdefault(tuple(np.round(state.player[0], 4)), length)
        plans = [(*plan, button) for plan in plans for button in range(len(BUTTONS))]
    assert found == least


def test_goals_that_are_nowhere_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goals, "_ARENAS_FOR_ONE", 1)
    with pytest.raises(UserError, match="few places are 50 to 51 steps away"):
        draw_episodes(ARENA, 1, 0, Distances(50, 51))
    with pytest.raises(UserError, match="the nearest first"):
        Distances(9, 3)
    with pytest.raises(UserError, match="budget"):
        Distances(budget=0.5)
    assert not arrived(ARENA, np.zeros(2), np.full((1, 2), np.nan)).any()
