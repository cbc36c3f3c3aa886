"""How a game is put together: what does not go together is refused in a line, before anything is loaded or written."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from minisora.cli import app
from minisora.config import load
from minisora.data.video.read_video import probe
from minisora.errors import UserError
from minisora.models.build import build_vae
from minisora.player.play_world import Start, make_game, open_world, save_session
from minisora.worlds.actions import ActionModel
from minisora.worlds.arena import BUTTONS, ArenaSettings
from minisora.worlds.dream import Dream, DreamSettings
from minisora.worlds.dynamics import build_dynamics
from minisora.worlds.first_frames import BEFORE
from minisora.worlds.naming import name_codes
from minisora.worlds.play import Loop
from minisora.worlds.recording import Recording, play, record
from minisora.worlds.session import read_session, write_session
from minisora.worlds.world_folder import NAMES

SMALL = ArenaSettings(32, 32, movers=1)


@pytest.fixture(scope="module")
def dream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that learned nothing, with the arena's names."""
    vae = ["vae.widths=[16, 16]", "vae.blocks_per_level=1", "vae.latent_channels=4"]
    dit = ["dit.width=24", "dit.depth=1", "dit.heads=2", "world.window=3", "world.frames=3"]
    config = load("world", [*vae, *dit], {})
    torch.manual_seed(0)
    parts = build_vae(config), build_dynamics(config), ActionModel(width=16, depth=2)
    starts = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    folder = tmp_path_factory.mktemp("dream")
    Dream(*parts, DreamSettings(32, 32, 10.0, 2, 0.1), starts).save_pretrained(folder)
    name_codes([3, 1, 4, 0, 6], range(5), 8, BUTTONS).write(folder / NAMES)
    return folder


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
        (["--replay", "."], "is no file: give one"),
        (
            ["--replay", "x.mp4", "--fps", "30", "--movers", "2"],
            "--fps and --movers would do nothing beside --replay",
        ),
        (["dream", "--movers", "2"], "--movers would do nothing beside a dream without --beside"),
        (["--terminal", "--port", "1"], "--port would do nothing beside --terminal"),
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


def test_a_dream_is_played_from_every_first_frame_and_its_session_again(dream: Path, tmp_path: Path) -> None:
    clips = record(Recording(SMALL, frames=12), 1, tmp_path)
    picture = tmp_path / "x.png"
    Image.new("RGB", (40, 50), "red").save(picture)
    begun = [
        (Start(2), True, True),
        (Start(2), False, False),
        (Start(2, picture=picture), True, False),
        (Start(2, clip=clips / "clip_000000.mp4"), False, True),
    ]
    for start, beside, has_truth in begun:
        game = make_game(str(dream), SMALL, beside, start)
        for button in ("left", "noop", "up"):
            game.step(button)
        assert (game.now[1] is not None, game.off is not None) == (has_truth, has_truth)
        file = write_session(tmp_path / "out", game.played(), "dream", 10)
        again = read_session(file).replay(open_world(str(dream)))
        assert torch.equal(again.video(), game.played().video())
        assert again.off == game.played().off


def test_a_session_keeps_the_pace_that_it_was_played_at(tmp_path: Path) -> None:
    game = make_game("arena", SMALL, False, Start())
    game.step("up")
    loop = Loop(game, 49)
    assert read_session(save_session(loop, "arena", tmp_path)).fps == 49
    # The page's menu and the terminal choose another.
    loop.set_fps(5)
    assert read_session(save_session(loop, "arena", tmp_path)).fps == 5


def test_a_recorded_clip_shorter_than_what_is_shown_of_it_is_played_on_from_its_end(tmp_path: Path) -> None:
    clips = record(Recording(SMALL, frames=4), 1, tmp_path)
    videos, _, _ = play(Recording(SMALL, frames=4), [0])
    game = make_game("arena", SMALL, False, Start(clip=clips / "clip_000000.mp4"))
    assert torch.equal(game.now[0], videos[0, :, -1])
