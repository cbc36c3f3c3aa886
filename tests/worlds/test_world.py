"""A world is played alike, true or dreamed."""

import pytest
import torch

from minisora.errors import UserError
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.world import TrueWorld, World


def test_the_true_arena_is_a_world_that_can_be_gone_back_in() -> None:
    settings = ArenaSettings(32, 48, walls=1)
    world: World = TrueWorld(settings)
    first = world.start(seed=3)
    assert first.equal(Arena(settings).render(Arena(settings).start(3, [0])))
    assert first.shape == (1, 3, *world.size)
    assert world.names == BUTTONS
    assert world.num_codes == 5

    moment = world.keep()
    ways = [world.step([world.buttons[name]]) for name in ("left", "up")]
    world.go_back(moment, [0, 0, 0])
    several = world.step([world.buttons[name] for name in ("left", "right", "noop")])
    assert several[0].equal(ways[0][0])
    assert not several[1].equal(first[0])
    assert several[2].equal(first[0])
    assert world.start(seed=3).equal(first)


def test_the_true_arena_says_what_it_cannot() -> None:
    world = TrueWorld(ArenaSettings(16, 16, walls=0))
    with pytest.raises(UserError, match="not begun"):
        world.step([0])
    with pytest.raises(UserError, match="by a seed"):
        world.start(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
