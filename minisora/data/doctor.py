"""The doctor: looks at a folder before training and says what a config would keep and drop, and why."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minisora.config import Config
from minisora.data.folder import content_hash, split_files
from minisora.data.folder_scan import NOT_THERE, FolderScan, scan_folder
from minisora.models.tokenizer import caption_tokenizer, cut_captions, fitting_tokens

_MOST_NAMES = 20  # of one kind in print; `to_dict` has all


@dataclass(frozen=True)
class DoctorReport:
    """What is in a folder and what a config makes of it. `usable` is 0 if training on it cannot start."""

    folder: Path
    config: Config
    scan: FolderScan
    duplicates: list[list[str]]  # names of files with the same bytes

    @property
    def usable(self) -> int:
        """How many clips training and validation get; 0 if `short_clips` is "error" and one is too short."""
        if self.config.data.short_clips == "error" and self.too_short:
            return 0
        return self.scan.num_clips

    @property
    def unreadable(self) -> list[str]:
        """Names of files that cannot be decoded, or only in part."""
        return [
            file.name
            for file in self.scan.files
            if (file.info is None and file.dropped != NOT_THERE)
            or (file.info is not None and file.info.damage)
        ]

    @property
    def missing(self) -> list[str]:
        """Names in the metadata that no file has."""
        return [file.name for file in self.scan.files if file.dropped == NOT_THERE]

    @property
    def without_caption(self) -> list[str]:
        """Names of readable files without a caption."""
        return [file.name for file in self.scan.files if file.info is not None and not file.caption]

    @property
    def too_short(self) -> list[str]:
        """Names of files, else fit for use, with fewer frames than a clip."""
        return [file.name for file in self.scan.files if file.too_short]

    @cached_property
    def cut(self) -> str | None:
        """How many captions of the kept files a model would not read to their end, and what to do; None if none."""
        text, captions = self.config.text, [file.caption or "" for file in self.scan.kept]
        if not self.config.dit.text_conditioning:
            return None
        tokenizer = caption_tokenizer(text)
        if text.max_tokens is None:
            tokenizer.max_tokens = fitting_tokens(tokenizer, captions)
        return cut_captions(tokenizer, captions)

    @property
    def sizes(self) -> Counter[str]:
        """How many files have each size, "height x width"."""
        return Counter(f"{file.info.height}x{file.info.width}" for file in self.scan.files if file.info)

    @property
    def rates(self) -> Counter[str]:
        """How many videos have each rate, in frames per second to two digits."""
        return Counter(f"{file.info.fps:.4g}" for file in self.scan.files if file.info and file.info.fps)

    @property
    def lengths(self) -> list[int]:
        """Numbers of frames of the readable files, shortest first."""
        return sorted(file.info.frames for file in self.scan.files if file.info)

    @property
    def seconds(self) -> list[float]:
        """Durations of the readable videos, shortest first."""
        return sorted(file.info.duration for file in self.scan.files if file.info and file.info.fps)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        limit = self.config.data.num_validation_clips
        validation = split_files(self.scan, "validation", limit) if self.usable else []
        return {
            "folder": str(self.folder),
            "clip": self.config.clip.model_dump(mode="json"),
            "short_clips": self.config.data.short_clips,
            "require_captions": self.config.data.require_captions,
            "usable": self.usable,
            "num_files": len(self.scan.files),
            "num_kept": len(self.scan.kept),
            "kept": {file.name: len(file.starts) for file in self.scan.kept},
            "dropped": {file.name: file.dropped for file in self.scan.dropped},
            "validation": [file.name for file in validation],
            "unreadable": self.unreadable,
            "missing": self.missing,
            "without_caption": self.without_caption,
            "too_short": self.too_short,
            "cut_captions": self.cut,
            "duplicates": self.duplicates,
            "ignored": dict(self.scan.ignored),
            "sizes": dict(self.sizes),
            "fps": dict(self.rates),
            "frames": self.lengths,
            "seconds": self.seconds,
        }

    def print(self, console: Console) -> None:
        """Say it in words, the verdict last."""
        facts = Table(show_header=False, box=None, pad_edge=False)
        facts.add_column(style="bold")
        facts.add_column()
        clip = self.config.clip
        facts.add_row("folder", escape(str(self.folder)))
        facts.add_row("files", str(len(self.scan.files)))
        facts.add_row("sizes (HxW)", _counts(self.sizes))
        facts.add_row("fps", _counts(self.rates))
        if self.lengths:
            facts.add_row("frames", _range(self.lengths, "{:.0f}"))
        if self.seconds:
            facts.add_row("seconds", _range(self.seconds, "{:.2f}"))
        facts.add_row("a clip", f"{clip.frames} frames of {clip.height}x{clip.width} at {clip.fps:g} fps")
        if self.scan.ignored:
            facts.add_row("other files", _counts(self.scan.ignored))
        console.print(facts)
        _list(console, "dropped", [f"{file.name}: {file.dropped}" for file in self.scan.dropped], "red")
        padded = [f"{file.name}: last frame repeated" for file in self.scan.kept if file.too_short]
        _list(console, "shorter than a clip", padded, "yellow")
        uncaptioned = [
            f"{file.name}: trained on an empty caption" for file in self.scan.kept if not file.caption
        ]
        _list(console, "without a caption", uncaptioned, "yellow")
        if self.cut:
            console.print(self.cut, style="yellow", markup=False, highlight=False, soft_wrap=True)
        _list(console, "the same file twice", [" = ".join(group) for group in self.duplicates], "yellow")
        if self.usable:
            console.print(f"[green]usable: {self.usable} clips from {len(self.scan.kept)} files[/green]")
        elif self.scan.num_clips:
            console.print(
                "[red]not usable: data.short_clips is 'error' and files are too short; set pad or skip[/red]"
            )
        else:
            console.print("[red]nothing usable is left: every file was dropped, see the reasons above[/red]")


def check(folder: Path, config: Config, progress: Callable[[int, int], None] | None = None) -> DoctorReport:
    """Decode every frame of every file in a folder and judge it by `config.clip` and `config.data`.

    Args:
        folder: with videos or images.
        config: its `clip`, `text`, `data.short_clips`, `data.require_captions` and `data.num_validation_clips` count.
        progress: called with (files done, files in all).

    Raises:
        UserError: the folder is not there, cannot be read, holds no video, or its metadata is broken.
    """
    data = config.data
    scan = scan_folder(
        folder, config.clip, data.short_clips, data.require_captions, verify=True, progress=progress
    )
    return DoctorReport(folder, config, scan, _duplicates(scan))


def _duplicates(scan: FolderScan) -> list[list[str]]:
    """Names of kept files with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for file in scan.kept:
        by_size[(scan.folder / file.name).stat().st_size].append(file.name)
    by_content: dict[str, list[str]] = defaultdict(list)
    for names in by_size.values():
        if len(names) > 1:
            for name in names:
                by_content[content_hash(scan.folder / name)].append(name)
    return [names for names in by_content.values() if len(names) > 1]


def _counts(counter: Counter[str]) -> str:
    return (
        ", ".join(f"{escape(value)} ({count})" for value, count in counter.most_common(8)) or "none readable"
    )


def _range(values: list[int] | list[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (values[0], median(values), values[-1]))
    return f"{low} to {high}, median {middle}"


def _list(console: Console, title: str, lines: list[str], color: str) -> None:
    if not lines:
        return
    console.print(f"[{color}]{title} ({len(lines)}):[/{color}]")
    for line in lines[:_MOST_NAMES]:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if len(lines) > _MOST_NAMES:
        console.print(f"  and {len(lines) - _MOST_NAMES} more")
