"""A dream is measured against the truth: each measure is right where the answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from minisora.data.clips import to_float
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.models.vae import VideoVAE
from minisora.worlds import measure_world as measures
from minisora.worlds.actions import ActionModel
from minisora.worlds.arena import BUTTONS, Arena, ArenaSettings
from minisora.worlds.dream import Dream, DreamSettings, load_dream
from minisora.worlds.dynamics import build_dynamics
from minisora.worlds.labels import labelled_clips, name_world
from minisora.worlds.measure_world import count_players, locate, measure_table, measure_world
from minisora.worlds.recording import Recording, record
from minisora.worlds.truth import Truth, read_truth, write_truth
from minisora.worlds.world_folder import NAMES

SETTINGS = ArenaSettings(64, 64, walls=1, movers=1, coins=1)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    record(Recording(SETTINGS, frames=9), 6, folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that has learned nothing."""
    from minisora.config import load

    config = load("world_short", ["dit.width=24", "dit.depth=2", "dit.heads=2", "vae.widths=[8, 8]"])
    folder = tmp_path_factory.mktemp("world") / "world"
    Dream(
        VideoVAE(**config.vae.model_dump()),
        build_dynamics(config),
        ActionModel(width=16, depth=2),
        DreamSettings(64, 64, 10.0, 2, 0.1),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
    ).save_pretrained(folder)
    return folder


def test_the_player_is_found_where_it_is_and_nowhere_else() -> None:
    arena = Arena(SETTINGS)
    state = arena.start(4, range(40))
    frames = arena.render(state)
    off = np.abs(locate(frames, state, SETTINGS) - state.player).max(1)
    # The centre of area of a triangle at a few pixels, or of what a ball leaves of it, is not its centre.
    assert np.median(off) < 0.5
    assert off.max() < 4
    empty = frames.clone()
    empty[:] = torch.from_numpy(state.layout.background * 255).to(torch.uint8)[:, :, None, None]
    assert np.isnan(locate(empty, state, SETTINGS)).all()


def test_players_are_counted_and_specks_are_none() -> None:
    settings = ArenaSettings(64, 64, walls=0)
    arena = Arena(settings)
    state = arena.start(4, range(5))
    left, right = (replace(state, player=np.full((5, 2), place)) for place in (16.0, 47.0))
    one, other = (arena.render(each).float() for each in (left, right))
    ground = torch.from_numpy(state.layout.background * 255).float()[:, :, None, None].expand_as(one)
    # Half of the other picture, in which its player stands.
    both = torch.cat([one[..., :32], other[..., 32:]], dim=-1)
    speck = ground.clone()
    speck[:, :, 5:7, 5:7] = one[:, :, 16:17, 16:17]
    counts = [
        count_players(frames.to(torch.uint8), state, settings).tolist()
        for frames in (ground, one, both, speck)
    ]
    assert counts == [[0] * 5, [1] * 5, [2] * 5, [0] * 5]


def test_a_button_shows_where_no_other_would_look_alike(recording: Path) -> None:
    clips = list(labelled_clips(recording, (64, 64)))
    shown = measures._shown(clips, recording)
    assert shown is not None
    buttons = np.concatenate([clip.truth.buttons for clip in clips])
    player = np.concatenate([np.diff(clip.truth.states["player"], axis=0) for clip in clips])
    still = np.abs(player).max(1) < 0.5
    pressed = buttons != BUTTONS.index("noop")
    # What did not move though a button was pressed is like doing nothing; what moved a whole step is like nothing else.
    assert not shown[pressed & still].any()
    assert shown[np.abs(player).max(1) > 2.9].all()


def test_a_world_is_named_and_measured(
    world: Path, recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "_SUPERVISED_STEPS", 3)
    result = measure_world(load_dream(world, "cpu"), recording, 2, labels=(8, 999))
    assert set(result["decoding"]["labels"]) == {"8"}
    # What was left out is told, not left unsaid.
    assert result["decoding"]["labels_left_out"] == [999]
    assert "999 labels" in str([column._cells for column in measure_table(result).columns])
    assert "player" not in result
    names = name_world(world, recording, labels=20)
    assert sum(sum(row) for row in names.counts) == 20
    result = measure_world(load_dream(world, "cpu"), recording, 2, labels=(8,))
    assert result["clips"] == 3
    # Where there is no player there is no number, and JSON has no other word for it.
    assert result["player"]["median_error"] == {"1": None}
    assert result["player"]["one_player"] == {"1": 0.0}
    assert result["player"]["floor"] < 1
    json.dumps(result, allow_nan=False)
    assert "direction right" in str([column._cells for column in measure_table(result).columns])
    (world / NAMES).unlink()
    with pytest.raises(UserError, match="is no recording"):
        name_world(world, tmp_path, 20)
    with pytest.raises(UserError, match="record more clips"):
        name_world(world, recording, 20_000)


