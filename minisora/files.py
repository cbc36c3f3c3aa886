"""Files that are whole or not there: written under another name beside their place, then put into it."""

import json
import os
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file at once; a crash or a full disk leaves what was there before.

    Raises:
        OSError: the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, at once; raises ValueError for a NaN, which JSON does not have."""
    write_whole(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
