"""Captions beside videos: a table, `metadata.csv` or `metadata.jsonl` (`file_name`, `text`), or `NAME.txt`.

A table is read as people have it: columns may have other common names, CSV may be separated by `,`, `;` or tabs,
empty rows are no rows, and a caption that is empty, null or NaN is none. What could mean two things is refused with
its line.
"""

import csv
import io
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from minisora.data.media_suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from minisora.data.shards import find, open_file
from minisora.errors import UserError
from minisora.files import write_whole
from minisora.screen import plain

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")

# Names of the two columns, in lower case with _ for blanks; the first of each is what minisora writes.
_FILE_COLUMNS = (
    "file_name", "filename", "file", "path", "file_path", "filepath", "video", "video_path", "video_file",
    "video_name", "clip", "clip_path", "image", "image_path", "media", "media_path",
)  # fmt: skip
_TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
_DELIMITERS = (",", ";", "\t")
# What spreadsheets, pandas and scripts write for a value that is not there.
_NO_TEXT = frozenset({"nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "#N/A", "N/A"})
_SURROGATE = re.compile("[\ud800-\udfff]")
# Bytes of a caption in a shard, far more than any model reads.
_MOST_TEXT = 1 << 20
_SUFFIXES = VIDEO_SUFFIXES + IMAGE_SUFFIXES
# A last line, which only an open quotation mark can swallow.
_END = "\0"


class CaptionRow(NamedTuple):
    """A row of a table: the file's name as it is there (see `FileNames`), the caption ("": none), the line from 1."""

    file_name: str
    text: str
    line: int


class FileNames:
    """Finds the files of a folder by the names that tables have for them.

    A name is relative to the folder of its table, or absolute. `\\` serves as `/`, blanks around a name are
    dropped, and an accent may be composed in one and decomposed in the other (as macOS stores it), all where no
    file has exactly the name given.

    Args:
        folder: the folder that holds the files.
        names: their names, relative to it, with forward slashes.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        self._names = dict.fromkeys(names)
        self._composed = {unicodedata.normalize("NFC", name): name for name in reversed(list(self._names))}
        self._real: dict[str, str] | None = None

    def find(self, spelling: str, table_folder: str = "") -> str:
        """The file's name relative to the folder; of a file that is not there, the name that it should have.

        Args:
            spelling: the name in a table.
            table_folder: the table's folder, relative to this one.
        """
        if table_folder in ("", ".") and spelling in self._names:
            return spelling
        stripped = spelling.strip()
        for variant in dict.fromkeys((spelling, stripped, stripped.replace("\\", "/"))):
            name = os.path.normpath(os.path.join(table_folder, variant)).replace(os.sep, "/")  # noqa: PTH118
            if name in self._names:
                return name
            if (known := self._composed.get(unicodedata.normalize("NFC", name))) is not None:
                return known
            if os.path.isabs(variant) and (known := self._absolute(variant)) is not None:  # noqa: PTH117
                return known
        return os.path.normpath(os.path.join(table_folder, stripped)).replace(os.sep, "/")  # noqa: PTH118

    def _absolute(self, path: str) -> str | None:
        if self._real is None:
            self._real = {}
            for name in self._names:
                self._real.setdefault(_real(str(self.folder / name)), name)
        return self._real.get(_real(path))


def _real(path: str) -> str:
    """A path without links, its accents composed."""
    try:
        return unicodedata.normalize("NFC", os.path.realpath(path))
    except ValueError:
        # A NUL or half a character, which no file's name has.
        return path


def read_metadata(file: Path) -> list[CaptionRow]:
    """The rows of a table, in its order; texts are one line each, an absent one is "".

    Raises:
        UserError: the file cannot be read, a line is broken, a column is missing or there twice, a caption is no
            text, or a quotation mark swallows other rows; the message says where.
    """
    reader = _csv_rows if file.suffix == ".csv" else _jsonl_rows
    try:
        # A file's name need not be UTF-8, all else must.
        content = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    # In some row, as it is or escaped.
    broken = "\\ud" in content.lower() or _SURROGATE.search(content) is not None
    rows: list[CaptionRow] = []
    for line, name, value in reader(file, content):
        text = _text(file, line, value)
        if not isinstance(name, str) or not name.strip():
            if name is None and not text:
                continue
            raise UserError(f"{file}, line {line}: no file name; give it one, or delete the row")
        if broken and (
            _SURROGATE.search(text) or (_SURROGATE.search(name) and not (file.parent / name.strip()).exists())
        ):
            raise _not_utf8(file, line)
        rows.append(CaptionRow(name, text, line))
    return rows


def read_sidecar(video: Path) -> str | None:
    """The caption in `NAME.txt` beside a video, in a shard else in `NAME.json` ("text" or "caption"), or None.

    Raises:
        UserError: the file is there and cannot be read as UTF-8, or is no JSON.
    """
    if find(video) is not None:
        return _read_member_caption(video)
    sidecar = video.with_suffix(".txt")
    forms: tuple[Literal["NFC", "NFD"], ...] = () if sidecar.name.isascii() else ("NFC", "NFD")
    spelt = (sidecar, *(sidecar.with_name(unicodedata.normalize(form, sidecar.name)) for form in forms))
    file = next((each for each in spelt if each.is_file()), None)
    if file is None:
        return None
    try:
        text = clean(file.read_text(encoding="utf-8-sig"))
        return None if text in _NO_TEXT else text or None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _read_member_caption(video: Path) -> str | None:
    """The caption beside a video in a shard."""
    file = next((each for suffix in (".txt", ".json") if find(each := video.with_suffix(suffix))), None)
    if file is None:
        return None
    try:
        with open_file(file) as member:
            text = member.read(_MOST_TEXT).decode("utf-8-sig")
        value: object = text
        if file.suffix == ".json":
            row = json.loads(text)
            value = (
                next((row[key] for key in _TEXT_COLUMNS if key in row), None)
                if isinstance(row, dict)
                else None
            )
        return _text(file, 1, value) or None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
        raise UserError(f"{file}: not JSON ({reason})") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def write_metadata(file: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV whose first columns are `file_name` and `text`, whole; a file's name is written as its bytes.

    Raises:
        UserError: it cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, table.getvalue().encode(errors="surrogateescape"))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; choose another --out") from error


def only_ours(out: Path, names: set[str]) -> None:
    """Refuse a folder that holds other files: a data set would caption them, or be captioned by them.

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


def clean(text: str) -> str:
    """One line without surplus white space."""
    return " ".join(text.split())


def _text(file: Path, line: int, value: object) -> str:
    """The caption that a table has, "" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str):
        kind = {dict: "an object", list: "a list", bool: "a truth value"}.get(type(value), "a number")
        raise UserError(f"{file}, line {line}: the caption is {kind}, not a text; give one text in quotes")
    text = clean(value)
    return "" if text in _NO_TEXT else text


def _not_utf8(file: Path, line: int) -> UserError:
    return UserError(f"{file} is not UTF-8 text (line {line}); save it as UTF-8")


def _plain_name(column: str) -> str:
    """A column's name as in `_FILE_COLUMNS`."""
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _columns(file: Path, line: int, columns: Sequence[str]) -> tuple[str, str]:
    """The two columns that hold file names and captions, of those that were found.

    Raises:
        UserError: one is missing, or there is more than one of a kind; the message shows what was found.
    """
    plain_names = {column: _plain_name(column) for column in columns}
    chosen = []
    for known in (_FILE_COLUMNS, _TEXT_COLUMNS):
        matches = [column for column in columns if plain_names[column] == known[0]]
        matches = matches or [column for column in columns if plain_names[column] in known]
        names = ", ".join(f"'{column}'" for column in columns) or "none"
        if not matches:
            raise UserError(
                f"{file}, line {line}: no '{known[0]}' among the columns found ({names}); "
                f"name one of them {' or '.join(known[:3])}"
            )
        if len(matches) > 1:
            several = " and ".join(f"'{column}'" for column in matches)
            raise UserError(
                f"{file}, line {line}: {several} could each be the '{known[0]}'; give only one of them such a name"
            )
        chosen.append(matches[0])
    return chosen[0], chosen[1]


def _csv_rows(file: Path, content: str) -> Iterator[tuple[int, str | None, str | None]]:
    """(line, file name, caption) of each row that is not empty; None for an empty cell."""
    # As in UTF-16.
    if _END in content:
        raise _not_utf8(file, content[: content.index(_END)].count("\n") + 1)
    delimiter, start = _delimiter(content), 0
    lines = io.StringIO(content + f"\n{_END}\n", newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    places: tuple[int, int] | None = None
    columns: list[str] = []
    try:
        for cells in reader:
            line, start = start + 1, reader.line_num  # of the row, and of its end
            if cells == [_END]:
                return
            if cells and _END in cells[-1]:
                raise UserError(
                    f"{file}, line {line}: a quotation mark is opened and never closed; close it, or write it twice"
                )
            if not any(cell.strip() for cell in cells):
                continue
            if places is None:
                columns = [cell.strip() for cell in cells]
                if _SURROGATE.search("".join(columns)):
                    raise _not_utf8(file, line)
                names = _columns(file, line, columns)
                places = columns.index(names[0]), columns.index(names[1])
                continue
            if len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
                raise UserError(
                    f"{file}, line {line}: more fields than columns; put a text that has '{delimiter}' in quotes"
                )
            if start > line:
                _check_quotation(file, line, cells, delimiter, places[0])
            name, text = (cells[place] if place < len(cells) else None for place in places)
            yield line, name if name and name.strip() else None, text
    except csv.Error as error:
        raise UserError(f"{file}, line {start + 1}: not CSV ({error})") from error


def _delimiter(content: str) -> str:
    """What separates the columns: the one by which the first line has both, else the most frequent there."""
    first = next((line for line in content.splitlines() if line.strip()), "")

    def count(delimiter: str) -> tuple[bool, int]:
        cells = {
            _plain_name(cell)
            for cell in next(csv.reader([first], delimiter=delimiter, skipinitialspace=True), [])
        }
        return not (cells.isdisjoint(_FILE_COLUMNS) or cells.isdisjoint(_TEXT_COLUMNS)), first.count(
            delimiter
        )

    return max(_DELIMITERS, key=count)


def _check_quotation(file: Path, line: int, cells: Sequence[str], delimiter: str, place: int) -> None:
    """Refuse a cell of several lines that holds other rows: two marks that are no pair make one of all between.

    Args:
        file, line: the table, and the line of the row in it.
        cells: the cells of the row.
        delimiter: what separates the columns of the table.
        place: index of the column of file names.
    """
    for cell in cells:
        for number, part in enumerate(cell.splitlines()[1:], start=1):
            row = next(csv.reader([part], delimiter=delimiter, skipinitialspace=True), [])
            if len(row) > max(1, place) and row[place].strip().lower().endswith(_SUFFIXES):
                raise UserError(
                    f"{file}, line {line}: a quotation mark is opened here and swallows the row of "
                    f"{plain(row[place].strip())} on line {line + number}; close it, or write it twice"
                )


def _jsonl_rows(file: Path, content: str) -> Iterator[tuple[int, object, object]]:
    """(line, file name, caption) of each line that is not empty."""
    # Most rows have the same keys.
    known: dict[tuple[str, ...], tuple[str, str]] = {}
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
            raise UserError(f"{file}, line {number}: not JSON ({reason})") from error
        if not isinstance(row, dict):
            raise UserError(
                f"{file}, line {number}: no 'file_name'; each line is an object with file_name and text"
            )
        if (keys := tuple(row)) not in known:
            known[keys] = _columns(file, number, keys)
        name, text = known[keys]
        yield number, row[name], row[text]
