"""Sampled videos to files people can open (mp4, gif, and a contact sheet), in batches that fit in memory.

The latents are kept where their videos cannot be decoded or written:

OUT.latents.safetensors    latents whose videos are missing, with their prompts: minisora sample --latents FILE;
                           the same command, run again to its end, makes the videos and removes it
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from minisora.data.latent_cache import fingerprint, key_of, read_shard, write_shard
from minisora.data.video.write_video import shown_frames, write_contact_sheet, write_gif, write_video
from minisora.errors import UserError
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.limits import seed_after
from minisora.memory import available_memory, is_out_of_memory, out_of_memory
from minisora.pipelines.pipeline import MiniSoraPipeline

# Of what is free, a batch takes one such part.
_SHARE = 2


@dataclass(frozen=True)
class KeptLatents:
    """Sampled latents that are still to be decoded."""

    latents: Tensor  # B Z T' H' W', normalised
    prompts: list[str]  # B
    made_by: str = ""  # hex digits of the call that sampled them
    first: int = 0  # place of the first among that call's videos
    asked: int = 0  # videos of that call; 0: as many as these
    vae: str = ""  # fingerprint of the VAE that they are of; "": of any

    @property
    def count(self) -> int:
        """Videos of the call, by which their files are named."""
        return self.asked or len(self.prompts)


def output_files(out: Path, count: int) -> list[Path]:
    """Where so many videos are written: OUT.mp4 and OUT.gif each (numbered if several), and OUT.png for all.

    Raises:
        UserError: the suffix is neither .mp4 nor none.
    """
    if out.suffix not in (".mp4", ""):
        raise UserError(f"--out '{out}' must end in .mp4; a .gif and a .png are written beside it")
    stem = out.with_suffix("").name
    names = [stem] if count == 1 else [f"{stem}-{number}" for number in range(count)]
    videos = [out.with_name(name + suffix) for name in names for suffix in (".mp4", ".gif")]
    return [*videos, out.with_name(stem + ".png")]


def write_videos(out: Path, videos: Tensor, prompts: Sequence[str], fps: float) -> list[Path]:
    """Write OUT.mp4 and OUT.gif per prompt (numbered if there are several) and OUT.png for all.

    Args:
        out: path of the video; its suffix must be .mp4 or none.
        videos: B 3 T H W in [-1, 1].
        prompts: B captions for the contact sheet.
        fps: frames per second.

    Returns:
        The files, in that order.

    Raises:
        UserError: another suffix, or a folder that cannot be written.
    """
    files = output_files(out, len(videos))
    for number, video in enumerate(videos):
        _write_pair(files, number, video, fps)
    write_contact_sheet(files[-1], list(videos), list(prompts))
    return files


def _write_pair(files: Sequence[Path], number: int, video: Tensor, fps: float) -> None:
    """Write the mp4 and the gif of video `number`, 3 T H W, of those that `files` are for."""
    write_video(files[2 * number], video, fps)
    write_gif(files[2 * number + 1], video, fps)


def sample_files(
    pipeline: MiniSoraPipeline,
    prompts: Sequence[str],
    out: Path,
    settings: SampleSettings = DEFAULTS,
    size: tuple[int, int, int] | None = None,
) -> list[Path]:
    """Sample one video per prompt and write them as `write_videos` does, batch by batch.

    Args:
        pipeline: the model.
        prompts: one per video.
        out: path of the video; its suffix must be .mp4 or none.
        settings: how to sample; video i starts from the noise of seed + i, whatever the batches.
        size: (frames, height, width) of the videos; the training size by default.

    Returns:
        The files.

    Raises:
        UserError: as of the pipeline; memory ran out, or a file cannot be written: the message names the latents kept.
    """
    size = size or pipeline.size(None, None, None)
    pipeline.check_memory(1, size)
    batch_size = max(1, int(available_memory(pipeline.device) / _SHARE / pipeline.video_bytes(*size)))
    call = repr((list(prompts), size, settings))
    made_by = hashlib.sha256(call.encode(errors="backslashreplace")).hexdigest()[:32]
    writer = _Writer(pipeline, out, len(prompts), latents_file(out))
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        latents = pipeline.sample(part, size, replace(settings, seed=seed_after(settings.seed, start)))
        writer.write(KeptLatents(latents, part, made_by, start, len(prompts)))
    files = writer.finish()
    _remove_kept(latents_file(out), made_by)
    return files


def _remove_kept(file: Path, made_by: str) -> None:
    """Remove the latents that the same call kept when it could not decode them; their videos are there now."""
    with suppress(UserError):
        if file.is_file() and read_latents(file).made_by == made_by:
            file.unlink()


def decode_files(pipeline: MiniSoraPipeline, kept: KeptLatents, out: Path) -> list[Path]:
    """Write the videos of kept latents, under the names that `sample_files` would have given them.

    Raises:
        UserError: they are of another model, memory ran out, or a file cannot be written.
    """
    channels = int(pipeline.vae.config.latent_channels)
    if kept.latents.shape[1] != channels:
        raise UserError(
            f"the latents have {kept.latents.shape[1]} channels, this model {channels}: pass the --model they are of"
        )
    if kept.vae not in ("", fingerprint(pipeline.vae)):
        raise UserError("the latents are of another VAE than this model's: pass the --model they are of")
    writer = _Writer(pipeline, out, kept.count, first=kept.first)
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
        first, asked, vae = int(about.get("first", 0)), int(about.get("asked", 0)), str(about.get("vae", ""))
        latents = (read_shard(file, key or "") or {})["latents"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} holds no latents of minisora sample") from error
    if not isinstance(prompts, list) or latents.ndim != 5 or len(prompts) != len(latents):
        raise UserError(f"{file} holds no latents of minisora sample, one prompt each")
    kept = KeptLatents(latents.float(), [str(prompt) for prompt in prompts], made_by, first, asked, vae)
    if first < 0 or first + len(prompts) > kept.count:
        raise UserError(f"{file} holds no latents of minisora sample: {len(prompts)} from {first} of {asked}")
    return kept


class _Writer:
    """Decodes and writes videos as they come, and keeps the latents of those that it cannot."""

    def __init__(
        self, pipeline: MiniSoraPipeline, out: Path, count: int, keep: Path | None = None, first: int = 0
    ):
        self.pipeline, self.keep = pipeline, keep
        self.files = output_files(out, count)
        self.done = first
        self.rows: list[Tensor] = []  # what the contact sheet shows of each video, 3 t H W
        self.prompts: list[str] = []

    def write(self, kept: KeptLatents) -> None:
        """Decode a batch and write its videos."""
        first = self.done
        fps = float(self.pipeline.config.fps)
        try:
            videos = self.pipeline.decode(kept.latents)
            for video, prompt in zip(videos, kept.prompts, strict=True):
                _write_pair(self.files, self.done, video, fps)
                self.rows.append(video[:, torch.from_numpy(shown_frames(video.shape[1]))].cpu())
                self.prompts.append(prompt)
                self.done += 1
        except (MemoryError, RuntimeError, UserError) as error:
            if not (isinstance(error, UserError) or is_out_of_memory(error)):
                raise
            left = self.done - first
            rest = replace(kept, latents=kept.latents[left:], prompts=kept.prompts[left:], first=self.done)
            reason = self._keep(rest)
            remedy = "free some, or ask for a smaller or shorter video"
            failure = str(error) if isinstance(error, UserError) else out_of_memory(error, remedy)
            raise UserError(f"{failure}; {reason}") from error

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
            about = {
                "prompts": kept.prompts,
                "made_by": kept.made_by,
                "first": kept.first,
                "asked": kept.asked,
            }
            about["vae"] = fingerprint(self.pipeline.vae)
            write_shard(
                file,
                {"latents": kept.latents.cpu()},
                json.dumps(about),
            )
        # Of the disk, of safetensors or of memory: the first failure is the one to report.
        except Exception as error:
            return f"their latents could not be kept either ({error})"
        return (
            f"the sampled latents are kept: minisora sample --latents {file}, with the same --model and --out, "
            "makes the video"
        )
