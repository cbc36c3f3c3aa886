"""What each part of a world is worth: the same run with one thing changed, measured as `minisora world evaluate` does.

    minisora world train --data worlds/arena/clips --out runs/arena --minutes 60
    python benchmarks/world_ablations.py runs/arena --recording worlds/arena --test worlds/test --out DIR --json FILE

Two kinds of variants. Of play: the run's own world with other sampling steps, another noise level of what is before, or
without the cache of keys and values (the same number of past frames, looked at anew for each frame). Of training: the
dynamics trained anew on the run's VAE and codes for `--steps` steps each, one of them with the run's own settings; with
codes found by FSQ; with the true buttons in the place of codes, which no world here may know.

`--only NAME` (repeatable) takes some of them. The file is written after each variant, and the same command goes on with
those that are not in it; a training that was stopped resumes.
"""

import argparse
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from minisora.config import Config, load
from minisora.data.clips import ClipDataset, HasNames
from minisora.errors import UserError
from minisora.files import read_json, replace_folder, write_json
from minisora.flops.device import describe_device
from minisora.models.dit import VideoDiT
from minisora.models.frame_memory import FrameMemory
from minisora.worlds.arena import BUTTONS
from minisora.worlds.dream import Dream, load_dream
from minisora.worlds.labels import name_world
from minisora.worlds.measure_world import measure_world
from minisora.worlds.naming import CodeNames
from minisora.worlds.truth import SUFFIX, read_truth
from minisora.worlds.world_folder import NAMES
from minisora.worlds.world_stages import train_actions, train_dynamics

LABELS = 200
TRAINED: dict[str, list[str]] = {
    "as the run": [],
    "no noise on what is before": ["world.most_context_sigma=0", "world.context_sigma=0"],
    "little noise on what is before": ["world.most_context_sigma=0.2"],
    "the clean frame, nothing kept": ["world.objective=clean"],
    "velocity": ["world.objective=velocity"],
    "two streams": ["world.streams=2"],
    "one stream": ["world.streams=1"],
    "no idle steps under other codes": ["world.idle_share=0"],
    "no noise levels of play": ["world.played_share=0"],
    "its own past in half of the windows": ["world.own_share=0.5"],
    "two streams, its own past in half": ["world.streams=2", "world.own_share=0.5"],
    "change weighted 1": ["world.moving_weight=1"],
    "low noise levels weighted 5": ["world.most_weight=5"],
    "fsq": ["world.discovery=fsq"],
    "true buttons": ["world.idle_share=0"],
}


