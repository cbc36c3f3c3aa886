"""Results of a ladder: one JSON object a line, appended whole when a run is done, never twice.

OUT/results.jsonl     finished runs
   /failures.jsonl    runs that failed, with the reason; tried again by the next start
"""

import json
import math
from pathlib import Path
from typing import Any

from filelock import FileLock

from minisora.errors import UserError
from minisora.files import write_whole

Row = dict[str, Any]
_NUMBERS = ("times", "dial", "epochs", "batch", "lr", "params", "samples", "flops_per_step", "flops", "loss")


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
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is damaged: it is not text; copy it again") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"{file}, line {number} is not JSON: mend or remove it") from error
        if not isinstance(rows[-1], dict) or not isinstance(rows[-1].get("name"), str):
            raise UserError(f"{file}, line {number} is no row with a name: mend or remove it")
    return rows


def check_rows(file: Path, rows: list[Row]) -> None:
    """Raise UserError, naming the run and the number, unless every row is of a finished run."""
    for row in rows:
        for key in _NUMBERS:
            value = row.get(key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise UserError(f"{file}: run {row['name']} has {key} = {value!r}: mend or remove its line")


def append_row(file: Path, row: Row) -> None:
    """Add a row whole, unless it is there; several processes may append to one file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_name(f".{file.name}.lock")):
            rows = read_rows(file)  # without a last line that was cut off
            if any(kept["name"] == row["name"] for kept in rows):
                return
            write_whole(file, "".join(json.dumps(each) + "\n" for each in [*rows, row]))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; free space and run again") from error
