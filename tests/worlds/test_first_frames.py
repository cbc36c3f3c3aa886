"""First frames: a picture and a clip in the world's size, the true world of a recorded clip, and what a model draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minisora.errors import UserError
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.first_frames import BEFORE, of_clip, of_picture, of_prompt
from minisora.worlds.recording import Recording, play, record

SMALL = Recording(ArenaSettings(32, 32, movers=1), frames=12, seed=3)


def test_a_picture_of_any_size_is_a_first_frame(tmp_path: Path, dream: Callable[..., Any]) -> None:
    Image.fromarray(np.full((50, 90, 3), (200, 30, 20), np.uint8)).save(tmp_path / "x.png")
    beginning = of_picture(tmp_path / "x.png", dream(), seed=4)
    assert beginning.frames is not None
    assert beginning.frames.shape == (3, 1, 32, 32)
    assert beginning.frames[:, 0, 5, 5].tolist() == [200, 30, 20]
    assert (beginning.seed, beginning.truth) == (4, None)
    with pytest.raises(UserError, match="nowhere"):
        of_picture(tmp_path / "nowhere.png", dream())


def test_a_recorded_clip_brings_the_true_world_at_its_frame(
    tmp_path: Path, dream: Callable[..., Any]
) -> None:
    clips = record(SMALL, 2, tmp_path)
    videos, truths, _ = play(SMALL, [1])
    beginning = of_clip(clips / "clip_000001.mp4", dream())
    assert beginning.frames is not None
    assert beginning.truth is not None
    assert beginning.frames.shape == (3, BEFORE + 1, 32, 32)
    assert torch.equal(beginning.truth.start()[0], videos[0, :, BEFORE])
    after = beginning.truth.step(truths[0].buttons[BEFORE : BEFORE + 1])
    assert torch.equal(after[0], videos[0, :, BEFORE + 1])
    # Far from noise: the clip's frame is the true one as an mp4 keeps it.
    assert (beginning.frames[:, -1].float() - videos[0, :, BEFORE].float()).abs().mean() < 8


def test_a_clip_of_another_rate_or_size_has_no_true_world_beside(
    tmp_path: Path, dream: Callable[..., Any]
) -> None:
    clips = record(SMALL, 1, tmp_path)
    assert of_clip(clips / "clip_000000.mp4", dream((16, 16))).truth is None
    slow = dream()
    slow.fps = 5.0
    nameless = dream()
    nameless.names = ("code 0", "code 1", "code 2")
    assert of_clip(clips / "clip_000000.mp4", nameless).truth is None
    beginning = of_clip(clips / "clip_000000.mp4", slow)
    assert beginning.truth is None
    assert beginning.frames is not None
    assert beginning.frames.shape[1] < BEFORE + 1
    (tmp_path / "truth" / "recording.json").write_text("[]")
    with pytest.raises(UserError, match="damaged"):
        of_clip(clips / "clip_000000.mp4", dream())


@pytest.mark.slow
def test_words_draw_a_first_frame_in_the_worlds_size(dream: Callable[..., Any]) -> None:
    beginning = of_prompt(" a large red circle by day ", dream())
    assert beginning.frames is not None
    assert beginning.frames.shape == (3, 1, 32, 32)
    red, green, _ = beginning.frames[:, 0].float()
    assert ((red > 150) & (green < 90)).float().mean() > 0.05
    with pytest.raises(UserError, match="no prompt"):
        of_prompt("  ", dream())
