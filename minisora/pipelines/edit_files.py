"""Modes on files: read what a mode needs, fit it to the model, and say in words what was changed on the way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from minisora.data.video.read_video import Fit, probe, read_video
from minisora.errors import UserError
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.pipelines import modes, restyle
from minisora.pipelines.pipeline import MiniSoraPipeline

Mode = Literal["animate", "extend", "prepend", "connect", "loop", "keyframes", "inpaint", "restyle"]
MODES: tuple[Mode, ...] = get_args(Mode)
# How many files a mode takes, if not one.
_FILES = {"connect": 2}
# What is said of a file of another shape than the model's.
_FITTED: dict[Fit, str] = {"crop": ", cut at the centre", "pad": ", black beside it", "squash": ", stretched"}


def edit(
    pipeline: MiniSoraPipeline,
    mode: Mode,
    files: Sequence[Path],
    prompt: str,
    *,
    source: str | None = None,
    region: Sequence[int] | None = None,
    settings: SampleSettings = DEFAULTS,
    fit: Fit = "crop",
    say: Callable[[str], None] = print,
) -> Tensor:
    """Apply a mode of `minisora.pipelines.modes` to video or image files.

    Args:
        pipeline: a model, trained with `flow.known_share` above 0 for all but inpaint and restyle.
        mode: "animate" an image, "extend" or "prepend" to a clip, "connect" two, "loop", "keyframes" through
            images, "inpaint", "restyle".
        files: two for connect, two or more for keyframes (spread evenly), else one. They are resampled to the
            model's rate and resized to its size; `say` reports what of that changes a file.
        prompt: what the result shows.
        source: for restyle alone, what the video shows now.
        region: for inpaint alone, (top, left, bottom, right) in pixels of the model's size.
        settings: how to sample; a `strength` belongs to restyle alone.
        fit: what becomes of pictures of another shape than the model's, best as in its training (`data.fit`).
        say: called with each line for the reader.

    Returns:
        1 3 T H W in [-1, 1].

    Raises:
        UserError: a file is missing, unreadable or too short, or an option does not belong to the mode.
    """
    if mode not in MODES:
        raise UserError(f"unknown mode '{mode}': use one of {', '.join(MODES)}")
    need = _FILES.get(mode, 1)
    if mode == "keyframes" and len(files) < 2:
        raise UserError(f"keyframes takes 2 files or more, got {len(files)}: pass --video for each")
    if mode != "keyframes" and len(files) != need:
        raise UserError(
            f"{mode} takes {need} file{'s' * (need > 1)}, got {len(files)}: pass --video that often"
        )
    if (region is None) == (mode == "inpaint"):
        raise UserError("inpaint needs --region TOP LEFT BOTTOM RIGHT, and no other mode takes one")
    for name, value in (("source", source), ("strength", settings.strength)):
        if value is not None and mode != "restyle":
            raise UserError(f"--{name} belongs to restyle, not to {mode}: leave it out")
    # Of the model's length; the others take any.
    whole = mode in ("inpaint", "restyle")
    still = mode in ("animate", "keyframes")
    clips = [_read(pipeline, file, still, whole, fit, say) for file in files]
    if mode == "animate":
        return modes.image_to_video(pipeline, prompt, clips[0][:, :, 0], settings=settings)
    if mode == "keyframes":
        images = torch.stack([clip[:, :, 0] for clip in clips], 1)  # 1 K 3 H W
        return modes.keyframes(pipeline, prompt, images, settings=settings)
    if mode in ("extend", "prepend"):
        return modes.extend(pipeline, prompt, clips[0], backward=mode == "prepend", settings=settings)
    if mode == "connect":
        return modes.connect(pipeline, prompt, clips[0], clips[1], settings=settings)
    if mode == "loop":
        return modes.loop(pipeline, prompt, clips[0], settings=settings)
    if mode == "restyle":
        return restyle.restyle(pipeline, prompt, clips[0], source=source, settings=settings)
    assert region is not None
    return restyle.inpaint(pipeline, prompt, clips[0], _box(region, clips[0]), settings=settings)


def _read(
    pipeline: MiniSoraPipeline, file: Path, image: bool, whole: bool, fit: Fit, say: Callable[[str], None]
) -> Tensor:
    """A file as 1 3 T H W of the model's size and rate."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    length, height, width = pipeline.config.default_size
    fps = float(pipeline.config.fps)
    info = probe(file)
    frames = 1 if image else length if whole else info.frames_at(fps)
    if (info.height, info.width) != (height, width):
        cut = "" if info.height * width == info.width * height else _FITTED[fit]
        say(f"{file.name} is {info.height}x{info.width}: resized to {height}x{width}{cut}")
    if info.transfer:
        say(f"{file.name} is of high dynamic range ({info.transfer}): its colours are read too pale")
    if info.interlaced:
        say(f"{file.name} is interlaced: every other line is read")
    if not image and info.fps and abs(info.fps - fps) > 0.01:
        say(f"{file.name} has {info.fps:g} fps: resampled to the model's {fps:g}")
    if whole and info.frames_at(fps) > length:
        say(f"{file.name} is longer than {length} frames at {fps:g} fps: cut after them")
    if whole and info.frames_at(fps) < length:
        say(f"{file.name} is shorter than {length} frames at {fps:g} fps: its last frame is repeated")
    return read_video(file, frames=frames, height=height, width=width, fps=fps, fit=fit)[None]


def _box(region: Sequence[int], video: Tensor) -> Tensor:
    """The mask 1 T H W of a box in every frame."""
    top, left, bottom, right = region
    height, width = video.shape[3:]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise UserError(
            f"region {tuple(region)} (top, left, bottom, right) does not lie in the {height}x{width} frame"
        )
    mask = torch.zeros(1, *video.shape[2:], dtype=torch.bool)
    mask[:, :, top:bottom, left:right] = True
    return mask
