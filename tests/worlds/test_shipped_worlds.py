"""The world that came with minisora: small, named, and steered by its buttons."""

from pathlib import Path

import numpy as np
import pytest

from minisora.errors import UserError
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.dream import load_dream
from minisora.worlds.labels import name_world
from minisora.worlds.measure_world import locate
from minisora.worlds.world_folder import WORLDS, find_world, learned_beside

ARENAS, HELD = 24, 3


def test_it_is_small_and_every_button_has_a_code() -> None:
    world = find_world("dream")
    assert world == WORLDS / "dream"
    assert sum(file.stat().st_size for file in world.rglob("*")) < 12 * 2**20
    assert set(load_dream(world, "cpu").buttons) == set(BUTTONS)


def test_what_is_learned_about_it_is_put_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert learned_beside(Path("dream")) == Path("runs/dream-plan")
    assert learned_beside(tmp_path) == tmp_path
    with pytest.raises(UserError, match="came with minisora"):
        name_world(Path("dream"), tmp_path, 200)


@pytest.mark.slow
def test_its_player_goes_where_that_of_the_arena_goes() -> None:
    dream, settings = load_dream(find_world("dream"), "cpu"), ArenaSettings()
    arena = Arena(settings)
    for button in ("up", "down", "left", "right"):
        state = start = arena.start(7, list(range(ARENAS)))
        dream.start(arena.render(start))
        for _ in range(HELD):
            state = arena.step(state, [BUTTONS.index(button)] * ARENAS)
            shown = dream.step([dream.buttons[button]] * ARENAS)
        moved = np.abs(state.player - start.player).max(1) > 6
        off = np.linalg.norm(locate(shown, state, settings) - state.player, axis=1)[moved]
        assert len(off) >= 10
        # Where it does not go by itself it would be off by six pixels and more.
        assert np.median(off) < 3, button
