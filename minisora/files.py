"""Files and folders that are whole or not there: written under another name beside their place, then put into it."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    r"""Write a file at once; a crash or a full disk leaves what was there before.

    Text is written as UTF-8, a lone surrogate (a byte of a file name that is not UTF-8) as its escape, `\udce9`.

    Raises:
        OSError: the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(
            content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
        )
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, at once; raises ValueError for a NaN, which JSON does not have."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Write a folder under another name and put it in place whole; all that was in it goes.

    Args:
        folder: its place.
        write: fills the folder that it is given, and makes it.

    Raises:
        OSError: the place cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():  # stopped between the two renames below
        old.replace(folder)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        write(partial)
        if folder.exists():
            folder.replace(old)
        partial.replace(folder)
    finally:
        if old.exists() and not folder.exists():
            old.replace(folder)
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)


def same_file(path: Path, others: Iterable[Path]) -> Path | None:
    """The first of the others that is the same file or folder as `path`, whatever links lead there."""
    if not path.exists():
        return None
    return next((other for other in others if other.exists() and path.samefile(other)), None)
