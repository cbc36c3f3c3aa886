"""The ablations of a world: without the cache the same is dreamed, and every variant is a config."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from minisora.config import ClipConfig, load
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.errors import UserError
from minisora.models.frame_memory import FrameMemory
from minisora.worlds.arena import ArenaSettings
from minisora.worlds.dynamics import build_dynamics
from minisora.worlds.recording import Recording, play, record

FILE = Path(__file__).parents[2] / "benchmarks" / "world_ablations.py"


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    spec = importlib.util.spec_from_file_location("world_ablations", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_cache_a_window_is_seen_as_with_it(ablations: ModuleType) -> None:
    shape = ["dit.width=24", "dit.depth=2", "dit.heads=2", "vae.latent_channels=2", "world.window=4"]
    torch.manual_seed(0)
    model = build_dynamics(load("world", shape)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        cached, whole = FrameMemory(model), ablations.WholeWindow(model)
        for frame in range(8):
            latents, sigma = torch.randn(3, 5, 1, 4, 4), torch.full((3,), 0.1)
            codes = torch.tensor([frame % 8, 1, 7])
            said = [memory.look(latents, sigma, codes) for memory in (cached, whole)]
            # One layer looks through time, so nothing older than the window is in either; rows are kept apart.
            torch.testing.assert_close(*said, atol=1e-4, rtol=1e-4)
            for memory in (cached, whole):
                memory.see(latents, sigma, codes)
        now = whole.look(latents, sigma, codes)
        few = whole.take(torch.tensor([2, 0]), 3)
        seen = few.look(latents[[2, 0]], sigma[:2], codes[[2, 0]])
        torch.testing.assert_close(seen, now[[2, 0]], atol=1e-4, rtol=1e-4)


def test_every_variant_of_training_is_a_config_and_none_is_another(ablations: ModuleType) -> None:
    plain = load("world")
    configs = {name: load("world", changes) for name, changes in ablations.TRAINED.items()}
    assert [name for name, config in configs.items() if config == plain] == ["as the run", "one stream"]


def test_true_buttons_are_those_of_each_clip(ablations: ModuleType, tmp_path: Path) -> None:
    recording = Recording(ArenaSettings(32, 32), frames=5)
    clips = record(recording, 3, tmp_path)
    data = FolderDataset(clips, ClipConfig(frames=5, height=32, width=32, fps=10))
    truths = play(recording, range(3))[1]
    np.testing.assert_array_equal(
        ablations.true_buttons(tmp_path, 5)(data).numpy(), np.stack([truth.buttons for truth in truths])
    )
    with pytest.raises(UserError, match="other lengths"):
        ablations.true_buttons(tmp_path, 4)(data)
