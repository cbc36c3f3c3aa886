"""What a student learns from: the states that its teacher passes on its way from noise, kept in shards."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from minisora.data.latent_cache import read_shard, write_shard
from minisora.errors import UserError
from minisora.flow.schedules import make_scheduler
from minisora.memory import available_memory, size_text
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.training.tasks.task import fingerprint

_SHARD = 256  # trajectories


@dataclass(frozen=True)
class Shard:
    """A file of trajectories: its captions, the seed of the first one's noise, and the key of what made it."""

    file: Path
    captions: Sequence[str]
    start: int
    key: str


def make_trajectories(
    teacher: MiniSoraPipeline,
    captions: Sequence[str],
    folder: Path,
    windows: int,
    *,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The teacher's states on the way from noise to latents; kept in shards, so a run that was killed goes on.

    The teacher samples by its own settings, but in Euler steps, and as many as make the windows equal.

    Args:
        teacher: the model to distil.
        captions: one trajectory each; the i-th starts from the noise of seed i.
        folder: of the shards; those of another teacher, other captions or other sampling are made anew.
        windows: parts that the steps are divided into, the student's steps.
        batch_size: trajectories at a time.
        progress: called with (trajectories done, in all).

    Returns:
        N (windows + 1) Z T' H' W' float32: the noise, the state after each window, the last of them the latents.

    Raises:
        UserError: there is no caption, memory for all is not there, or the folder cannot be written.
    """
    if not captions:
        raise UserError("no captions to sample the teacher with: give at least one")
    shape = teacher.latent_shape(*teacher.config.default_size)
    need, free = 4 * len(captions) * (windows + 1) * math.prod(shape), available_memory()
    if need > free:
        raise UserError(
            f"{len(captions)} trajectories of {windows + 1} states are {size_text(need)}, and {size_text(free)} are "
            "free: take fewer --samples"
        )
    parts: list[Tensor] = []
    for shard in shards_of(teacher, captions, folder, windows):
        kept = read_shard(shard.file, shard.key)
        if kept is None:
            rows = []
            for first in range(0, len(shard.captions), batch_size):
                some = shard.captions[first : first + batch_size]
                rows.append(_sample(teacher, some, shard.start + first, windows))
                if progress is not None:
                    progress(shard.start + first + len(some), len(captions))
            kept = {"states": torch.cat(rows)}
            try:
                folder.mkdir(parents=True, exist_ok=True)
                write_shard(shard.file, kept, shard.key)
            except (OSError, SafetensorError) as error:
                raise UserError(f"cannot write {shard.file}: {error}; free space and run again") from error
        parts.append(kept["states"])
    return torch.cat(parts)


def _sample(teacher: MiniSoraPipeline, captions: Sequence[str], seed: int, windows: int) -> Tensor:
    """States of some trajectories, B (windows + 1) Z T' H' W'."""
    steps = teacher_steps(teacher, windows)
    noise = teacher.noise(len(captions), teacher.latent_shape(*teacher.config.default_size), seed)
    states = [noise]

    def keep(step: int, _: float, x: Tensor) -> None:
        if (step + 1) % (steps // windows) == 0:
            states.append(x.cpu().float())

    own, teacher.scheduler = teacher.scheduler, make_scheduler("euler")
    try:
        teacher(
            captions,
            latents=noise,
            num_inference_steps=steps,
            callback_on_step_end=keep,
            output_type="latent",
            progress=False,
        )
    finally:
        teacher.scheduler = own
    return torch.stack(states, dim=1)


def teacher_steps(teacher: MiniSoraPipeline, windows: int) -> int:
    """The teacher's own number of steps, or the next one that the windows divide."""
    return math.ceil(teacher.config.default_steps / windows) * windows


def shards_of(teacher: MiniSoraPipeline, captions: Sequence[str], folder: Path, windows: int) -> list[Shard]:
    """The files that the trajectories of these captions go into."""
    made_by = [
        {name: _described(part) for name, part in teacher.components.items() if name != "scheduler"},
        teacher.config.sigma_shift,
        [teacher_steps(teacher, windows), windows],
        float(teacher.config.default_guidance),
        teacher.latent_shape(*teacher.config.default_size),
    ]
    shards = []
    for number, start in enumerate(range(0, len(captions), _SHARD)):
        said = captions[start : start + _SHARD]
        content = json.dumps([made_by, start, list(said)], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        shards.append(Shard(folder / f"shard-{number:05}.safetensors", said, start, key))
    return shards


def _described(part: Any) -> list[Any] | None:
    """What decides how a part of the teacher behaves: its kind, its settings and its weights if it has any."""
    if part is None:
        return None
    # Neither where it was read from nor the version that wrote it: what it makes does not depend on them.
    settings = {
        key: value
        for key, value in json.loads(part.to_json_string()).items()
        if not key.startswith("_") and key != "path"
    }
    weights = fingerprint(part) if isinstance(part, nn.Module) else ""
    return [type(part).__name__, settings, weights]
