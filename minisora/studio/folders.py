"""The folders that a person named at the start: those with clips to learn from, and the one of the runs.

A page never says where something lies. It is told names and ids, gives an id back, and the id is looked for among what
is there now. Links are not followed: what they lead to was not named.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minisora.data.media_suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from minisora.data.shards import SHARD_SUFFIX
from minisora.errors import UserError
from minisora.files import read_json, write_json

# Files counted of a folder, and names looked at for them; more are not told apart.
MOST_FILES, _MOST_NAMES = 10_000, 50_000
# Folders listed below one that was named.
_MOST_FOLDERS = 500
_KEPT = "folders.json"


@dataclass(frozen=True)
class DataFolder:
    """A folder with clips.

    Args:
        id: what a page calls it.
        name: for people.
        path: where it lies; told to no page.
        files: videos, pictures and shards in it, `MOST_FILES` at most.
    """

    id: str
    name: str
    path: Path
    files: int


class Folders:
    """What a person named.

    Args:
        data: folders with clips, or with folders of clips. One that is gone has none.
        runs: the folder of the runs; need not be there yet.
    """

    def __init__(self, data: Sequence[Path], runs: Path):
        self.data, self.runs = [each.absolute() for each in data], runs.absolute()

    def check(self) -> None:
        """Refuse what was named wrongly: at the start, and not when a disk is taken out while the studio runs.

        Raises:
            UserError: a data folder is not there, or there is no place for runs.
        """
        for each in self.data:
            if not each.is_dir():
                raise UserError(
                    f"--data {each} is not a folder: give one with clips, or with folders of clips"
                )
        if self.runs.exists() and not self.runs.is_dir():
            raise UserError(f"--runs {self.runs} is a file: give the folder of the runs")

    def keep(self, home: Path) -> None:
        """Write down what was named, for the worker."""
        write_json(home / _KEPT, {"data": [str(each) for each in self.data], "runs": str(self.runs)})

    @classmethod
    def of(cls, home: Path) -> "Folders":
        """What was named at the start of the studio in `home`.

        Raises:
            UserError: nothing was.
        """
        try:
            kept = read_json(home / _KEPT)
            return cls([Path(each) for each in kept["data"]], Path(kept["runs"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{home / _KEPT} cannot be read ({error}): start the studio again") from error

    def data_folders(self) -> list[DataFolder]:
        """Folders with clips: each that was named where clips lie in it itself, and those in it that have some."""
        found = {}
        for root in self.data:
            inside = [root / name for name in _folders_in(root)[:_MOST_FOLDERS]]
            for path, deep in ((root, False), *((each, True) for each in inside)):
                if count := _count_clips(path, deep):
                    name = path.name if path == root else f"{root.name}/{path.name}"
                    found[_id(path)] = DataFolder(_id(path), name, path, count)
        return list(found.values())

    def data_folder(self, id_: str) -> DataFolder:
        """The folder with an id.

        Raises:
            UserError: there is none.
        """
        for folder in self.data_folders():
            if folder.id == id_:
                return folder
        raise UserError("there is no such folder of clips here: load the page again")

    def run_names(self) -> list[str]:
        """Names of what lies in the folder of the runs."""
        return _folders_in(self.runs)

    def run(self, name: str) -> Path:
        """Where a run lies or will lie; `name` is one that the studio made or found."""
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise UserError("that is no name of a run")
        return self.runs / name

    def new_run(self, base: str, taken: Sequence[str]) -> str:
        """A name for a new run, after what it learns from.

        Args:
            base: name of a data folder.
            taken: names that are used already, beside those in the folder.
        """
        short = re.sub(r"[^A-Za-z0-9_-]+", "-", base.rpartition("/")[2]).strip("-")[:40] or "run"
        used = {*taken, *(os.listdir(self.runs) if self.runs.is_dir() else ())}  # noqa: PTH208  (names will do)
        return next(name for name in _numbered(short) if name not in used)


def run_id(name: str) -> str:
    """What a page calls a run."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]


def _id(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _numbered(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _folders_in(folder: Path) -> list[str]:
    """Names of the folders in one, hidden ones and links left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except OSError:
        return []


def _count_clips(folder: Path, deep: bool) -> int:
    """Videos, pictures and shards in a folder, with `deep` also in what lies in it."""
    known, count, names = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, SHARD_SUFFIX), 0, 0
    for _, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith(".")) if deep else []
        count += sum(name.lower().endswith(known) and not name.startswith(".") for name in files)
        names += len(files) + len(inner)
        if count >= MOST_FILES or names >= _MOST_NAMES:
            break
    return min(count, MOST_FILES)
