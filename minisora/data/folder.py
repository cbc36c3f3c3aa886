"""`FolderDataset`: clips from a folder of videos and images of any kind, size, length and rate."""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from minisora.config import ClipConfig
from minisora.data.clip import Clip
from minisora.data.clip_memory import from_bytes, to_bytes
from minisora.data.folder_scan import FolderScan, ScannedFile, scan_folder
from minisora.data.video_io import ShortClips, read_video
from minisora.errors import UserError

VALIDATION_SHARE = 0.1  # of the files; see `split_files`


class FolderDataset:
    """A `ClipDataset` of the files that `scan_folder` keeps; `report` tells what became of the others.

    Every clip is decoded when it is asked for; `minisora.data.clip_memory.ClipMemory` holds what is read again.

    Args:
        folder: with the videos.
        clip: size, length and rate of a clip.
        short_clips: "pad", "skip" or "error", for files shorter than a clip.
        require_captions: drop files without a caption, else caption them "".
        files: of the scan, only these; None: all that are kept. See `split_files`.
        scan: a finished scan of the folder with the same options.
        max_clips: use no more than this many.
        spread: put the first clip of every file before the second ones, the files in no order, so that the first
            clips are a sample of all; else in the order of their names and times.

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
    ) -> None:
        self.report = scan or scan_folder(folder, clip, short_clips, require_captions)
        if short_clips == "error":
            short = next((file for file in self.report.files if file.too_short), None)
            if short is not None:
                raise UserError(
                    f"{folder / short.name}: shorter than {clip.frames} frames at {clip.fps:g} fps; "
                    "remove it, or set data.short_clips to pad or skip"
                )
        kept = self.report.kept if files is None else files
        items = [(number, file, start) for file in kept for number, start in enumerate(file.starts)]
        if spread:
            items.sort(key=lambda item: (item[0], name_fraction(item[1].name)))
        self._items = [(file, start) for _, file, start in items[:max_clips]]
        if not self._items:
            raise UserError(f"nothing usable: {self.report.summary()}")
        self.folder = folder
        self._clip = clip
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Clip:
        """One clip.

        Raises:
            UserError: the file can no longer be decoded; the message names it.
        """
        return Clip(self._video(index), self._items[index][0].caption or "")

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these clips, `B 3 T H W` float32 in [-1, 1]."""
        return torch.stack([self._video(index) for index in indices])

    def captions(self) -> list[str]:
        """The caption of every clip."""
        return [file.caption or "" for file, _ in self._items]

    def names(self) -> list[str]:
        """The file of every clip, relative to the folder."""
        return [file.name for file, _ in self._items]

    def fingerprint(self) -> str:
        """Hex digits of every byte of the files, the captions, and the clip; reads each file once."""
        if self._fingerprint is None:
            contents: dict[str, str] = {}
            for file, _ in self._items:
                if file.name not in contents:
                    contents[file.name] = content_hash(self.folder / file.name)
            facts = [self._clip.model_dump(mode="json")]
            facts += [[file.name, contents[file.name], file.caption, start] for file, start in self._items]  # type: ignore[misc]
            self._fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
        return self._fingerprint

    def _video(self, index: int) -> Tensor:
        """`3 T H W`; by way of bytes, so that a clip held as bytes equals a fresh one."""
        index = range(len(self._items))[index]  # IndexError beyond the end; negative from the end
        file, start = self._items[index]
        clip = self._clip
        try:
            video = read_video(
                self.folder / file.name,
                frames=clip.frames,
                height=clip.height,
                width=clip.width,
                fps=clip.fps,
                short="pad",  # which files may be padded was decided by the scan
                start=start,
            )
        except UserError as error:  # a scan of a large folder does not decode everything
            raise UserError(f"{error}; `minisora data check {self.folder}` finds all such files") from error
        return from_bytes(to_bytes(video))


def split_files(
    scan: FolderScan, split: Literal["train", "validation"], max_validation: int
) -> list[ScannedFile]:
    """The files of a split: about a tenth for validation, whole files, so that they share no video.

    Each file's name alone decides (its hash as a fraction is below `VALIDATION_SHARE`), so that a file is on the
    same side at every clip size, whatever else the folder holds, and further files move none. A file on the
    side of validation is never trained on, also where there are more than `max_validation`.

    Of a few files none or all may fall to validation. Then the one with the smallest hash is for validation, or
    the one with the largest for training; which one that is can change with the files that a size keeps. The
    only file of a folder is both.

    Args:
        scan: of the folder.
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
    """A name's hash as a fraction in [0, 1): the same for ever, and spread evenly over names."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6]) / 2**48


def content_hash(path: Path) -> str:
    """Hex digits of a file's bytes.

    Raises:
        UserError: it cannot be read.
    """
    try:
        about = path.stat()
        return _content_hash(path, about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=1 << 17)
def _content_hash(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
