"""The doctor: looks at a folder before training and says what a config would keep and drop, and why."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from minisora.config import Config
from minisora.data.caption_claims import may_be_mirrored
from minisora.data.folder.folder_dataset import AHEAD_BYTES, costly_seeks, split_files
from minisora.data.folder.scan import (
    NOT_MAPPED,
    NOT_THERE,
    ONE_FIELD,
    FolderScan,
    ScannedFile,
    content_hash,
    scan_folder,
)
from minisora.data.folder.suggest import LITTLE, best_size, cut_share, share_in_words, size_unit
from minisora.data.shards import state
from minisora.models.tokenizer import caption_tokenizer, cut_captions, fitting_tokens
from minisora.screen import Progress, Table, say

# Of one kind in print; `to_dict` has all.
_MOST_NAMES = 20

# What to do about files that are read, but not well; FFmpeg does it, IN and OUT being two names of files.
_TO_SDR = (
    "ffmpeg -i IN -vf zscale=transfer=linear:npl=203,format=gbrpf32le,zscale=primaries=bt709,tonemap=mobius:desat=0,"
    "zscale=transfer=bt709:matrix=bt709:range=tv,format=yuv420p -c:a copy OUT"
)
_TO_PROGRESSIVE = "ffmpeg -i IN -vf bwdif=mode=send_frame -c:a copy OUT"
_TO_MORE_KEYS = "ffmpeg -i IN -force_key_frames 'expr:gte(t,n_forced)' -c:a copy OUT"


@dataclass(frozen=True)
class DoctorReport:
    """What is in a folder and what a config makes of it. `usable` is 0 if training on it cannot start."""

    folder: Path
    config: Config
    scan: FolderScan
    # Names of files with the same bytes.
    duplicates: list[list[str]]

    @property
    def usable(self) -> int:
        """How many clips training and validation get; 0 if `short_clips` is "error" and one is too short.

        Without those that `data.overlap` adds.
        """
        if self.config.data.short_clips == "error" and (self.too_short or self.stills):
            return 0
        return self.scan.num_clips

    def _names(self, wanted: Callable[[ScannedFile], object]) -> list[str]:
        return [file.name for file in self.scan.files if wanted(file)]

    @property
    def unreadable(self) -> list[str]:
        """Names of files that cannot be decoded, or only in part."""
        return self._names(lambda file: file.info.damage if file.info else file.dropped != NOT_THERE)

    @property
    def missing(self) -> list[str]:
        """Names in the metadata that no file has."""
        return self._names(lambda file: file.dropped == NOT_THERE)

    @property
    def without_caption(self) -> list[str]:
        """Names of readable files without a caption."""
        return self._names(lambda file: file.info and not file.caption)

    @property
    def too_short(self) -> list[str]:
        """Names of videos, else fit for use, with fewer frames than a clip; not `stills`."""
        return self._names(lambda file: file.too_short and not file.still)

    @property
    def stills(self) -> list[str]:
        """Names of single pictures, else fit for use, where a clip is longer."""
        return self._names(lambda file: file.too_short and file.still)

    @property
    def high_dynamic_range(self) -> dict[str, str]:
        """How the light of HDR videos is coded (HLG, PQ), by name; their colours are read too pale."""
        return {file.name: file.info.transfer for file in self.scan.files if file.info and file.info.transfer}

    @property
    def interlaced(self) -> list[str]:
        """Names of videos whose odd and even lines are of two moments; every other line is read."""
        return self._names(lambda file: file.info and file.info.interlaced)

    @property
    def rare_key_frames(self) -> dict[str, float]:
        """Longest stretch without a key frame, seconds, of kept files that are slow to read for it.

        Their clips are read in one pass, as many as `AHEAD_BYTES` hold; beyond that each is decoded from afar.
        """
        clip = self.config.clip
        if self.scan.num_clips * 3 * clip.frames * clip.height * clip.width <= AHEAD_BYTES:
            return {}
        return {
            file.name: file.info.key_gap
            for file in self.scan.kept
            if file.info and len(file.starts) > 1 and costly_seeks(file, clip)
        }

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

    @cached_property
    def overlap_clips(self) -> int:
        """How many more clips training gets because they overlap."""
        if not self.usable:
            return 0
        files = split_files(self.scan, "train", self.config.data.num_validation_clips)
        return sum(len(file.overlapping or file.starts) - len(file.starts) for file in files)

    @property
    def cropped(self) -> dict[str, float]:
        """Share of the picture that is cut off, by name, of kept files that lose more than a little."""
        data, clip = self.config.data, self.config.clip
        if data.fit != "crop":
            return {}
        sizes = [(clip.height, clip.width)]
        if data.buckets_by_shape:
            sizes += [(bucket.height, bucket.width) for bucket in data.buckets]
        shares = {
            file.name: min(cut_share((file.info.height, file.info.width), size) for size in sizes)
            for file in self.scan.kept
            if file.info
        }
        return {name: share for name, share in shares.items() if share > LITTLE}

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
            "stills": self.stills,
            "high_dynamic_range": self.high_dynamic_range,
            "interlaced": self.interlaced,
            "rare_key_frames": self.rare_key_frames,
            "cut_captions": self.cut,
            "cropped": self.cropped,
            "overlap_clips": self.overlap_clips,
            "duplicates": self.duplicates,
            "ignored": dict(self.scan.ignored),
            "notes": list(self.scan.notes),
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
        facts.add_row("folder", str(self.folder))
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
        kept = {file.name for file in self.scan.kept}
        padded = [f"{name}: last frame repeated" for name in self.too_short if name in kept]
        _list(console, "shorter than a clip", padded, "yellow")
        stills = [name for name in self.stills if name in kept]
        _list(console, "stand still, one picture for a whole clip", stills, "yellow")
        coded = [f"{name}: {transfer}" for name, transfer in self.high_dynamic_range.items()]
        _list(console, NOT_MAPPED, coded, "yellow", _TO_SDR)
        _list(console, ONE_FIELD, self.interlaced, "yellow", _TO_PROGRESSIVE)
        self._print_cropped(console)
        gaps = [f"{name}: {gap:.0f} s without one" for name, gap in self.rare_key_frames.items()]
        _list(console, "slow to read, key frames are rare", gaps, "yellow", _TO_MORE_KEYS)
        uncaptioned = [
            f"{file.name}: trained on an empty caption" for file in self.scan.kept if not file.caption
        ]
        _list(console, "without a caption", uncaptioned, "yellow")
        if self.cut:
            say(console, self.cut, style="yellow")
        _list(console, "the same file twice", [" = ".join(group) for group in self.duplicates], "yellow")
        _list(console, "notes", list(self.scan.notes), "yellow")
        if self.usable:
            still = f"; {len(stills)} of {len(kept)} stand still" if stills else ""
            say(console, f"usable: {self.usable} clips from {len(kept)} files{still}", style="green")
            if overlap := self.config.data.overlap:
                say(
                    console, f"data.overlap={overlap:g} makes {self.overlap_clips} further clips for training"
                )
            if (augment := self.config.data.augment).views > 1:
                mirrored = sum(may_be_mirrored(file.caption or "") for file in self.scan.kept)
                which = f"; {mirrored} of {len(kept)} files may be mirrored" if augment.mirror else ""
                say(console, f"data.augment shows each training clip {augment.views} times{which}")
        elif self.scan.num_clips:
            say(
                console,
                "not usable: data.short_clips is 'error' and files are too short; set pad or skip",
                style="red",
            )
        else:
            say(console, "nothing usable is left: every file was dropped, see the reasons above", style="red")

    def _print_cropped(self, console: Console) -> None:
        """What a crop cuts off, by the size of the pictures, and what to set instead."""
        config, cropped = self.config, self.cropped
        infos = {file.name: file.info for file in self.scan.kept if file.info}
        lost = Counter((infos[name].height, infos[name].width, share) for name, share in cropped.items())
        lines = [
            f"{height}x{width} ({count} file{'s' * (count > 1)}): {share_in_words(share)} of the picture is cut"
            for (height, width, share), count in lost.most_common()
        ]
        remedy = ""
        if lost:
            (height, width, _), _ = lost.most_common(1)[0]
            size = best_size((height, width), config.clip.height * config.clip.width, size_unit(config))
            remedy = "set data.fit=pad or squash"
            if size != (config.clip.height, config.clip.width):
                remedy += f", or a clip size of {size[0]}x{size[1]}"
            remedy += f"; `minisora data check {self.folder} --suggest` has a config"
        _list(
            console,
            f"pictures that a clip of {config.clip.height}x{config.clip.width} cuts",
            lines,
            "yellow",
            remedy,
        )


def check(folder: Path, config: Config, progress: Progress | None = None) -> DoctorReport:
    """Decode every frame of every file in a folder and judge it by `config.clip` and `config.data`.

    Args:
        folder: with videos or images.
        config: its `clip`, `text`, `data.short_clips`, `data.require_captions`, `data.fit`, `data.overlap`,
            `data.augment`, `data.buckets` and `data.num_validation_clips` count.
        progress: called with (files done, files in all).

    Raises:
        UserError: the folder is not there, cannot be read, holds no video, or its metadata is broken.
    """
    data = config.data
    scan = scan_folder(
        folder,
        config.clip,
        data.short_clips,
        data.require_captions,
        verify=True,
        progress=progress,
        overlap=data.overlap,
    )
    return DoctorReport(folder, config, scan, _duplicates(scan))


def _duplicates(scan: FolderScan) -> list[list[str]]:
    """Names of kept files with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for file in scan.kept:
        by_size[state(scan.path(file.name)).size].append(file.name)
    by_content: dict[str, list[str]] = defaultdict(list)
    for names in by_size.values():
        if len(names) > 1:
            for name in names:
                by_content[content_hash(scan.path(name))].append(name)
    return [names for names in by_content.values() if len(names) > 1]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in counter.most_common(8)) or "none readable"


def _range(values: list[int] | list[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (values[0], median(values), values[-1]))
    return f"{low} to {high}, median {middle}"


def _list(console: Console, title: str, lines: list[str], color: str, remedy: str = "") -> None:
    if not lines:
        return
    say(console, f"{title} ({len(lines)}):", style=color)
    for line in lines[:_MOST_NAMES]:
        say(console, f"  {line}")
    if len(lines) > _MOST_NAMES:
        say(console, f"  and {len(lines) - _MOST_NAMES} more")
    if remedy:
        say(console, f"  to mend it: {remedy}")
