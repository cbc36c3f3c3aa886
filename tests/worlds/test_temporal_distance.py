"""The learned distance: what is further in time is further, whatever lies between, and other clips are furthest."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from minisora.data.draws import rng
from minisora.errors import UserError
from minisora.worlds import temporal_distance
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.recording import Recording, record
from minisora.worlds.temporal_distance import (
    TemporalDistance,
    distance_of,
    latent_distance,
    learn_distance,
    pairs,
)


def walks(clips: int = 24, frames: int = 8) -> Tensor:
    """Latents in which a cell goes around a ring of eight, each clip in colours of its own: N Z T h w."""
    latents = torch.zeros(clips, 3, frames, 2, 4)
    ring = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (1, 2), (1, 1), (1, 0)]
    for clip in range(clips):
        latents[clip, 1 + clip % 2] = 1.0
        for frame in range(frames):
            y, x = ring[(clip + frame) % 8]
            latents[clip, 0, frame, y, x] = 3.0
    return latents


def test_a_distance_in_frames_is_learned_where_one_of_latents_is_flat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(temporal_distance, "_BATCH", 48)
    monkeypatch.setattr(temporal_distance, "_LEARNING_RATE", 5e-3)
    latents = walks()
    model = learn_distance(latents, steps=100)
    clip = latents[5]
    first = clip[:, 0][None]
    apart = [float(model.frames(first, clip[:, frame][None])) for frame in (0, 1, 3, 7)]
    assert apart == sorted(apart)
    assert apart[0] < 0.5
    assert apart[-1] > 4
    plain = [float(latent_distance(first, clip[:, frame][None])) for frame in (1, 3, 7)]
    assert max(plain) - min(plain) < 1e-6
    # One goal for many pictures; a picture of another clip is further than all of its own.
    many = model.frames(clip.transpose(0, 1), clip[:, 7][None])
    assert many.shape == (8,)
    assert model.frames(first, latents[6][:, 0][None]) > 2 * max(apart)


def test_pairs_are_as_far_apart_as_their_clip_has_them() -> None:
    # Values that say which frame of which clip it is.
    latents = torch.arange(5.0)[:, None, None, None, None] * 100 + torch.arange(6.0)[:, None, None]
    latents = latents.expand(5, 1, 6, 1, 1)
    now, then, apart = pairs(latents, 400, rng(0))
    first, last = now.flatten().round(), then.flatten()
    same = apart >= 0
    # Noise of at most three tenths does not hide a frame, or hardly ever.
    told = (last - first)[same] == apart[same]
    assert told.float().mean() > 0.9
    assert 0.05 < (~same).float().mean() < 0.2
    assert ((last // 100) != ((first + 0.5) // 100))[~same].all()
    assert set(apart[same].tolist()) == set(range(6))


def test_bins_hold_the_distances_that_they_begin_with() -> None:
    model = TemporalDistance(1, 1, 1, edges=(0, 1, 2, 4, 8))
    assert model.bins(torch.arange(10)).tolist() == [0, 1, 2, 2, 3, 3, 3, 3, 4, 4]


def test_what_tells_no_distance_is_refused() -> None:
    with pytest.raises(UserError, match="1 clips of 8 frames do not tell"):
        learn_distance(walks(1), steps=1)
    with pytest.raises(UserError, match="of 1 frames do not tell"):
        learn_distance(walks(2, 1), steps=1)


def test_it_is_learned_once_and_lies_beside_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = record(Recording(ArenaSettings(16, 16, walls=0), frames=4), 12, tmp_path / "clips")

    class Shrinks:
        """In place of a VAE: the mean colour of each of four parts."""

        device = "cpu"
        config = SimpleNamespace(latent_channels=3)

        def to_latents(self, video: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool3d(video, (1, 8, 8))

        def latent_size(self, *_: int) -> tuple[int, int, int]:
            return 1, 2, 2

    dream = SimpleNamespace(vae=Shrinks(), size=(16, 16), fps=10.0)
    world = tmp_path / "world"
    world.mkdir()
    monkeypatch.setattr(temporal_distance, "_FRAMES", 4)
    with pytest.raises(UserError, match="give --clips"):
        distance_of(world, dream, None, 2)  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    learned = distance_of(world, dream, clips, 2, lambda *done: seen.append(done))  # type: ignore[arg-type]
    assert seen[-1] == (2, 2)
    again = distance_of(world, dream, None, 2)  # type: ignore[arg-type]
    picture = torch.from_numpy(np.linspace(-1, 1, 12, dtype=np.float32)).view(1, 3, 2, 2)
    assert again.frames(picture, -picture).equal(learned.frames(picture, -picture))
    dream.vae.config = SimpleNamespace(latent_channels=5)
    with pytest.raises(UserError, match="of another world's latents"):
        distance_of(world, dream, None, 2)  # type: ignore[arg-type]
