"""A game: the true world takes the same buttons beside the dream, and a beginning that fails changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from minisora.errors import UserError
from minisora.worlds import game as games
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.game import Beginning, Game, drift
from minisora.worlds.world import TrueWorld

SMALL = ArenaSettings(32, 32, movers=1)
BUTTONS = ["right", "right", "noop", "left", "right"]


def test_the_true_world_begins_and_goes_on_as_it_does_alone(dream: Callable[..., Any]) -> None:
    game = Game(dream(), TrueWorld(SMALL))
    game.begin(Beginning(seed=5))
    alone = TrueWorld(SMALL)
    expected = [alone.start(seed=5)[0]]
    for button in BUTTONS:
        game.step(button)
        expected.append(alone.step([alone.buttons[button]])[0])
    played = game.played()
    assert torch.equal(torch.stack(played.true_frames), torch.stack(expected))
    assert torch.equal(played.frames[0], expected[0])
    assert torch.equal(played.frames[2], expected[0].roll(6, dims=2))
    assert torch.equal(game.now[0], played.frames[-1])
    assert played.buttons == BUTTONS
    assert played.video().shape == (3, 6, 32, 64)
    assert played.drift()[0] == float("inf") > played.drift()[1]


def test_how_far_the_player_is_off_is_told_in_pixels(dream: Callable[..., Any]) -> None:
    game = Game(dream(), TrueWorld(ArenaSettings(32, 32, walls=0)))
    game.begin(Beginning(seed=5))
    assert game.off is not None
    assert game.off < 1
    # The dream pushes all of its picture by 3 pixels, the arena walks half of that.
    game.step("left")
    assert game.off == pytest.approx(1.5, abs=0.7)
    empty = torch.full((3, 1, 32, 32), 255, dtype=torch.uint8)
    game.begin(Beginning(frames=empty, truth=TrueWorld(SMALL)))
    assert game.off == float("inf")
    game.begin(Beginning(frames=empty))
    assert game.off is None
    assert game.played().off == [None]


def test_a_button_that_the_true_world_alone_has_is_nothing_to_the_dream(dream: Callable[..., Any]) -> None:
    game, alone = Game(dream(), TrueWorld(SMALL)), TrueWorld(SMALL)
    game.begin(Beginning(seed=5))
    first = game.now[0]
    game.step("up")
    alone.start(seed=5)
    assert torch.equal(game.now[0], first)
    assert torch.equal(game.played().true_frames[1], alone.step([alone.buttons["up"]])[0])
    unsaid = dream()
    unsaid.names = ("right", "down", "left")
    game = Game(unsaid, TrueWorld(SMALL))
    game.begin(Beginning(seed=5))
    with pytest.raises(UserError, match="no button 'up'"):
        game.step("up")


def test_drift_is_psnr() -> None:
    black = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert drift(black, black + 255) == 0
    assert drift(black, black + 51) == pytest.approx(13.979, abs=1e-3)  # 20 log10(5)


def test_a_picture_begins_a_dream_without_a_true_world_and_a_seed_one_with_it(
    dream: Callable[..., Any],
) -> None:
    game = Game(dream(), TrueWorld(SMALL))
    picture = torch.randint(0, 256, (3, 2, 32, 32), dtype=torch.uint8)
    game.begin(Beginning(frames=picture))
    assert torch.equal(game.now[0], picture[:, -1])
    assert game.now[1] is None
    game.begin(Beginning(seed=1))
    assert game.now[1] is not None
    game.begin(Beginning(frames=picture, truth=TrueWorld(SMALL)))
    assert game.now[1] is not None


def test_a_beginning_that_does_not_fit_leaves_the_game_as_it_was(dream: Callable[..., Any]) -> None:
    game, other = (Game(dream(), TrueWorld(SMALL)) for _ in range(2))
    for each in (game, other):
        each.begin(Beginning(seed=2))
        each.step("right")
    with pytest.raises(UserError, match="shows"):
        game.begin(Beginning(frames=torch.zeros(3, 1, 16, 16, dtype=torch.uint8)))
    for each in (game, other):
        each.step("left")
    assert torch.equal(game.played().video(), other.played().video())
    assert game.beginning.seed == 2


def test_a_world_that_does_not_match_the_true_one_is_refused(dream: Callable[..., Any]) -> None:
    with pytest.raises(UserError, match="32x32, the true one 16x16"):
        Game(dream(), TrueWorld(ArenaSettings(16, 16)))
    unnamed = dream()
    unnamed.names = ("right", "code 1", "left")
    with pytest.raises(UserError, match="no button for code 1"):
        Game(unnamed, TrueWorld(SMALL))
    game = Game(dream())
    with pytest.raises(UserError, match="begin"):
        game.played()
    game.begin(Beginning())
    with pytest.raises(UserError, match="no button 'up'"):
        game.step("up")


def test_a_recording_keeps_the_first_steps_of_a_long_game(
    dream: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(games, "MAX_KEPT", 3)
    game = Game(dream())
    game.begin(Beginning())
    for button in BUTTONS:
        game.step(button)
    assert game.steps == 5
    assert game.played().buttons == BUTTONS[:3]
    assert len(game.played().frames) == 4
