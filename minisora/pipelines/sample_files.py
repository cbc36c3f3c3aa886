"""Prompts to files, in batches that fit in memory; the latents are kept where their videos cannot be made.

OUT.latents.safetensors    latents whose videos are missing, with their prompts: minisora sample --latents FILE;
                           the same command, run again to its end, makes the videos and removes it
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minisora.data.latent_cache import key_of, read_shard, write_shard
from minisora.data.video.write_video import shown_frames, write_contact_sheet, write_gif, write_video
from minisora.errors import UserError
from minisora.limits import seed_after
from minisora.memory import available_memory, is_out_of_memory, out_of_memory
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.write_videos import output_files

_SHARE = 2  # of what is free, a batch takes one such part


@dataclass(frozen=True)
class KeptLatents:
    """Sampled latents that are still to be decoded."""

    latents: Tensor  # B Z T' H' W', normalised
    prompts: list[str]  # B
    made_by: str = ""  # hex digits of the call that sampled them


def sample_files(
    pipeline: MiniSoraPipeline, prompts: Sequence[str], out: Path, *, seed: int = 0, **options: Any
) -> list[Path]:
    """Sample one video per prompt and write them as `write_videos` does, batch by batch.

    Args:
        pipeline: the model.
        prompts: one per video.
        out: path of the video; its suffix must be .mp4 or none.
        seed: video i starts from the noise of seed + i, whatever the batches.
        options: of the pipeline.

    Returns:
        The files.

    Raises:
        UserError: of the pipeline; memory ran out, or a file cannot be written: the message names the latents kept.
    """
    size = pipeline.size(options.get("num_frames"), options.get("height"), options.get("width"))
    pipeline.check_memory(1, size)
    batch_size = max(1, int(available_memory(pipeline.device) / _SHARE / pipeline.video_bytes(*size)))
    call = json.dumps([list(prompts), seed, sorted(options.items())], default=str)
    made_by = hashlib.sha256(call.encode(errors="backslashreplace")).hexdigest()[:32]
    writer = _Writer(pipeline, out, len(prompts), latents_file(out))
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        latents = pipeline(part, seed=seed_after(seed, start), output_type="latent", **options).videos
        writer.write(KeptLatents(latents, part, made_by))
    files = writer.finish()
    _remove_kept(latents_file(out), made_by)
    return files


def _remove_kept(file: Path, made_by: str) -> None:
    """Remove the latents that the same call kept when it could not make their videos, which are there now."""
    with suppress(UserError):
        if file.is_file() and read_latents(file).made_by == made_by:
            file.unlink()


def decode_files(pipeline: MiniSoraPipeline, kept: KeptLatents, out: Path) -> list[Path]:
    """Write the videos of kept latents, as `sample_files` would have.

    Raises:
        UserError: they are of another model, memory ran out, or a file cannot be written.
    """
    channels = int(pipeline.vae.config.latent_channels)
    if kept.latents.shape[1] != channels:
        raise UserError(
            f"the latents have {kept.latents.shape[1]} channels, this model {channels}: pass the --model they are of"
        )
    writer = _Writer(pipeline, out, len(kept.prompts))
    for row, prompt in enumerate(kept.prompts):
        writer.write(KeptLatents(kept.latents[row : row + 1].to(pipeline.device), [prompt]))
    return writer.finish()


def latents_file(out: Path) -> Path:
    """Where the latents of OUT.mp4 are kept."""
    return out.with_name(f"{out.with_suffix('').name}.latents.safetensors")


def read_latents(file: Path) -> KeptLatents:
    """Latents that `sample_files` kept.

    Raises:
        UserError: the file is none of its files.
    """
    key = key_of(file)
    try:
        about = json.loads(key or "")
        prompts, made_by = about["prompts"], str(about.get("made_by", ""))
        latents = (read_shard(file, key or "") or {})["latents"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} holds no latents of minisora sample") from error
    if not isinstance(prompts, list) or latents.ndim != 5 or len(prompts) != len(latents):
        raise UserError(f"{file} holds no latents of minisora sample, one prompt each")
    return KeptLatents(latents.float(), [str(prompt) for prompt in prompts], made_by)


class _Writer:
    """Decodes and writes videos as they come, and keeps the latents of those that it cannot."""

    def __init__(self, pipeline: MiniSoraPipeline, out: Path, count: int, keep: Path | None = None):
        self.pipeline, self.keep = pipeline, keep
        self.files = output_files(out, count)
        self.done = 0
        self.rows: list[Tensor] = []  # what the contact sheet shows of each video, 3 t H W
        self.prompts: list[str] = []

    def write(self, kept: KeptLatents) -> None:
        """Decode a batch and write its videos."""
        first = self.done
        fps = float(self.pipeline.config.fps)
        try:
            videos = self.pipeline.decode(kept.latents)
            for video, prompt in zip(videos, kept.prompts, strict=True):
                write_video(self.files[2 * self.done], video, fps)
                write_gif(self.files[2 * self.done + 1], video, fps)
                self.rows.append(video[:, torch.from_numpy(shown_frames(video.shape[1]))].cpu())
                self.prompts.append(prompt)
                self.done += 1
        except (MemoryError, RuntimeError, UserError) as error:
            if not (isinstance(error, UserError) or is_out_of_memory(error)):
                raise
            left = self.done - first
            reason = self._keep(KeptLatents(kept.latents[left:], kept.prompts[left:], kept.made_by))
            said = (
                str(error)
                if isinstance(error, UserError)
                else out_of_memory(error, "free some, or ask for a smaller or shorter video")
            )
            raise UserError(f"{said}; {reason}") from error

    def finish(self) -> list[Path]:
        """Write the contact sheet; returns all files."""
        write_contact_sheet(self.files[-1], self.rows, self.prompts)
        return self.files

    def _keep(self, kept: KeptLatents) -> str:
        """Save what is missing, and say where."""
        file = self.keep
        if file is None:
            return "the file of the latents is as it was"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_shard(
                file,
                {"latents": kept.latents.cpu()},
                json.dumps({"prompts": kept.prompts, "made_by": kept.made_by}),
            )
        except (
            Exception
        ) as error:  # of the disk, of safetensors or of memory: the first failure is what is told
            return f"their latents could not be kept either ({error})"
        return f"the sampled latents are kept: minisora sample --latents {file} makes the video"
