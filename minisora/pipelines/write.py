"""Sampled videos to files people can open: mp4, gif, and a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from minisora.data.video_write import write_contact_sheet, write_gif, write_video
from minisora.errors import UserError


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
        UserError: another suffix, or a place that cannot be written.
    """
    if out.suffix not in (".mp4", ""):
        raise UserError(f"--out '{out}' must end in .mp4; a .gif and a .png are written beside it")
    stem = out.with_suffix("")
    files: list[Path] = []
    for number, video in enumerate(videos):
        name = stem if len(videos) == 1 else stem.with_name(f"{stem.name}-{number}")
        for suffix, write in ((".mp4", write_video), (".gif", write_gif)):
            files.append(name.with_name(name.name + suffix))
            write(files[-1], video, fps)
    files.append(stem.with_name(stem.name + ".png"))
    write_contact_sheet(files[-1], list(videos), list(prompts))
    return files
