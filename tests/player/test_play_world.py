"""How a game is put together: what does not go together is refused in a line, before anything is loaded or written."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from minisora.cli import app
from minisora.data.video.read_video import probe
from minisora.errors import UserError
from minisora.player.play_world import Start, make_game
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.first_frames import BEFORE
from minisora.worlds.recording import Recording, play, record
from minisora.worlds.session import write_session

SMALL = ArenaSettings(32, 32, movers=1)


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["world", "play", *arguments])
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--picture", "x.png"], "--picture begins a dream"),
        (["--prompt", "a red circle"], "--prompt begins a dream"),
        (["--beside"], "give the folder of a world"),
        (["--picture", "x.png", "--clip", "x.mp4"], "--picture and --clip: a world has one beginning"),
        (["--clip", "x.mp4"], "was not recorded by"),
        (["nowhere"], "nowhere is no world"),
        (["--replay", "x.mp4", "--terminal"], "--terminal would do nothing beside --replay"),
        (["--replay", "nowhere.mp4"], "cannot be read"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'minisora[studio]'")
    monkeypatch.chdir(tmp_path)
    assert words in refusal(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_of_the_arena_is_played_on_from_its_frame(tmp_path: Path) -> None:
    recording = Recording(SMALL, frames=12)
    clips = record(recording, 1, tmp_path)
    game = make_game("arena", ArenaSettings(), False, Start(clip=clips / "clip_000000.mp4"))
    assert torch.equal(game.now[0], play(recording, [0])[0][0, :, BEFORE])


def test_a_saved_session_is_played_again_by_the_command(tmp_path: Path) -> None:
    game = make_game("arena", SMALL, False, Start(seed=4))
    for button in ("left", "up", "up"):
        game.step(button)
    file = write_session(tmp_path, game.played(), "arena", 10)
    result = CliRunner().invoke(app, ["world", "play", "--replay", str(file), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert probe(tmp_path / "played_000002.mp4").frames == 4
    assert (tmp_path / "played_000002.mp4").read_bytes() == file.read_bytes()
