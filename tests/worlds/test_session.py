"""A session is two files, and can be played again: as it was, or in a dream beside the true world."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from minisora.data.video.read_video import probe
from minisora.errors import UserError
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.game import Beginning, Game
from minisora.worlds.session import SUFFIX, read_session, write_session
from minisora.worlds.world import TrueWorld

SMALL = ArenaSettings(32, 32, movers=1, coins=1, turning=0.3)
BUTTONS = ["right", "right", "noop", "left", "right"]


def played(game: Game, beginning: Beginning) -> Game:
    game.begin(beginning)
    for button in BUTTONS:
        game.step(button)
    return game


def test_a_session_is_a_video_with_its_buttons_and_comes_back_the_same(tmp_path: Path) -> None:
    world = TrueWorld(SMALL)
    game = played(Game(world), Beginning(9))
    file = write_session(tmp_path / "out", game.played(), "arena", 10)
    assert probe(file).frames == 6
    assert json.loads(file.with_suffix(SUFFIX).read_text())["buttons"] == BUTTONS
    again = read_session(file).replay()
    assert torch.equal(again.video(), game.played().video())
    second = write_session(tmp_path / "out", game.played(), "arena", 10)
    assert second != file
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_what_was_played_in_the_true_world_is_played_in_a_dream_beside_it(
    tmp_path: Path, dream: Callable[..., Any]
) -> None:
    world = TrueWorld(SMALL)
    game = played(Game(world), Beginning(9))
    session = read_session(write_session(tmp_path, game.played(), "arena", 10))
    beside = session.replay(dream())
    assert torch.equal(torch.stack(beside.true_frames), torch.stack(game.played().frames))
    assert torch.equal(beside.frames[1], game.played().frames[0].roll(3, dims=2))


def test_a_dream_that_began_with_a_picture_comes_back_and_needs_a_world(
    tmp_path: Path, dream: Callable[..., Any]
) -> None:
    picture = torch.randint(0, 256, (3, 2, 32, 32), dtype=torch.uint8)
    game = played(Game(dream()), Beginning(1, picture, words="picture x.png"))
    session = read_session(write_session(tmp_path, game.played(), "pushed", 10))
    assert torch.equal(session.replay(dream()).video(), game.played().video())
    with pytest.raises(UserError, match="'pushed' has no true world"):
        session.replay()


def test_nothing_played_is_nothing_saved(tmp_path: Path) -> None:
    game = Game(TrueWorld(SMALL))
    game.begin(Beginning())
    with pytest.raises(UserError, match="play first"):
        write_session(tmp_path, game.played(), "arena", 10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"buttons": "left"},
        {"buttons": [1]},
        {"buttons": ["left"] * 6001},
        {"seed": -1},
        {"frames": ["bm9wZQ=="]},
        {"fps": None},
        {"format": 99},
        {"arena": {"settings": {"height": 32}, "state": {}}},
        {
            "arena": {
                "settings": {"height": 32},
                "state": {"key": {"type": "object", "shape": [1], "values": [0]}},
            }
        },
    ],
)
def test_a_file_that_is_no_session_is_refused_in_a_line(tmp_path: Path, change: dict[str, Any]) -> None:
    world = TrueWorld(SMALL)
    file = write_session(tmp_path, played(Game(world), Beginning()).played(), "arena", 10)
    side = file.with_suffix(SUFFIX)
    side.write_text(json.dumps(json.loads(side.read_text()) | change))
    with pytest.raises(UserError):
        read_session(file)
    side.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_session(side)
    side.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_session(side)
