"""A world from clips alone: trained, killed and resumed, loaded, played, and without a look at the truth."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from minisora.config import Config, load
from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.run_metrics import read_metrics
from minisora.training import checkpoint
from minisora.worlds import world_folder
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.dream import load_dream
from minisora.worlds.dynamics import build_dynamics
from minisora.worlds.naming import name_codes
from minisora.worlds.recording import Recording, record
from minisora.worlds.world import World
from minisora.worlds.world_folder import export_world, shipped_worlds
from minisora.worlds.world_stages import train_world

QUIET = Console(quiet=True)
TINY = """
clip: {frames: 5, height: 32, width: 32, fps: 10}
data: {num_validation_clips: 4, require_captions: false}
vae: {temporal_factor: 1, mixes_frames: false, widths: [16, 16], blocks_per_level: 1, latent_channels: 4}
dit: {width: 24, depth: 2, heads: 2, attention: factorised, text_conditioning: false}
world: {action_width: 16, action_depth: 2, window: 3, frames: 3}
train_vae: {steps: 4, batch_size: 4, crop: [2, 32, 32], save_every: 4, validate_every: 4, log_every: 1}
train_actions: {steps: 4, batch_size: 4, save_every: 2, validate_every: 4, log_every: 1}
train_dynamics: {steps: 4, batch_size: 4, save_every: 2, validate_every: 4, log_every: 1}
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("world")
    clips = record(Recording(ArenaSettings(32, 32, walls=1), frames=5), 12, folder)
    file = folder / "tiny.yaml"
    file.write_text(TINY)
    return load(file, [], {"data.source": "folder", "data.path": clips})


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    train_world(config, run, QUIET)
    return run


