"""What a student learns from: noise, and the latents that its teacher makes of it; sampled once, kept in shards."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from minisora.data.shards import read_shard, write_shard
from minisora.errors import UserError
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.training.tasks import fingerprint

_SHARD = 256  # pairs


@dataclass(frozen=True)
class PairShard:
    """A file of pairs: its captions, the seed of the first one's noise, and the key of what it is made of."""

    file: Path
    captions: Sequence[str]
    start: int
    key: str


def make_pairs(
    teacher: MiniSoraPipeline,
    captions: Sequence[str],
    folder: Path,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Noise and the teacher's latents for every caption, kept in shards: a run that was killed goes on.

    Args:
        teacher: the model to distil.
        captions: one pair each; pair i starts from the noise of seed i.
        folder: of the shards; those of another teacher, other captions or other sampling are made anew.
        steps, guidance: of the teacher's sampling; its own by default.
        batch_size: pairs at a time.
        progress: called with (pairs done, pairs in all).

    Returns:
        Noise and latents, each N Z T' H' W' float32.

    Raises:
        UserError: there is no caption, or the folder cannot be written.
    """
    if not captions:
        raise UserError("no captions to make pairs of: give at least one")
    steps, guidance = sampling_of(teacher, steps, guidance)
    shape = teacher.latent_shape(*teacher.config.default_size)
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Tensor]] = []
    for shard in pair_shards(teacher, captions, folder, steps, guidance):
        pairs = read_shard(shard.file, shard.key)
        if pairs is None:
            rows = []
            for first in range(0, len(shard.captions), batch_size):
                some = shard.captions[first : first + batch_size]
                noise = teacher.noise(len(some), shape, shard.start + first)
                made = teacher(
                    some,
                    latents=noise,
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    output_type="latent",
                    progress=False,
                )
                rows.append((noise, made.videos.cpu().float()))
                if progress is not None:
                    progress(shard.start + first + len(some), len(captions))
            pairs = {
                "noise": torch.cat([noise for noise, _ in rows]),
                "latents": torch.cat([latents for _, latents in rows]),
            }
            try:
                write_shard(shard.file, pairs, shard.key)
            except (OSError, SafetensorError) as error:
                raise UserError(f"cannot write {shard.file}: {error}; free space and run again") from error
        parts.append(pairs)
    return torch.cat([part["noise"] for part in parts]), torch.cat([part["latents"] for part in parts])


def sampling_of(
    teacher: MiniSoraPipeline, steps: int | None = None, guidance: float | None = None
) -> tuple[int, float]:
    """Steps and guidance of the teacher's sampling, its own where not given."""
    return (
        teacher.config.default_steps if steps is None else steps,
        teacher.config.default_guidance if guidance is None else guidance,
    )


def pair_shards(
    teacher: MiniSoraPipeline, captions: Sequence[str], folder: Path, steps: int, guidance: float
) -> list[PairShard]:
    """The files that the pairs of these captions go into."""
    made_by = [
        {name: _described(part) for name, part in teacher.components.items()},
        teacher.config.sigma_shift,
        steps,
        float(guidance),
        teacher.latent_shape(*teacher.config.default_size),
    ]
    shards = []
    for number, start in enumerate(range(0, len(captions), _SHARD)):
        said = captions[start : start + _SHARD]
        content = json.dumps([made_by, start, list(said)], sort_keys=True)
        key = hashlib.sha256(content.encode()).hexdigest()
        shards.append(PairShard(folder / f"shard-{number:05}.safetensors", said, start, key))
    return shards


def _described(part: Any) -> list[Any] | None:
    """What decides how a part of the teacher behaves: its kind, its settings and its weights if it has any."""
    if part is None:
        return None
    # Neither where it was read from nor the version that wrote it: the pairs do not depend on them.
    settings = {
        key: value
        for key, value in json.loads(part.to_json_string()).items()
        if not key.startswith("_") and key != "path"
    }
    weights = fingerprint(part) if isinstance(part, nn.Module) else ""
    return [type(part).__name__, settings, weights]