class WholeWindow(FrameMemory):
    """Frames seen without what was computed of them: all of the window are looked at for each new one."""

    def __init__(self, dit: VideoDiT):
        super().__init__(dit)
        self.kept: list[tuple[Tensor, ...]] = []

    def look(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """As `FrameMemory`."""
        assert labels is not None
        frames = [*self.kept, (latents, sigma[:, None], labels[:, None])]
        videos, levels, codes = (
            torch.cat(parts, dim=-1 if parts[0].ndim == 2 else 2) for parts in zip(*frames, strict=True)
        )
        return self.dit(videos, levels, labels=codes)[:, :, -1:]

    def see(self, latents: Tensor, sigma: Tensor, labels: Tensor | None = None) -> None:
        """As `FrameMemory`."""
        assert labels is not None
        most = self.dit.config.causal_window - 1
        self.kept = [*self.kept, (latents, sigma[:, None], labels[:, None])][-most:] if most else []
        self.position += 1

    def take(self, rows: Any, batch: int) -> "WholeWindow":
        """As `FrameMemory`."""
        other = WholeWindow(self.dit)
        other.position = self.position
        other.kept = [tuple(part[rows] for part in each) for each in self.kept]
        return other


def without_cache(dream: Dream) -> None:
    """Play without the cache."""
    dream.memory_of = WholeWindow


def played_in(steps: int) -> Callable[[Dream], None]:
    """Play in so many sampling steps a frame."""

    def change(dream: Dream) -> None:
        dream.steps = steps

    return change


def seen_at(sigma: float) -> Callable[[Dream], None]:
    """Play with what is before at a noise level."""

    def change(dream: Dream) -> None:
        dream.settings = replace(dream.settings, context_sigma=sigma)

    return change


PLAYED: dict[str, Callable[[Dream], None]] = {
    **{f"{steps} sampling steps": played_in(steps) for steps in (1, 2, 4, 8)},
    **{f"what is before seen at {sigma:g}": seen_at(sigma) for sigma in (0.0, 0.05, 0.2, 0.4)},
    "no cache": without_cache,
}


def true_buttons(recording: Path, frames: int) -> Callable[[ClipDataset], Tensor]:
    """The buttons of the clips of a recording, as `train_dynamics` takes them; each clip has so many frames."""

    def told(dataset: ClipDataset) -> Tensor:
        assert isinstance(dataset, HasNames)
        found = [
            read_truth(recording / "truth" / f"{Path(name).stem}{SUFFIX}").buttons for name in dataset.names()
        ]
        if {len(buttons) for buttons in found} != {frames - 1}:
            raise UserError(
                f"clips of {recording} have other lengths than clip.frames={frames}: record them so"
            )
        return torch.from_numpy(np.stack(found))

    return told


def train_variant(name: str, config: Config, run: Path, out: Path, recording: Path, console: Console) -> Path:
    """Train the dynamics of a variant in a folder of its own; returns the folder of its world."""
    folder = out / name.replace(" ", "-").replace(",", "")
    parts = ["vae/model", "cache"] + ([] if name == "fsq" else ["actions"])
    for part in parts:
        if (run / part).exists() and not (folder / part).exists():
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: what a killed copy left would be taken for it.
            replace_folder(folder / part, partial(shutil.copytree, run / part))
    if name == "fsq":
        train_actions(config, folder, console)
    told = true_buttons(recording, config.clip.frames) if name == "true buttons" else None
    train_dynamics(config, folder, console, told=told)
    world = folder / "world"
    if told is not None:
        counts = np.eye(config.world.codes, len(BUTTONS), dtype=int)
        CodeNames(BUTTONS, tuple(tuple(row) for row in counts.tolist())).write(world / NAMES)
    else:
        name_world(world, recording, LABELS)
    return world


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run of 'minisora world train'")
    parser.add_argument(
        "--recording", type=Path, required=True, help="that the run was trained on, with its truth"
    )
    parser.add_argument("--test", type=Path, required=True, help="recording of another seed, to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder of what is trained")
    parser.add_argument("--json", type=Path, required=True, help="the result, written after each variant")
    parser.add_argument("--steps", type=int, default=2000, help="of each training")
    parser.add_argument("--frames", type=int, default=128, help="for which the player is followed")
    parser.add_argument("--only", action="append", choices=[*PLAYED, *TRAINED], help="leave the others out")
    arguments = parser.parse_args()
    about = {
        "run": str(arguments.run),
        "steps": arguments.steps,
        "frames": arguments.frames,
        "machine": describe_device("cpu", torch.float32),
    }
    kept: dict[str, Any] = read_json(arguments.json) if arguments.json.is_file() else {}
    if kept and any(kept.get(key) != value for key, value in about.items()):
        raise UserError(
            f"{arguments.json} is of another run, machine or number of steps: choose another --json"
        )
    variants: dict[str, Any] = kept.get("variants", {})
    console = Console()
    for name in arguments.only or [*PLAYED, *TRAINED]:
        if name in variants:
            continue
        world, changed = arguments.run / "world", PLAYED.get(name)
        if changed is None:
            changes = [*TRAINED[name], f"train_dynamics.steps={arguments.steps}"]
            own = load(arguments.run / "config.yaml", changes)
            world = train_variant(name, own, arguments.run, arguments.out, arguments.recording, console)
        elif not (world / NAMES).is_file():
            name_world(world, arguments.recording, LABELS)
        dream = load_dream(world, "cpu")
        if changed is not None:
            changed(dream)
        variants[name] = measure_world(dream, arguments.test, arguments.frames, labels=(LABELS,))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(arguments.json, {"date": now, **about, "variants": variants})


if __name__ == "__main__":
    main()