def test_a_run_that_is_killed_in_two_stages_goes_on_the_same(
    config: Config, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = checkpoint.save
    for stage in ("actions", "dynamics"):

        def save(folder: Path, state: checkpoint.TrainState, *rest: Any, stage: str = stage) -> Path:
            place = kept(folder, state, *rest)
            if (state.stage, state.step) == (stage, 2):
                raise KeyboardInterrupt
            return place

        monkeypatch.setattr(checkpoint, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train_world(config, tmp_path, QUIET)
    monkeypatch.undo()
    train_world(config, tmp_path, QUIET)
    losses, others = (
        [row["loss"] for row in read_metrics(each / "metrics.jsonl") if "loss" in row]
        for each in (run, tmp_path)
    )
    assert len(losses) == 12
    assert losses == others
    for name in ("dit", "actions"):
        file = f"world/{name}/diffusion_pytorch_model.safetensors"
        assert (run / file).read_bytes() == (tmp_path / file).read_bytes()


def test_a_world_is_played_and_what_follows_is_what_was_done(run: Path) -> None:
    dream = load_dream(run / "world", "cpu")
    world: World = dream
    assert (world.size, world.fps, world.num_codes) == ((32, 32), 10.0, 8)
    assert world.names[3] == "code 3"
    first = world.start(seed=1)
    assert first.shape == (1, 3, 32, 32)
    moment = world.keep()
    pressed = ((1, 2, 3, 1), (5, 2, 3, 1))
    ways = []
    for codes in pressed:
        world.go_back(moment)
        ways.append([world.step([code]) for code in codes])
    # The same again, alone or beside another.
    world.go_back(moment, [0, 0])
    for at in range(4):
        both = world.step([codes[at] for codes in pressed])
        for row in range(2):
            assert (both[row].int() - ways[row][at][0].int()).abs().max() <= 1
    # Of frames that were seen, the last is now.
    clip = torch.stack([first, first], dim=2)
    assert world.start(clip, seed=1).equal(first)
    assert world.step([0]).shape == (1, 3, 32, 32)
    for wrong, what in (([8], "0 to 7"), ([0, 1], "need 1 codes"), ([0.5], "whole numbers")):
        with pytest.raises(UserError, match=what):
            world.step(wrong)
    with pytest.raises(UserError, match="B 3 32 32"):
        world.start(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_names_are_beside_a_world_and_stay_when_it_is_trained_again(config: Config, run: Path) -> None:
    names = name_codes([1, 4], [0, 1], 8, ("noop", "up"))
    names.write(run / "world" / "names.json")
    train_world(config, run, QUIET)
    dream = load_dream(run / "world", "cpu")
    assert dream.names[:2] == ("code 0", "noop")
    assert dream.buttons == {"noop": 1, "up": 4}
    (run / "world" / "names.json").unlink()


def test_a_world_is_made_small_and_found_by_its_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run / "world", tmp_path / "world")
    name_codes([1, 4], [0, 1], 8, ("noop", "up")).write(tmp_path / "world" / "names.json")
    write_json(
        tmp_path / "scores.json",
        {
            "decoding": {"labels": {"20": {"codes": 0.1}, "200": {"codes": 0.5}, "2000": {"codes": 0.9}}},
            "delta_psnr": {"delta": 7.192},
            "player": {
                "direction_right": [0.9, None, 0.8],
                "median_error": {"1": 0.5, "8": None},
                "player_there": {"1": 1.0, "8": 0.25},
            },
        },
    )
    small = tmp_path / "worlds" / "little"
    for _ in range(2):  # an earlier export is replaced
        size = export_world(tmp_path / "world", small, tmp_path / "scores.json")
    whole = sum(file.stat().st_size for file in (run / "world").rglob("*") if file.is_file()) / 2**20
    assert size < 0.75 * whole
    card = (small / "README.md").read_text()
    for told in (
        "200 labels | 50.0% |",
        "7.19 dB",
        "quadrant | 80% |",
        "1 frame on | off by 0.5 pixels, there in 100% |",
        "8 frames on | there in 25% |",
    ):
        assert told in card
    # A name is a word of a command, never two.
    odd = tmp_path / "a world; rm x"
    export_world(tmp_path / "world", odd)
    assert "    minisora world play 'a world; rm x' --beside\n" in (odd / "README.md").read_text()
    monkeypatch.setattr(world_folder, "WORLDS", tmp_path / "worlds")
    assert shipped_worlds() == ["little"]
    dream, before = load_dream(Path("little"), "cpu"), load_dream(tmp_path / "world", "cpu")
    assert {weight.dtype for weight in dream.dit.parameters()} == {torch.float32}
    assert dream.buttons == before.buttons == {"noop": 1, "up": 4}
    assert dream.start(seed=1).equal(before.start(seed=1))
    assert (dream.step([4]).int() - before.step([4]).int()).abs().max() <= 4
    with pytest.raises(UserError, match="name a shipped one: little"):
        load_dream(tmp_path / "none", "cpu")


def test_nothing_but_an_earlier_export_is_replaced(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "world", tmp_path / "world")
    for out, why in (
        ("world", "lie in each other"),
        ("world/small", "lie in each other"),
        (".", "lie in each other"),
        ("other", "holds 'mine.txt' and is no earlier export"),
        ("file", "holds 'file' and is no earlier export"),
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / "mine.txt").write_text("kept")
        (tmp_path / "file").write_text("kept")
        with pytest.raises(UserError, match=why):
            export_world(tmp_path / "world", tmp_path / out)
    assert (tmp_path / "other" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "kept"
    # Another trained world, which has no card, is not replaced either.
    with pytest.raises(UserError, match="is no earlier export"):
        export_world(tmp_path / "world", run / "world")
    write_json(tmp_path / "scores.json", {"decoding": 1})
    with pytest.raises(UserError, match="no scores of minisora world evaluate"):
        export_world(tmp_path / "world", tmp_path / "small", tmp_path / "scores.json")
    assert not (tmp_path / "small").exists()


def test_a_damaged_or_missing_world_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"did you mean {run / 'world'}")):
        load_dream(run)
    with pytest.raises(UserError, match="run 'minisora world train' first"):
        load_dream(tmp_path)


def test_a_world_from_before_it_named_what_is_said_says_the_clean_frame(run: Path, tmp_path: Path) -> None:
    world = tmp_path / "world"
    shutil.copytree(run / "world", world)
    about = read_json(world / "world.json")
    assert about.pop("objective") == load_dream(world, "cpu").settings.objective == "composite"
    write_json(world / "world.json", about)
    assert load_dream(world, "cpu").settings.objective == "clean"


def test_checkpointing_computes_a_worlds_blocks_again_and_changes_no_gradient(config: Config) -> None:
    gradients = []
    for kept in (False, True):
        config = config.replace(**{"dit.checkpointing": kept})
        torch.manual_seed(0)
        model = build_dynamics(config)
        # Fresh, it says nothing: the last layer is zero.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        calls: list[None] = []
        model.blocks[0].register_forward_pre_hook(lambda *_, calls=calls: calls.append(None))
        latents = torch.randn(1, 9, 3, 4, 4)
        model(latents, torch.rand(1, 3), labels=torch.zeros(1, 3, dtype=torch.long)).square().sum().backward()
        assert len(calls) == 1 + kept
        gradients.append(next(model.blocks[0].parameters()).grad)
    assert gradients[0] is not None
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_a_world_needs_a_vae_of_single_frames(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mixes_frames=false"):
        train_world(config.replace(**{"vae.mixes_frames": True}), tmp_path, QUIET)
