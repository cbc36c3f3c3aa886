"""Captions beside videos: `metadata.csv` or `metadata.jsonl` (`file_name`, `text`), or `NAME.txt`."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from minisora.errors import UserError
from minisora.files import write_whole

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def read_metadata(file: Path) -> list[tuple[str, str]]:
    """The (file_name, text) rows of a metadata file, in its order; texts are stripped, an absent one is "".

    Raises:
        UserError: the file cannot be read, a line is broken, or a column is missing; the message says where.
    """
    reader = _csv_rows if file.suffix == ".csv" else _jsonl_rows
    rows: list[tuple[str, str]] = []
    try:
        for line, row in reader(file):
            if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
                raise UserError(f"{file}, line {line}: no 'file_name'; each row needs 'file_name' and 'text'")
            if "text" not in row:
                raise UserError(f"{file}, line {line}: no 'text'; each row needs 'file_name' and 'text'")
            if None in row:  # what csv makes of more fields than columns
                raise UserError(
                    f"{file}, line {line}: more fields than columns; put a text that has commas in quotes"
                )
            rows.append((row["file_name"].strip(), clean(str(row["text"] or ""))))
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    return rows


def read_sidecar(video: Path) -> str | None:
    """The caption in `NAME.txt` beside a video, or None.

    Raises:
        UserError: the file is there and cannot be read as UTF-8.
    """
    sidecar = video.with_suffix(".txt")
    if not sidecar.is_file():
        return None
    try:
        return clean(sidecar.read_text(encoding="utf-8-sig")) or None
    except UnicodeDecodeError as error:
        raise UserError(f"{sidecar} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{sidecar} cannot be read: {error.strerror}") from error


def write_metadata(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV whose first columns are `file_name` and `text`, whole.

    Raises:
        UserError: it cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, table.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; choose another --out") from error


def clean(text: str) -> str:
    """One line without surplus white space."""
    return " ".join(text.split())


def _csv_rows(file: Path) -> Iterator[tuple[int, object]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:  # -sig: spreadsheets write a byte order mark
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise UserError(f"{file}, line {reader.line_num}: not CSV ({error})") from error


def _jsonl_rows(file: Path) -> Iterator[tuple[int, object]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{file}, line {number}: not JSON ({error.msg})") from error
            yield number, row
