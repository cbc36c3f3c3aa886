"""What a stage of training was begun on, so that it goes on alike when the folder of its videos has changed.

    RUN/STAGE/data.json        for each size of clips the files that give them: name, content, caption, starts, and the
                         starts of clips that overlap if there are any
             /damaged.jsonl    a line for each file of which a clip could not be decoded: its name and why

A stage draws clips by their number, so a file that comes, goes or moves would change every draw after it. The record
holds the numbering as it was. A file is known again by its content (SHA-256) and caption: the folder may be another,
and the file under another name in it.

A damaged clip is left out, and another stands in for it (`FolderDataset`). Whether a clip can be decoded follows
from its bytes, so a stage that is resumed leaves out the same ones; the line in damaged.jsonl only lets the file be
removed or replaced meanwhile. Files that are new are left out until a new run. A file that is gone or changed
without being damaged is refused by name: what would be trained on is not what was begun on.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from minisora.config import ClipConfig
from minisora.data.folder.scan import FolderScan, ScannedFile, content_hash, some_of
from minisora.data.shards import exists
from minisora.errors import UserError
from minisora.files import read_json, write_json
from minisora.screen import Progress

_log = logging.getLogger(__name__)
_FORMAT = 1
_TELL_EVERY = 64
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file that gives clips; its caption as the scan has it: the fingerprint tells None from ""."""

    name: str
    content: str
    caption: str | None
    too_short: bool
    starts: tuple[float, ...]
    overlapping: tuple[float, ...] = ()

    @classmethod
    def read(
        cls,
        name: str,
        content: str,
        caption: str | None,
        short: bool,
        starts: Iterable[float],
        overlapping: Iterable[float] = (),
    ) -> Self:
        """From a row of data.json."""
        text = None if caption is None else str(caption)
        times = tuple(map(float, starts)), tuple(map(float, overlapping))
        return cls(str(name), str(content), text, bool(short), *times)

    def row(self) -> list[Any]:
        """For data.json; without clips that overlap as versions that knew of none wrote it."""
        row = [self.name, self.content, self.caption, self.too_short, self.starts]
        return [*row, self.overlapping] if self.overlapping else row

    def as_scanned(self, now: ScannedFile | None) -> ScannedFile:
        """As a scan found it then; `now` is the file under its name today, which tells how it is read."""
        info = None if now is None else now.info
        return ScannedFile(
            self.name,
            self.caption,
            info,
            too_short=self.too_short,
            starts=self.starts,
            overlapping=self.overlapping,
        )


