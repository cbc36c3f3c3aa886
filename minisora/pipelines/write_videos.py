"""Sampled videos to files people can open: mp4, gif, and a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from minisora.data.video.write_video import write_contact_sheet, write_gif, write_video
from minisora.errors import UserError


def output_files(out: Path, count: int) -> list[Path]:
    """The files that `write_videos` writes for so many videos, in its order.

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
        UserError: another suffix, or a place that cannot be written.
    """
    files = output_files(out, len(videos))
    for number, video in enumerate(videos):
        write_video(files[2 * number], video, fps)
        write_gif(files[2 * number + 1], video, fps)
    write_contact_sheet(files[-1], list(videos), list(prompts))
    return files
