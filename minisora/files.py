"""Files and folders that are whole or not there: written under another name beside their place, then put into it."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

# In the names of unfinished files: numbers of processes say nothing on another machine that shares the folder.
_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


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
        partial.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
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
    """Write a file at once; a crash or a full disk leaves what was there before.

    Raises:
        OSError: the place cannot be written.
    """
    with whole(path) as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, at once; raises ValueError for a NaN, which JSON does not have."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


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
        if folder.exists():
            folder.replace(old)
        partial.replace(folder)
    finally:
        settle_folder(folder)


def settle_folder(folder: Path) -> None:
    """End what a killed `replace_folder` had begun: the folder is the old or the new one, with nothing beside it."""
    partial, old = _beside(folder)
    if old.exists() and not folder.exists():  # it was stopped between its two renames
        old.replace(folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where a folder is written, and where the one before it waits."""
    return folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")


def same_file(path: Path, others: Iterable[Path]) -> Path | None:
    """The first of the others that is the same file or folder as `path`, whatever links lead there."""
    if not path.exists():
        return None
    return next((other for other in others if other.exists() and path.samefile(other)), None)
