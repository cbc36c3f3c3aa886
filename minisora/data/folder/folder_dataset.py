"""`FolderDataset`: clips from a folder of videos and images of any kind, size, length and rate."""

import errno
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minisora.config import ClipConfig
from minisora.data.clips import Split, to_uint8
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import FolderScan, ScannedFile, content_hash, scan_folder
from minisora.data.shards import exists
from minisora.data.video.read_video import ClipTooShort, Fit, ShortClips, probe, read_clips, read_video
from minisora.errors import UserError

# Of the files; see `split_files`.
VALIDATION_SHARE = 0.1
# Memory for clips of files with rare key frames that are decoded on the way to another, and not yet asked for.
AHEAD_BYTES = 1 << 28

# What a decoder reports when the machine is short of something: no fault of the file, and gone on the next try.
_OF_THE_MACHINE = (
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EIO,
    errno.EAGAIN,
    errno.EINTR,
    errno.EACCES,
)


class FolderDataset:
    """A `ClipDataset` of the files that `scan_folder` keeps; `report` tells what became of the others.

    Every clip is decoded when it is asked for, but those of a file with rare key frames in one pass, ahead of time.
    `minisora.data.clips.ClipMemory` holds what is read again.

    A scan of a large folder does not decode everything, so a clip may turn out to be damaged when it is read. With a
    `record` it is left out, and the next clip that can be read stands in for it (the next that has a caption, if it
    had one): which one follows from the bytes of the files alone, whenever and by whom the damage is met. Without a
    record, it is an error.

    Args:
        folder: the folder that holds the videos.
        clip: size, length and rate of a clip.
        short_clips: "pad", "skip" or "error", for files shorter than a clip.
        require_captions: drop files without a caption, else caption them "".
        files: use only these files of the scan; None: all that are kept. See `split_files`.
        scan: a finished scan of the folder with the same options.
        max_clips: use no more than this many clips.
        spread: put the first clip of every file before the second ones, the files in no order, so that the first
            clips are a sample of all; else in the order of their names and times.
        record: the record of the stage that trains on the clips; `scan` is what it pinned.
        fit: what becomes of pictures of another shape than the clip; see `fit_pictures`.
        overlap: share of a clip that the next one of its file shows again, in [0, 1); a `scan` is made with the same.

    Raises:
        UserError: nothing usable is in the folder, or a file is too short and `short_clips` is "error".
    """

    def __init__(
        self,
        folder: Path,
        clip: ClipConfig,
        short_clips: ShortClips = "pad",
        require_captions: bool = True,
        files: Sequence[ScannedFile] | None = None,
        scan: FolderScan | None = None,
        max_clips: int | None = None,
        spread: bool = False,
        record: DataRecord | None = None,
        fit: Fit = "crop",
        overlap: float = 0.0,
    ) -> None:
        self.report = scan or scan_folder(folder, clip, short_clips, require_captions, overlap=overlap)
        if short_clips == "error":
            short = next((file for file in self.report.files if file.too_short), None)
            if short is not None:
                raise UserError(
                    f"{folder / short.name}: shorter than {clip.frames} frames at {clip.fps:g} fps; "
                    "remove it, or set data.short_clips to pad or skip"
                )
        kept = self.report.kept if files is None else files
        starts = {file.name: (overlap and file.overlapping) or file.starts for file in kept}
        items = [(number, file, start) for file in kept for number, start in enumerate(starts[file.name])]
        if spread:
            items.sort(key=lambda item: (item[0], name_fraction(item[1].name)))
        self._items = [(file, start) for _, file, start in items[:max_clips]]
        if not self._items:
            raise UserError(f"nothing usable: {self.report.summary()}")
        self.folder = folder
        self._clip, self._fit, self._overlap = clip, fit, overlap
        self._fingerprint: str | None = None
        # Clips read in one pass with others, until they are asked for; and the clips of each file with rare key frames,
        # in the order of time.
        self._ahead: dict[int, Tensor] = {}
        self._of_file: dict[str, list[int]] = {}
        for index, (file, _) in enumerate(self._items):
            if costly_seeks(file, clip) and len(starts[file.name]) > 1:
                self._of_file.setdefault(file.name, []).append(index)
        for indices in self._of_file.values():
            indices.sort(key=lambda index: self._items[index][1])
        self._record = record
        # Clips that cannot be decoded, as far as they were read.
        self._damaged: set[int] = set()

    def __len__(self) -> int:
        return len(self._items)

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these clips, `B 3 T H W` uint8; of others where they are damaged.

        Raises:
            UserError: a file cannot be decoded; with a record only if it is gone or has changed, or none is left.
        """
        return torch.stack([self._video(index) for index in indices])

    def at_speed(self, index: int, most: float, draw: float) -> Tensor | None:
        """A clip faster or slower: every n-th frame of its file from where it begins, n a whole number.

        So it moves as evenly as the file does, and no frame comes twice. What would be read of a file that is damaged
        further on, or has gaps, is not altered: that follows from its bytes alone, as all else. Ask after `clips`.

        Args:
            index: of the clip; the speed is of the one that stands in for it if it is damaged.
            most: times faster or slower, at most.
            draw: in [0, 1), which of the numbers n that the file has frames for.

        Returns:
            `3 T H W` uint8; None where there is no such n, or it is the clip as it is.
        """
        file, start = self._items[next(self._candidates(index))]
        name = file.name if self._record is None else self._record.place(file.name)
        clip = self._clip
        if name is None or clip.frames == 1:
            return None
        path = self.report.path(name)
        try:
            # Not what the scan found, which of a large folder is less.
            info = probe(path, verify=False)
            if info.still or not info.fps:
                return None
            first = round(start * info.fps)
            last = round((info.duration - info.last) * info.fps)
            usual = info.fps / clip.fps
            fewest = max(1, math.ceil(usual / most - 1e-6))
            count = min(math.floor(usual * most + 1e-6), (last - first) // (clip.frames - 1)) - fewest + 1
            every = fewest + int(draw * count)
            if count < 1 or math.isclose(every, usual, rel_tol=1e-3):
                return None
            way: dict[str, Any] = {**clip.model_dump(), "fps": info.fps / every, "fit": self._fit}
            return to_uint8(read_video(path, **way, short="error", start=first / info.fps, distinct=True))
        except ClipTooShort:
            return None
        except UserError as error:
            self._check_fault(path, file, error)
            return None

    def captions_of(self, indices: Sequence[int]) -> list[str]:
        """The captions of the videos that `clips` returned for these clips."""
        # Latents that a killed run left may be of clips that this process never read.
        doubtful = self._record.damaged if self._record is not None else {}
        for index in indices:
            if self._items[index][0].name in doubtful and index not in self._damaged:
                self._video(index)
        read = [next(self._candidates(index)) for index in indices]
        return [self._items[index][0].caption or "" for index in read]

    def captions(self) -> list[str]:
        """The caption of every clip, also of damaged ones."""
        return [file.caption or "" for file, _ in self._items]

    def names(self) -> list[str]:
        """The file of every clip, relative to the folder."""
        return [file.name for file, _ in self._items]

    def fingerprint(self) -> str:
        """Hex digits of every byte of the files, their names in the folder, the captions, the clip and its fit.

        Reads each file once. Where the folder lies is no part of it; with a record, neither is whether a damaged
        file is still there.
        """
        if self._fingerprint is None:
            contents: dict[str, str] = {}
            for file, _ in self._items:
                if file.name not in contents:
                    contents[file.name] = self._content(file.name)
            facts: list[Any] = [self._clip.model_dump(mode="json")]
            # Only where it is not as it was before there was a choice: fingerprints from then hold.
            facts += [{"fit": self._fit}] if self._fit != "crop" else []
            facts += [{"overlap": self._overlap}] if self._overlap else []
            facts += [[file.name, contents[file.name], file.caption, start] for file, start in self._items]
            self._fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        return self._fingerprint

    def _content(self, name: str) -> str:
        known = self._record.content(name) if self._record is not None else None
        return known or content_hash(self.report.path(name))

    def _candidates(self, index: int) -> Iterator[int]:
        """A clip and those that stand in for it, the first first, without what is known to be damaged."""
        # IndexError beyond the end; negative from the end.
        own = range(len(self._items))[index]
        captioned = bool(self._items[own][0].caption)
        for step in range(len(self._items)):
            other = (own + step) % len(self._items)
            if other not in self._damaged and (self._items[other][0].caption or not captioned):
                yield other
        raise UserError(
            f"none of the {len(self._items)} clips of {self.folder} can be decoded: copy or export them again; "
            f"`minisora data check {self.folder}` finds what is damaged"
        )

    def _video(self, index: int) -> Tensor:
        """`3 T H W` uint8 of a clip, or of the one that stands in for it."""
        for candidate in self._candidates(index):
            video = self._ahead.pop(candidate, None)
            if video is None:
                video = self._decode(candidate)
            if video is not None:
                return video
            self._damaged.add(candidate)
        raise AssertionError("the candidates end with an error")

    def _decode(self, index: int) -> Tensor | None:
        """`3 T H W` uint8; None if it is damaged, which is noted in the record."""
        file, _ = self._items[index]
        record = self._record
        name = file.name if record is None else record.place(file.name)
        if name is None:
            return None
        path = self.report.path(name)
        try:
            return self._read(path, index)
        # A scan of a large folder does not decode everything.
        except UserError as error:
            if record is None:
                raise UserError(
                    f"{error}; `minisora data check {self.folder}` finds all such files"
                ) from error
            self._check_fault(path, file, error)
            record.leave_out(path, file.name, str(error).removeprefix(f"{path}: "))
            return None

    def _check_fault(self, path: Path, file: ScannedFile, error: UserError) -> None:
        """Raise where a file could not be read for another reason than its bytes as they were recorded."""
        cause = error.__cause__
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) in _OF_THE_MACHINE:
            raise error
        if self._record is None:
            return
        if not exists(path) or content_hash(path) != self._record.content(file.name):
            raise UserError(
                f"{path} is gone or has changed while it is trained on: bring it back as it was, and the same "
                "command goes on"
            ) from error

    def _read(self, path: Path, index: int) -> Tensor:
        """`3 T H W` uint8 from the file; what is read with it, if that is worth while, is kept for later."""
        _, start = self._items[index]
        clip = self._clip
        way: dict[str, Any] = {**clip.model_dump(), "fit": self._fit}
        together = self._together(index)
        if len(together) > 1:
            starts = [self._items[other][1] for other in together]
            try:
                videos = read_clips(path, starts, **way)
                for other, video in zip(together, videos, strict=False):
                    self._ahead[other] = to_uint8(video)
            except UserError:
                # Damage further on is the business of the clips that lie there.
                pass
            if index in self._ahead:
                return self._ahead.pop(index)
        # Which files may be padded was decided by the scan.
        return to_uint8(read_video(path, **way, short="pad", start=start))

    def _together(self, index: int) -> list[int]:
        """The clips to read in one pass with this one: of a file with rare key frames, as many as memory holds."""
        file = self._items[index][0]
        missing = [other for other in self._of_file.get(file.name, []) if other not in self._ahead]
        clip = self._clip
        num_bytes = 3 * clip.frames * clip.height * clip.width
        room = AHEAD_BYTES // num_bytes - len(self._ahead)
        if len(missing) <= room:
            return missing
        at = missing.index(index) if missing else 0
        return missing[at : at + max(room, 1)]


def costly_seeks(file: ScannedFile, clip: ClipConfig) -> bool:
    """Whether key frames are so rare that a clip costs over three times what it does with one a second.

    A clip is decoded from the key frame before it on: on average half the distance of two and its own length.
    """
    seconds = clip.frames / clip.fps
    return file.info is not None and file.info.key_gap / 2 + seconds > 3 * (0.5 + seconds)


def split_files(scan: FolderScan, split: Split, max_validation: int) -> list[ScannedFile]:
    """The files of a split: about a tenth for validation, whole files, so that they share no video.

    Each file's name alone decides (its hash as a fraction is below `VALIDATION_SHARE`), so that a file is on the
    same side at every clip size, whatever else the folder holds, and further files move none. A file on the
    side of validation is never trained on, also where there are more than `max_validation`.

    Of a few files none or all may fall to validation. Then the one with the smallest hash is for validation, or
    the one with the largest for training; which one that is can change with the files that a size keeps. The
    only file of a folder is both.

    Args:
        scan: a scan of the folder.
        split: which part.
        max_validation: at most this many files for validation, those with the smallest hashes.
    """
    kept = scan.kept
    if len(kept) < 2:
        return kept
    by_hash = sorted((name_fraction(file.name), file.name) for file in kept)
    held = [name for fraction, name in by_hash if fraction < VALIDATION_SHARE]
    held = held[: len(kept) - 1] or [by_hash[0][1]]
    chosen = set(held[:max_validation] if split == "validation" else held)
    return [file for file in kept if (file.name in chosen) == (split == "validation")]


def name_fraction(name: str) -> float:
    """A name's hash as a fraction in [0, 1), of its bytes on disk: the same for ever, and spread evenly."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:6]) / 2**48
