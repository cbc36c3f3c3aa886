"""Write a shapes set as a folder that `FolderDataset` reads: mp4 files and `metadata.csv`."""

from pathlib import Path

from rich.progress import track

from minisora.config import ClipConfig
from minisora.data.folder.metadata import write_metadata
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.read_video import write_video
from minisora.errors import UserError

_BATCH = 32


def make_shapes(out: Path, num_clips: int, seed: int, clip: ClipConfig, progress: bool = True) -> None:
    """Write `num_clips` training clips of the shapes world.

    A run that was cut off can be repeated; the same arguments give the same bytes.

    Args:
        out: folder; made if need be. It may hold files of an earlier run and nothing else.
        num_clips: how many.
        seed: of the world.
        clip: size, length and rate. Even sides, since that is what the mp4 can hold exactly.
        progress: show a bar.

    Raises:
        UserError: the folder holds other things or cannot be written, or a side is odd.
    """
    if clip.height % 2 or clip.width % 2:
        raise UserError(
            f"an mp4 needs even sides, not {clip.height}x{clip.width}: choose clip.height and clip.width so"
        )
    world = ShapesWorld(num_clips, seed, clip.frames, clip.height, clip.width, clip.fps)
    digits = max(5, len(str(num_clips - 1)))
    names = [f"clip_{index:0{digits}d}.mp4" for index in range(num_clips)]
    only_ours(out, {*names, "metadata.csv"})
    starts = range(0, num_clips, _BATCH)
    for start in track(starts, description="writing clips", disable=not progress, transient=True):
        indices = range(start, min(start + _BATCH, num_clips))
        for index, video in zip(indices, world.clips(indices), strict=True):
            write_video(out / names[index], video, clip.fps)
    write_metadata(out / "metadata.csv", ("file_name", "text"), zip(names, world.captions(), strict=True))


def only_ours(out: Path, names: set[str]) -> None:
    """A set is never mixed with other files, which it would then caption or be captioned by.

    Raises:
        UserError: the folder holds another file than these.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: choose a folder for the clips")
    foreign = next(
        (
            item.name
            for item in sorted(out.iterdir())
            if item.name not in names and not (item.name.startswith(".") and item.name.endswith(".partial"))
        ),
        None,
    )
    if foreign is not None:
        raise UserError(f"{out} already holds '{foreign}': choose an empty folder")
