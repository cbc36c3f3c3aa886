"""Tar files of clips, read where they lie: `SHARD.tar/NAME` is a path like any other, and nothing is unpacked.

The layout is WebDataset's: `key.mp4` beside `key.txt`, or `key.json` with a "text" or "caption". The headers of a
shard are read once, by the standard library; after that every member is a stretch of the shard that is opened by its
offset, in any order. That is what resuming by position needs: WebDataset's own loaders go through a shard from its
beginning with a shuffle buffer, and to stand where a killed run stood they would read again all that came before.

What a member is called is only ever compared with what is asked for: it is never a path to write to or to read from.
"""

import io
import os
import tarfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from minisora.errors import UserError

SHARD_SUFFIX = ".tar"
_BLOCK = 512
_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: "a file with holes",
}
_AGAIN = "make it anew, with `minisora data pack` or tar"


class Member(NamedTuple):
    """A file in a shard: where its bytes begin, how many there are, and when it was changed (seconds)."""

    offset: int
    size: int
    changed: int


def members(shard: Path) -> dict[str, Member]:
    """The files in a shard by name, in its order; hidden ones are passed over. Its headers are read once.

    Raises:
        UserError: it is no tar file, is cut off or damaged, or holds a name twice, a link, or a name that leads out
            of it.
    """
    try:
        about = shard.stat()
        return _members(shard, about.st_mtime_ns, about.st_size, about.st_ino)
    except OSError as error:
        raise UserError(f"{shard} cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=1 << 14)
def _members(shard: Path, changed: int, size: int, inode: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    end = 0
    try:
        with tarfile.open(shard, "r:") as tar:
            while (item := tar.next()) is not None:
                # It keeps a kilobyte for every member that it has read.
                tar.members.clear()  # type: ignore[attr-defined]
                end = item.offset_data + -(-item.size // _BLOCK) * _BLOCK
                if item.isdir():
                    continue
                name = _name(shard, item)
                if item.type in _KINDS or not item.isreg():
                    kind = _KINDS.get(item.type, "of a kind that is not known")
                    raise UserError(f"{shard}: the member {item.name!r} is {kind}, not a file; {_AGAIN}")
                if name in found:
                    raise UserError(f"{shard}: two members are named {name!r}; {_AGAIN}")
                if item.offset_data + item.size > size:
                    raise UserError(f"{shard}: cut off in the middle of {name!r}; copy it again")
                if not PurePosixPath(name).name.startswith("."):
                    found[name] = Member(item.offset_data, item.size, int(item.mtime))
    except tarfile.TarError as error:
        if end:
            raise UserError(
                f"{shard}: cut off or damaged after {end} bytes ({error}); copy it again"
            ) from error
        raise UserError(
            f"{shard}: not a tar file, or a compressed one; shards are plain .tar files"
        ) from error
    except ValueError as error:
        # Numbers in a header that are none.
        raise UserError(f"{shard}: damaged after {end} bytes ({error}); copy it again") from error
    # tarfile takes any end for the end: of a file that is whole it is a block of zeros.
    with shard.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise UserError(f"{shard}: cut off or damaged after {end} bytes; copy it again")
    return found


def _name(shard: Path, item: tarfile.TarInfo) -> str:
    """The member's name without `./` before it; raises UserError where it leads out of the shard."""
    path = PurePosixPath(item.name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise UserError(f"{shard}: the name {item.name!r} leads out of the shard; {_AGAIN}")
    return path.as_posix()


def find(path: Path) -> tuple[Path, Member] | None:
    """The shard and the member that a path `SHARD.tar/NAME` means; None if there is none."""
    for shard in path.parents:
        if shard.suffix.lower() == SHARD_SUFFIX and shard.is_file():
            member = members(shard).get(path.relative_to(shard).as_posix())
            return None if member is None else (shard, member)
    return None


def exists(path: Path) -> bool:
    """Whether a path is a file, on disk or in a shard."""
    return path.is_file() or find(path) is not None


class FileState(NamedTuple):
    """What changes with a file: its size in bytes, its time (of a member that of its shard, ns) and inode."""

    size: int
    changed: int
    inode: int


def state(path: Path) -> FileState:
    """The state of a file, on disk or in a shard; raises OSError if there is none."""
    try:
        about = path.stat()
        return FileState(about.st_size, about.st_mtime_ns, about.st_ino)
    except NotADirectoryError:
        if (place := find(path)) is None:
            raise
        about = place[0].stat()
        return FileState(place[1].size, about.st_mtime_ns, about.st_ino)


def open_file(path: Path) -> BinaryIO:
    """A file to read, on disk or in a shard; raises OSError if there is none."""
    try:
        return path.open("rb")
    except NotADirectoryError:
        if (place := find(path)) is None:
            raise
        return io.BufferedReader(_Stretch(path, *place), 1 << 16)


class _Stretch(io.RawIOBase):
    """A member's bytes as a file that can be read and sought in; never more of it in memory than is read."""

    def __init__(self, path: Path, shard: Path, member: Member) -> None:
        self.name = os.fspath(path)
        self._file = shard.open("rb", buffering=0)
        self._start, self._size = member.offset, member.size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"{self.name}: a place before the beginning")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        read = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._at += read
        return read

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
