"""Files and folders that are whole or not there: written under another name beside their place, then put into it.

What was written is on the disk before it takes its place: without that a power cut may leave a file of the right
length with zeros in it. Folders of tensors get a `SHA256SUMS` (as of `sha256sum`), so that such a file is noticed.
"""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Protocol

SUMS = "SHA256SUMS"

# In the names of unfinished files: numbers of processes say nothing on another machine that shares the folder.
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


class SavesItself(Protocol):
    """What writes itself into a folder, as the models of diffusers do."""

    def save_pretrained(self, save_directory: Path, /) -> object:
        """Write the folder."""
        ...


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place to write that becomes `path` when all went well, and vanishes when not.

    Raises:
        OSError: the place cannot be written.
    """
    _remove_leftovers(path.parent.absolute())
    partial = path.with_name(f".{path.name}.{_MACHINE}-{os.getpid()}.partial")
    try:
        yield partial
        put_in_place(partial, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        # A full disk names no file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine left unfinished in a folder; once, as a folder may be large."""
    import psutil

    try:
        names = os.listdir(folder)  # noqa: PTH208  (names are all that is needed of perhaps 100k files)
    except OSError:
        return
    for name in names:
        match = re.fullmatch(rf"\..+\.{_MACHINE}-(\d+)\.partial", name)
        if match and not psutil.pid_exists(int(match[1])):
            (folder / name).unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    r"""Write a file at once; a crash or a full disk leaves what was there before.

    Text is written as UTF-8, a lone surrogate (a byte of a file name that is not UTF-8) as its escape, `\udce9`.

    Raises:
        OSError: the place cannot be written.
    """
    with whole(path) as partial:
        partial.write_bytes(
            content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
        )


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, at once; raises ValueError for a NaN, which JSON does not have."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def put_in_place(partial: Path, path: Path) -> None:
    """Rename a file or a folder that is written to the end, once all of it is on the disk.

    Raises:
        OSError: the disk is full, or the place cannot be written.
    """
    for written in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
        _settle(written)
    partial.replace(path)
    _settle(path.parent)


def _settle(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Of folders not every file system knows it.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or nested so deeply that it is not meant to be read.
    """
    try:
        return json.loads(path.read_text())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where it is not there, not whole or no object: who shows it can do without it."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder under another name and put it in place whole; all that was in it goes.

    Args:
        folder: its place.
        write: fills the folder that it is given, and makes it.

    Raises:
        OSError: the place cannot be written.
    """
    settle_folder(folder)
    partial, old = _beside(folder)
    try:
        write(partial)
        _write_sums(partial)
        if folder.exists():
            folder.replace(old)
        put_in_place(partial, folder)
    finally:
        settle_folder(folder)


def settle_folder(folder: Path) -> None:
    """End what a killed `replace_folder` had begun: the folder is the old or the new one, with nothing beside it."""
    partial, old = _beside(folder)
    # It was stopped between its two renames.
    if old.exists() and not folder.exists():
        old.replace(folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where a folder is written, and where the one before it waits."""
    return folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")


def checksum(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; of a file that has not changed since, without reading it again.

    Raises:
        OSError: it cannot be read.
    """
    about = path.stat()
    return _checksum(os.fspath(path.absolute()), about.st_mtime_ns, about.st_size, about.st_ino)


@lru_cache(maxsize=1 << 17)
def _checksum(path: str, changed: int, size: int, inode: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_sums(folder: Path) -> None:
    """Write down what the safetensors in a folder hold; nothing where there are none."""
    names = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.safetensors"))
    if names:
        write_whole(folder / SUMS, "".join(f"{checksum(folder / name)}  {name}\n" for name in names))


def changed_file(folder: Path) -> str | None:
    """The first file in a folder that is not as its `SHA256SUMS` says, and why; None: all are, or it has none.

    A part of a larger folder, such as MODEL/vae, is judged by the sums of the whole.
    """
    place = next((each for each in (folder, folder.parent) if (each / SUMS).is_file()), None)
    if place is None:
        return None
    try:
        lines = (place / SUMS).read_text().splitlines()
    except (OSError, ValueError) as error:
        return f"{SUMS} cannot be read: {error}"
    for line in lines:
        digits, _, name = line.partition("  ")
        file = place / name
        if not file.is_relative_to(folder):
            continue
        try:
            if checksum(file) != digits:
                return f"{name} is not as {SUMS} says"
        except (OSError, ValueError) as error:
            return f"{name or line!r} of {SUMS}: {getattr(error, 'strerror', None) or error}"
    return None


def same_file(path: Path, others: Iterable[Path]) -> Path | None:
    """The first of the others that is the same file or folder as `path`, whatever links lead there."""
    if not path.exists():
        return None
    return next((other for other in others if other.exists() and path.samefile(other)), None)
