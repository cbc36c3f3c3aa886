"""New training clips from old ones: every clip of a folder, restyled under every prompt, as a captioned set.

OUT/00012-1.mp4     clip 12 under prompt 1
   /metadata.csv    file_name, text, and the file that it came from
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from minisora.config import ClipConfig
from minisora.data.clips import ClipMemory, to_float
from minisora.data.folder.folder_dataset import FolderDataset
from minisora.data.folder.metadata import only_ours, write_metadata
from minisora.data.video.write_video import write_video
from minisora.errors import UserError
from minisora.flow.denoise import DEFAULTS, SampleSettings
from minisora.limits import MAX_COUNT, check_number, seed_after
from minisora.pipelines.pipeline import MiniSoraPipeline
from minisora.pipelines.restyle import restyle
from minisora.screen import Progress

_log = logging.getLogger(__name__)
# In a prompt: the clip's own caption.
CAPTION = "{caption}"


def augment(
    pipeline: MiniSoraPipeline,
    data: Path,
    prompts: Sequence[str],
    out: Path,
    *,
    settings: SampleSettings = DEFAULTS,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> int:
    """Write a set in which every clip of a folder appears once under every prompt; returns the number of clips.

    A clip that turns out to be damaged is named and left out.

    Args:
        pipeline: restyles the clips (`minisora.pipelines.restyle.restyle`), from their captions where all have one.
        data: folder of videos, with captions if a prompt asks for them.
        prompts: one per new set of clips; "{caption}" stands for a clip's own caption, as in "{caption} at night".
        out: folder of the new set; empty, or of an earlier run.
        settings: how to sample, as of `minisora.pipelines.restyle.restyle`; the same seed gives the same set.
        batch_size: clips restyled at a time.
        progress: called with (clips done, clips in all).

    Raises:
        UserError: no prompt, nothing usable in the folder, words the model does not know, or no folder to write to.
    """
    if not prompts:
        raise UserError(f"augment needs a prompt, such as '{CAPTION} at night'")
    check_number("batch_size", batch_size, 1, MAX_COUNT)
    frames, height, width = pipeline.config.default_size
    clip = ClipConfig(frames=frames, height=height, width=width, fps=pipeline.config.fps)
    needs_captions = any(CAPTION in prompt for prompt in prompts)
    dataset = FolderDataset(data, clip, "pad", require_captions=needs_captions)
    captions, names = dataset.captions(), dataset.names()
    wanted = [[prompt.replace(CAPTION, caption) for caption in captions] for prompt in prompts]
    sources = captions if all(captions) else None
    for text in dict.fromkeys(text for texts in [*wanted, sources or []] for text in texts):
        # Before the first clip is made.
        pipeline.check_prompt(text)
    digits = max(5, len(str(len(dataset) - 1)))
    files = [[f"{i:0{digits}}-{number}.mp4" for i in range(len(dataset))] for number in range(len(prompts))]
    only_ours(out, {*(file for row in files for file in row), "metadata.csv"})

    # Every prompt takes all clips again.
    memory = ClipMemory(dataset)
    rows, total = [], len(dataset) * len(prompts)
    damaged: dict[int, str] = {}
    for number, texts in enumerate(wanted):
        for start in range(0, len(dataset), batch_size):
            indices = range(start, min(start + batch_size, len(dataset)))
            seed = seed_after(settings.seed, number * len(dataset) + start)
            readable = _readable(memory, indices, damaged)
            if not readable:
                continue
            chosen, clips = list(readable), torch.stack(list(readable.values()))
            targets = [texts[index] for index in chosen]
            source = [sources[index] for index in chosen] if sources else None
            seeded = replace(settings, seed=seed, progress=False)
            videos = restyle(pipeline, targets, clips, source=source, settings=seeded)
            for index, video in zip(chosen, videos, strict=True):
                write_video(out / files[number][index], video, clip.fps)
                rows.append((files[number][index], texts[index], names[index]))
            if progress is not None:
                progress(len(rows) + len(damaged) * (number + 1), total)
    if not rows:
        raise UserError(
            f"none of the {len(dataset)} clips of {data} can be decoded: copy or export them again"
        )
    write_metadata(out / "metadata.csv", ("file_name", "text", "source"), rows)
    return len(rows)


def _readable(memory: ClipMemory, indices: Sequence[int], damaged: dict[int, str]) -> dict[int, Tensor]:
    """The clips of these that can be decoded, C T H W each; the others go to `damaged`, reported once."""
    clips: dict[int, Tensor] = {}
    for index in indices:
        if index in damaged:
            continue
        try:
            clips[index] = to_float(memory.clips([index])[0])
        except UserError as error:
            damaged[index] = str(error)
            _log.warning("%s: left out (%d so far)", error, len(damaged))
    return clips