class DataRecord:
    """The record of one stage; every data set of the stage is opened with the same one.

    Args:
        folder: the folder of the stage; nothing is written into it before `keep`.
        begun: whether the stage has a checkpoint. Before the first one, other files than last time begin it anew.
    """

    def __init__(self, folder: Path, begun: bool = False) -> None:
        self.begun = begun
        self._file, self._log_file = folder / "data.json", folder / "damaged.jsonl"
        self._entries: dict[str, list[_Entry]] = _read_entries(self._file)
        self._anew = not self._entries
        self._content: dict[str, str] = {}
        # Where a file lies now if not under its name; None: nowhere.
        self._places: dict[str, str | None] = {}

    def pin(
        self, scan: FolderScan, clip: ClipConfig, tell: bool = False, progress: Progress | None = None
    ) -> FolderScan:
        """The scan with the files that the stage was begun on, and no others.

        Args:
            scan: a scan of the folder as it is.
            clip: the size of clips that it was made for.
            tell: log what is left out.
            progress: called with (files read, files in all).

        Raises:
            UserError: a file is gone or has changed since and was not known to be damaged, or cannot be read.
        """
        key = clip.model_dump_json()
        entries = self._entries.get(key)
        if entries is not None:
            places, new, fault = self._find(entries, scan, progress)
            if self.begun and fault:
                raise UserError(
                    f"{self._file.parent} was begun on other data: {fault}; bring it back as it was, "
                    "or use another --out"
                )
            if self.begun or not (fault or new or _overlap_otherwise(entries, scan)):
                if tell:
                    self._tell(scan, new)
                return self._pinned(entries, places, scan)
            self._anew = True
            self._entries.clear()
        entries = [
            _Entry(
                file.name,
                content_hash(scan.path(file.name)),
                file.caption,
                file.too_short,
                file.starts,
                file.overlapping,
            )
            for file in _counted(scan.kept, progress)
        ]
        self._entries[key] = entries
        self._content |= {entry.name: entry.content for entry in entries}
        return scan

    def keep(self) -> None:
        """Write down what was opened; by one process, when the stage is known to begin or to go on.

        Raises:
            OSError: the place cannot be written.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        if self._anew and not self.begun:
            self._log_file.unlink(missing_ok=True)
        sizes = [
            {
                "clip": json.loads(key),
                "files": [entry.row() for entry in entries],
            }
            for key, entries in self._entries.items()
        ]
        if sizes and _read_entries(self._file) != self._entries:
            write_json(self._file, {"format": _FORMAT, "sizes": sizes})

    def content(self, name: str) -> str | None:
        """Hex digits of the bytes of a file that gives clips."""
        return self._content.get(name)

    def place(self, name: str) -> str | None:
        """The name that a file has now; None if it was damaged and is no longer there."""
        return self._places.get(name, name)

    @property
    def damaged(self) -> dict[str, str]:
        """Names of the files that are known to be damaged, and why."""
        causes: dict[str, str] = {}
        if self._log_file.is_file():
            for line in self._log_file.read_text(errors="replace").splitlines():
                # A line may be cut short by a crash.
                with suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    causes.setdefault(str(row["name"]), str(row["why"]))
        return causes

    def leave_out(self, path: Path, name: str, why: str) -> None:
        """Note that a file is damaged, and say so, once in the life of a stage.

        Raises:
            UserError: the note cannot be written.
        """
        known = self.damaged
        if name in known:
            return
        # The first end closes a line cut short.
        line = f"\n{json.dumps({'name': name, 'why': why})}\n"
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            # Short lines are appended whole, also by several processes.
            with self._log_file.open("a") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {self._log_file}: {error.strerror}; free space and run again"
            ) from error
        _log.warning(
            "%s is damaged (%s): left out, other clips stand in; %d such so far, in %s. It may be removed or replaced.",
            path,
            why,
            len(known) + 1,
            self._log_file,
        )

    def _find(
        self, entries: list[_Entry], scan: FolderScan, progress: Progress | None
    ) -> tuple[dict[str, str | None], list[str], str | None]:
        """Where files lie that are not in their place, names of new files, and the first that is not as it was."""
        by_name = {file.name: file for file in scan.files}
        places: dict[str, str | None] = {}
        lost: list[tuple[_Entry, str]] = []
        for entry in _counted(entries, progress):
            fault = _fault(entry, scan, by_name.get(entry.name))
            if fault is not None:
                lost.append((entry, fault))
        ours = {entry.name for entry in entries}
        others = [file for file in scan.kept if file.name not in ours]
        # Else there is no need to read what is new.
        if lost and others:
            by_content = {
                (content_hash(scan.path(file.name)), file.caption or ""): file.name for file in others
            }
            for entry, _ in lost:
                if (name := by_content.get((entry.content, entry.caption or ""))) is not None:
                    places[entry.name] = name
        damaged = self.damaged if lost else {}
        for entry, fault in lost:
            if entry.name in places:
                continue
            # A damaged file that was mended belongs to a new beginning; one that was removed does not.
            if entry.name not in damaged or (entry.name in by_name and not self.begun):
                return {}, [], fault
            places[entry.name] = None
        taken = set(places.values())
        # One that was copied again where another stands in for it is no news either.
        return places, [file.name for file in others if file.name not in taken], None

    def _pinned(self, entries: list[_Entry], places: dict[str, str | None], scan: FolderScan) -> FolderScan:
        self._places |= places
        self._content |= {entry.name: entry.content for entry in entries}
        ours = {entry.name for entry in entries}
        dropped = [file for file in scan.dropped if file.name not in ours and not file.too_short]
        now = {file.name: file for file in scan.files}
        files = [*(entry.as_scanned(now.get(entry.name)) for entry in entries), *dropped]
        files.sort(key=lambda file: file.name)
        return replace(scan, files=tuple(files))

    def _tell(self, scan: FolderScan, new: list[str]) -> None:
        if new:
            _log.warning(
                "%s: %d files that %s was not begun on are left out (%s); another --out trains on them",
                scan.folder,
                len(new),
                self._file.parent,
                some_of(new),
            )
        if known := self.damaged:
            _log.warning(
                "%s: %d damaged files are left out as before: %s", scan.folder, len(known), some_of(known)
            )


def _overlap_otherwise(entries: list[_Entry], scan: FolderScan) -> bool:
    """Whether a file now gives other overlapping clips: `data.overlap` was changed before the first checkpoint."""
    now = {file.name: file.overlapping for file in scan.kept}
    return any(now.get(entry.name, entry.overlapping) != entry.overlapping for entry in entries)


def _counted(items: Sequence[_Item], progress: Progress | None) -> Iterator[_Item]:
    """The items, and to `progress` how many are done."""
    for done, item in enumerate(items, start=1):
        yield item
        if progress and (done % _TELL_EVERY == 0 or done == len(items)):
            progress(done, len(items))


def _fault(entry: _Entry, scan: FolderScan, file: ScannedFile | None) -> str | None:
    """How a file is not as it was; None: it is."""
    path = scan.path(entry.name)
    if file is None or not exists(path):
        return f"{path} is gone"
    if content_hash(path) != entry.content:
        return f"{path} has other content"
    now, then = file.caption or "", entry.caption or ""
    if now != then:
        return f"the caption of {path} is '{now}' and was '{then}'"
    return None


def _read_entries(file: Path) -> dict[str, list[_Entry]]:
    """By clip; nothing if there is none, or it is damaged: the fingerprint in the checkpoints then decides alone."""
    try:
        about = read_json(file)
        if about["format"] != _FORMAT:
            return {}
        return {
            ClipConfig.model_validate(size["clip"]).model_dump_json(): [
                _Entry.read(*row) for row in size["files"]
            ]
            for size in about["sizes"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
