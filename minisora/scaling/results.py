"""Results of a ladder: one JSON object a line, appended whole when a run is done, never twice.

OUT/results.jsonl     finished runs
   /failures.jsonl    runs that failed, with the reason; tried again by the next start
"""

import json
import os
from pathlib import Path
from typing import Any

from minisora.errors import UserError

Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """The rows of a results file, or none where there is no file yet.

    A last line that was cut off by a power failure is not a row; it is dropped when the next one is appended.

    Raises:
        UserError: a line in the middle is broken, or the file cannot be read.
    """
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(f"{file}, line {number} is not JSON: mend or remove it") from error
    return rows


def append_row(file: Path, row: Row) -> None:
    """Add a row in one write, so that several processes may append to one file; does nothing if it is there.

    Raises:
        UserError: the file cannot be written.
    """
    if any(kept["name"] == row["name"] for kept in read_rows(file)):
        return
    line = json.dumps(row) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a line that was cut off
                text = os.pread(descriptor, size, 0)
                os.ftruncate(descriptor, text.rfind(b"\n") + 1)
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; free space and run again") from error
