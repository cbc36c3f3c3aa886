"""Minutes of a world: shared out over three stages by what a few real steps take; no clock is looked at."""

from pathlib import Path

import pytest
from rich.console import Console

from minisora.config import load
from minisora.errors import UserError
from minisora.worlds import world_minutes
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.recording import Recording, record
from minisora.worlds.world_minutes import train_world_for_minutes

TINY = """
clip: {frames: 5, height: 32, width: 32, fps: 10}
data: {num_validation_clips: 2, require_captions: false}
vae: {temporal_factor: 1, mixes_frames: false, widths: [16, 16], blocks_per_level: 1, latent_channels: 4}
dit: {width: 24, depth: 2, heads: 2, attention: factorised, text_conditioning: false}
world: {action_width: 16, action_depth: 2, window: 3, frames: 3}
train_vae: {batch_size: 2, crop: [1, 32, 32]}
train_actions: {batch_size: 2}
train_dynamics: {batch_size: 2}
"""


def test_minutes_are_shared_out_over_three_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = record(Recording(ArenaSettings(32, 32, walls=0), frames=5), 4, tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    config = load(tmp_path / "tiny.yaml", [], {"data.source": "folder", "data.path": clips})
    # Every step takes half a second, the rest of each stage five, and ten have passed.
    monkeypatch.setattr(world_minutes, "step_and_rest", lambda *_: (0.5, 5.0))
    monkeypatch.setattr(world_minutes, "_time_clips", lambda *_: (3.0, 20.0))
    monkeypatch.setattr(world_minutes, "elapsed", lambda: 10.0)
    planned = []
    for name in ("train_vae", "train_actions", "train_dynamics"):
        whole = getattr(world_minutes, name)

        def stage(config: object, run: Path, *rest: object, whole: object = whole, **more: object) -> None:
            if run.name == "trial":
                whole(config, run, *rest, **more)  # type: ignore[operator]
            else:
                planned.append(config)

        monkeypatch.setattr(world_minutes, name, stage)
    run = tmp_path / "run"
    train_world_for_minutes(config, run, Console(quiet=True), 10)
    assert not (run / "trial").exists()
    vae, actions, dynamics = planned
    left = 600 - 8 - 10 - 23
    assert vae.train_vae.steps == int((0.15 * left - 5) / 0.5)
    assert actions.train_actions.steps == int((0.22 * left - 5) / 0.5)
    # Nothing has been taken by the stages before, so all that is left is the last one's.
    assert dynamics.train_dynamics.steps == pytest.approx((600 - 8 - 10 - 20 - 5) / 0.5, abs=2)

    # The same minutes go on by the same plan, others are refused.
    train_world_for_minutes(config, run, Console(quiet=True), 10)
    assert planned[3].train_vae.steps == vae.train_vae.steps
    with pytest.raises(UserError, match="planned for 10 minutes"):
        train_world_for_minutes(config, run, Console(quiet=True), 5)
    with pytest.raises(UserError, match="too few on this machine"):
        train_world_for_minutes(config, tmp_path / "other", Console(quiet=True), 1.5)