def test_short_clips_name_codes_and_what_they_cannot_measure_is_a_line(world: Path, tmp_path: Path) -> None:
    record(Recording(SETTINGS, frames=3), 12, tmp_path)
    # Twelve clips have two steps each.
    names = name_world(world, tmp_path, labels=20)
    (world / NAMES).unlink()
    assert sum(sum(row) for row in names.counts) == 20
    dream = load_dream(world, "cpu")
    with pytest.raises(UserError, match="12 steps beside those that are measured, too few for 20 labels"):
        measure_world(dream, tmp_path, 2)
    with pytest.raises(UserError, match="clips of 3 frames, and control is measured on 8"):
        measure_world(dream, tmp_path, 2, labels=(8,))


def test_a_clip_of_one_frame_has_no_step_and_is_told(tmp_path: Path) -> None:
    clips = record(Recording(SETTINGS, frames=2), 1, tmp_path)
    truth = read_truth(tmp_path / "truth" / "clip_000000.npz")
    write_truth(tmp_path / "truth" / "clip_000000.npz", replace(truth, buttons=truth.buttons[:0]))
    write_video(clips / "clip_000000.mp4", torch.zeros(3, 1, 64, 64, dtype=torch.uint8), 10)
    with pytest.raises(UserError, match="has one frame, and no step"):
        list(labelled_clips(tmp_path, (64, 64)))


def test_clips_of_another_pace_have_other_steps_and_are_refused(recording: Path) -> None:
    assert len(list(labelled_clips(recording, (64, 64), 10.0))) == 6
    with pytest.raises(UserError, match="has 10 frames a second, the world 15, .* clip.fps=10"):
        list(labelled_clips(recording, (64, 64), 15.0))


def test_others_games_are_measured_where_clips_end_early_and_no_state_is_known(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "_SUPERVISED_STEPS", 3)
    for number in range(6):
        name = f"clip_{number:06d}"
        # One of them ended after four frames, as a level of a game does.
        frames = 4 if number == 1 else 10
        video = torch.randint(0, 256, (3, frames, 64, 64), dtype=torch.uint8)
        (tmp_path / "clips").mkdir(exist_ok=True)
        write_video(tmp_path / "clips" / f"{name}.mp4", video, 10)
        truth = Truth("pong", "sticky", ("noop", "up", "down"), np.arange(frames - 1) % 3, {})
        write_truth(tmp_path / "truth" / f"{name}.npz", truth)
    result = measure_world(load_dream(world, "cpu"), tmp_path, 2, labels=(8,))
    assert result["decoding"]["shown"] is None
    assert result["delta_psnr"]["clips"] == 2
    assert {"found", "random", "one", "copy", "delta"} <= set(result["delta_psnr"])
    assert "player" not in result
    json.dumps(result, allow_nan=False)


def test_control_of_a_world_that_was_told_the_buttons_is_measured_by_the_buttons(
    world: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dream = load_dream(world, "cpu")
    clips = list(labelled_clips(recording, (64, 64)))
    pressed: list[list[int]] = []
    monkeypatch.setattr(
        dream,
        "step",
        lambda codes: pressed.append(list(codes)) or torch.zeros(6, 3, 64, 64, dtype=torch.uint8),
    )
    measures.delta_psnr(dream, clips)
    dream.settings = replace(dream.settings, told=True)
    measures.delta_psnr(dream, clips)
    found, told = (np.array(pressed[first : first + 4]).T for first in (0, 12))
    # The four steps after the four frames that are seen.
    assert (told == np.stack([clip.truth.buttons[3:7] for clip in clips])).all()
    assert (
        found == np.stack([dream.actions.codes_of(to_float(clip.video)).numpy()[3:7] for clip in clips])
    ).all()
    assert np.array(pressed[16:]).max() < len(BUTTONS)
