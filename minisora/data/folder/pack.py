"""Packs the clips of a folder into tar shards in WebDataset's layout, which `minisora.data.shards` reads.

Which clip goes into which shard follows from the folder and the size of a shard alone, and a shard is whole or absent:
a packing that was stopped goes on behind the last one. Nothing is encoded anew, so the clips are the same bytes.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from minisora.data.folder.metadata import only_ours
from minisora.data.folder.scan import FolderScan, ScannedFile
from minisora.data.shards import SHARD_SUFFIX, exists, find, members, open_file, state
from minisora.errors import UserError
from minisora.files import same_file, whole
from minisora.screen import Progress, plain


@dataclass(frozen=True)
class _Item:
    """A member to write: a clip by its path, or a caption by its bytes."""

    name: str
    size: int
    # Seconds; a caption has the time of its clip.
    changed: int
    content: Path | bytes

    @property
    def header(self) -> tarfile.TarInfo:
        """Name, size and time; nothing of who packed it, so that shards of the same clips are the same bytes."""
        about = tarfile.TarInfo(self.name)
        about.size, about.mtime = self.size, self.changed
        return about

    @property
    def blocks(self) -> int:
        """Bytes in a shard, header included."""
        return len(self.header.tobuf()) + -(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def pack_folder(
    scan: FolderScan, out: Path, shard_bytes: int, progress: Progress | None = None
) -> list[Path]:
    """Write the kept files of a scan and their captions as `shard-00000.tar` and so on.

    Args:
        scan: of the folder, or of shards.
        out: an empty folder, or one that holds shards of this packing.
        shard_bytes: a shard is closed before it would be larger; a single larger clip has one for itself.
        progress: called with (clips done, clips in all).

    Returns:
        The shards, in order.

    Raises:
        UserError: nothing is usable, two clips would share a caption file but not the caption, the folder holds
            other files or is that of the clips, a clip cannot be read, or a shard cannot be written.
    """
    if same_file(out, [scan.folder]) is not None:
        raise UserError(
            f"{out} is what is packed, and its shards would be written over: choose another folder"
        )
    groups = list(_groups(scan, shard_bytes))
    if not groups:
        raise UserError(f"nothing usable: {plain(scan.summary())}")
    shards = [out / f"shard-{number:05d}{SHARD_SUFFIX}" for number in range(len(groups))]
    only_ours(out, {shard.name for shard in shards})
    done = 0
    for shard, items in zip(shards, groups, strict=True):
        if not _is_there(shard, items):
            try:
                out.mkdir(parents=True, exist_ok=True)
                with whole(shard) as partial:
                    _write(partial, items)
            except OSError as error:
                raise UserError(
                    f"cannot write {shard}: {error.strerror or error}; what is whole stays, the same command goes on"
                ) from error
        done += sum(isinstance(item.content, Path) for item in items)
        if progress:
            progress(done, len(scan.kept))
    return shards


def _groups(scan: FolderScan, shard_bytes: int) -> Iterator[list[_Item]]:
    """The members of each shard; clips that share a caption file are in one."""
    keys: dict[str, list[ScannedFile]] = {}
    for file in scan.kept:
        keys.setdefault(PurePosixPath(file.name).with_suffix(".txt").as_posix(), []).append(file)
    group: list[_Item] = []
    held = 0
    # At its end a shard has two blocks of zeros, and is filled up to a whole record.
    room = shard_bytes // tarfile.RECORDSIZE * tarfile.RECORDSIZE - 2 * tarfile.BLOCKSIZE
    for caption_name, files in keys.items():
        items = []
        for file in files:
            path = scan.path(file.name)
            items.append(_Item(file.name, state(path).size, _changed(path), path))
        caption = files[0].caption
        if other := next((file.name for file in files if (file.caption or "") != (caption or "")), None):
            raise UserError(
                f"{scan.folder}: {files[0].name!r} and {other!r} would share {caption_name!r} and have other captions; "
                "rename one of them"
            )
        if caption:
            content = caption.encode(errors="replace")
            items.append(_Item(caption_name, len(content), items[0].changed, content))
        size = sum(item.blocks for item in items)
        if group and held + size > room:
            yield group
            group, held = [], 0
        group += items
        held += size
    if group:
        yield group


def _changed(path: Path) -> int:
    place = find(path)
    return place[1].changed if place is not None else int(path.stat().st_mtime)


def _is_there(shard: Path, items: list[_Item]) -> bool:
    """Whether a shard that was written before holds just these members."""
    if not shard.is_file():
        return False
    try:
        held = members(shard)
    except UserError:
        return False
    if list(held) != [item.name for item in items]:
        return False
    for item, member in zip(items, held.values(), strict=True):
        if (member.size, member.changed) != (item.size, item.changed):
            return False
        if isinstance(item.content, bytes):
            with open_file(shard / item.name) as file:
                if file.read() != item.content:
                    return False
    return True


def _write(partial: Path, items: list[_Item]) -> None:
    with tarfile.open(partial, "w") as tar:
        for item in items:
            if isinstance(item.content, bytes):
                tar.addfile(item.header, io.BytesIO(item.content))
                continue
            if not exists(item.content):
                raise UserError(f"{item.content} is gone; bring it back, and the same command goes on")
            with open_file(item.content) as file:
                tar.addfile(item.header, file)
