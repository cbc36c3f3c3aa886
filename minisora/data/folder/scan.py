"""What is in a folder of videos, and what becomes of each file: kept as so many clips, or dropped and why."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from minisora.config import ClipConfig
from minisora.data.folder.metadata import METADATA_NAMES, FileNames, read_metadata, read_sidecar
from minisora.data.media_suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from minisora.data.shards import SHARD_SUFFIX, FileState, exists, members, open_file, state
from minisora.data.video.read_video import ShortClips, VideoInfo, probe
from minisora.errors import UserError
from minisora.files import checksum
from minisora.screen import Progress

# Files that wait to be looked at.
_AT_ONCE = 256
# Bytes of video that are decoded in a minute or two on two cores.
_SMALL_ENOUGH = 1 << 30
NO_CAPTION = "no caption: add a row to metadata.csv or a .txt beside it"
NOT_THERE = "named in the metadata, but there is no such file"
STANDS_STILL = "one picture, repeated for a whole clip"
PADDED = "too short, last frame repeated"
NOT_MAPPED = "high dynamic range, colours read as they are and so too pale"
ONE_FIELD = "interlaced, every other line read"


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """One file, or one row of metadata without a file.

    Args:
        name: relative to the folder, with forward slashes.
        caption: "" where an empty one will do; None: there is none.
        info: None: not readable, or not there.
        dropped: why it is not used; None: it is.
        too_short: fit for use, but with fewer frames than a clip.
        starts: seconds at which its clips start, one after another; empty if dropped.
        overlapping: seconds at which its clips for training start where they overlap; empty: as `starts`.
    """

    name: str
    caption: str | None
    info: VideoInfo | None = None
    dropped: str | None = None
    too_short: bool = False
    starts: tuple[float, ...] = ()
    overlapping: tuple[float, ...] = ()

    @property
    def still(self) -> bool:
        """Whether it is one picture."""
        return self.info is not None and self.info.still


@dataclass(frozen=True)
class FolderScan:
    """Everything found in a folder, in the order of names."""

    folder: Path
    files: tuple[ScannedFile, ...]
    # How many files are of no use here, by suffix.
    ignored: Counter[str] = field(default_factory=Counter)
    # What was decided between several captions of a file, and links not followed.
    notes: tuple[str, ...] = ()
    # The shard of every file that lies in one, relative to the folder.
    shards: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Where a file lies: in the folder, or `SHARD.tar/NAME`."""
        if (shard := self.shards.get(name)) is None:
            return self.folder / name
        place = self.folder / shard
        return place / (self.folder / name).relative_to(place.parent)

    @property
    def kept(self) -> list[ScannedFile]:
        """The files that give clips."""
        return [file for file in self.files if file.dropped is None]

    @property
    def dropped(self) -> list[ScannedFile]:
        """The files that do not, with their reasons."""
        return [file for file in self.files if file.dropped is not None]

    @property
    def num_clips(self) -> int:
        """How many clips the kept files give, one after another."""
        return sum(len(file.starts) for file in self.files)

    def of_shape(self, size: tuple[int, int], others: Iterable[tuple[int, int]]) -> "FolderScan":
        """The scan without the kept files whose shape is nearer to that of another size, all (height, width).

        Raises:
            UserError: none is left of those that were kept.
        """

        def near(file: ScannedFile) -> bool:
            if file.dropped is not None or file.info is None:
                return True
            shown = (file.info.height, file.info.width)
            nearest = min((shape_distance(shown, other) for other in others), default=math.inf)
            return shape_distance(shown, size) <= nearest + 1e-9

        others = tuple(others)
        left = replace(self, files=tuple(filter(near, self.files)))
        if self.kept and not left.kept:
            raise UserError(
                f"no file of {self.folder} is nearest in shape to {size[0]}x{size[1]}: leave that size out, or set "
                "data.buckets_by_shape=false"
            )
        return left

    def remarks(self) -> dict[str, list[ScannedFile]]:
        """The kept files that are not read as they are, by what is done to them."""
        kinds = {
            STANDS_STILL: [file for file in self.kept if file.too_short and file.still],
            PADDED: [file for file in self.kept if file.too_short and not file.still],
            NOT_MAPPED: [file for file in self.kept if file.info is not None and file.info.transfer],
            ONE_FIELD: [file for file in self.kept if file.info is not None and file.info.interlaced],
        }
        return {title: files for title, files in kinds.items() if files}

    def summary(self) -> str:
        """One line: what is used, what is not, and why."""
        text = f"{self.folder}: {self.num_clips} clips from {len(self.kept)} of {len(self.files)} files"
        for title, files in self.remarks().items():
            text += f"; {title}: {some_of(file.name for file in files)}"
        if self.dropped:
            text += f"; dropped: {some_of(f'{file.name} ({file.dropped})' for file in self.dropped)}"
        if self.notes:
            text += f"; {some_of(self.notes)}"
        return text


def shape_distance(shown: tuple[int, int], size: tuple[int, int]) -> float:
    """How far apart two (height, width) are in shape: 0 for the same, whatever their areas."""
    return abs(math.log(shown[0] * size[1] / (shown[1] * size[0])))


def scan_folder(
    folder: Path,
    clip: ClipConfig,
    short_clips: ShortClips = "pad",
    require_captions: bool = True,
    verify: bool | None = None,
    caption_of: Callable[[Path], str | None] | None = None,
    progress: Progress | None = None,
    overlap: float = 0.0,
) -> FolderScan:
    """Look at every video and image below a folder; hidden files and folders are passed over.

    Where there are none but shards (`NAME.tar`), their members count as if they were unpacked beside them.

    A caption comes from the `metadata.csv` or `metadata.jsonl` in the file's folder or one above it (see
    `FileNames` for the names in it), else from `NAME.txt`. Of several rows for a file the last one with a text
    counts, of several tables the one furthest down. A video long enough for several clips gives them one after
    another, all with its caption.

    Linked folders are followed, each real folder once, under its own name if it lies in this one; links to a
    folder that holds them are not. `notes` has what is left out.

    Args:
        folder: the folder to look in.
        clip: length, rate and size of a clip.
        short_clips: what becomes of files with fewer frames: "pad" keeps them, "skip" and "error" drop them.
        require_captions: drop files without a caption; otherwise their caption is "".
        verify: decode every frame of every file, not the first only; None: if they are 1 GB or less in all.
        caption_of: another source of captions than the three above.
        progress: called with (files done, files in all).
        overlap: share of a clip, in [0, 1), that the next one shows again; 0: none is looked for.

    Raises:
        UserError: the folder is not there, cannot be read, has no videos, or its metadata is broken.
    """
    videos, metadata, tars, ignored, notes = walk(folder)
    names = [video.relative_to(folder).as_posix() for video in videos]
    shards: dict[str, str] = {}
    if videos:
        notes += [f"{tar.relative_to(folder)}: not read, as videos lie beside it" for tar in tars]
        ignored.update({SHARD_SUFFIX: len(tars)} if tars else {})
    else:
        shards = _in_shards(folder, tars, ignored)
        names = sorted(shards)
    if not names:
        known = " ".join((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, SHARD_SUFFIX))
        raise UserError(f"{folder} holds no video or image: it needs files of these kinds: {known}")
    found = FolderScan(folder, (), shards=shards)
    del videos
    if verify is None:
        verify = sum(state(path).size for path in map(found.path, names) if exists(path)) <= _SMALL_ENOUGH
    captions, several = _captions(folder, metadata, FileNames(folder, names))

    def look(name: str) -> ScannedFile:
        """Keep or drop one file."""
        video = found.path(name)
        caption = caption_of(video) if caption_of else captions.get(name) or read_sidecar(video)
        try:
            info = probe(video, verify)
        except UserError as error:
            return ScannedFile(name, caption, dropped=str(error).removeprefix(f"{video}: "))
        available = info.frames_at(clip.fps)
        unusable = info.damage or (NO_CAPTION if caption is None and require_captions else None)
        too_short = unusable is None and available < clip.frames
        if too_short and short_clips != "pad":
            what = "a single picture" if info.still else "too short"
            unusable = f"{what}: {available} frames at {clip.fps:g} fps, a clip has {clip.frames}"
        num_clips = 0 if unusable else max(1, available // clip.frames)
        starts = tuple(k * clip.frames / clip.fps for k in range(num_clips))
        windows = _overlapping(available, clip, overlap) if num_clips and overlap else ()
        return ScannedFile(name, caption, info, unusable, too_short, starts, windows)

    files = [ScannedFile(name, captions[name], dropped=NOT_THERE) for name in captions.keys() - set(names)]
    missing = len(files)
    # Decoders release the interpreter lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # A few at a time: what is waiting takes more memory than what is known.
        for start in range(0, len(names), _AT_ONCE):
            for scanned in pool.map(look, names[start : start + _AT_ONCE]):
                files.append(scanned)
                if progress:
                    progress(len(files) - missing, len(names))
    files.sort(key=lambda file: file.name)
    return FolderScan(folder, tuple(files), ignored, (*several, *notes), shards)


def _in_shards(folder: Path, tars: Iterable[Path], ignored: Counter[str]) -> dict[str, str]:
    """The videos and images in shards by the name they would have unpacked, and the shard of each.

    Raises:
        UserError: a shard is broken, or two hold a file of one name.
    """
    shards: dict[str, str] = {}
    for tar in tars:
        shard = tar.relative_to(folder)
        for member in members(tar):
            suffix = PurePosixPath(member).suffix.lower()
            if suffix not in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
                if suffix not in (".txt", ".json"):
                    ignored[suffix or "no suffix"] += 1
                continue
            name = (shard.parent / member).as_posix()
            if (other := shards.setdefault(name, shard.as_posix())) != shard.as_posix():
                raise UserError(
                    f"{folder}: {name!r} is in {other} and in {shard.as_posix()}; leave one shard out, or give "
                    "every clip its own name"
                )
    return shards


def _overlapping(available: int, clip: ClipConfig, overlap: float) -> tuple[float, ...]:
    """Seconds at which clips start that share so much of their length with the next, a whole number of frames apart.

    Args:
        available: frames of the file at the rate of the clip.
        clip: length and rate.
        overlap: share in [0, 1).
    """
    step = max(1, round((1 - overlap) * clip.frames))
    count = max(0, available - clip.frames) // step + 1
    return tuple(k * step / clip.fps for k in range(count))


def _captions(folder: Path, metadata: list[Path], files: FileNames) -> tuple[dict[str, str], list[str]]:
    """The caption of every file that the tables name, and which was taken where they have several."""
    captions: dict[str, str] = {}
    texts: dict[str, list[str]] = {}
    # Rows of a table further down win: it comes later in the walk.
    for file in metadata:
        table_folder = file.parent.relative_to(folder).as_posix()
        for row in read_metadata(file):
            name = files.find(row.file_name, table_folder)
            texts.setdefault(name, []).append(row.text)
            # An empty text takes no caption away.
            if row.text or name not in captions:
                captions[name] = row.text
    notes = [
        f"{name}: {len(rows)} rows in the metadata, the last one with a text is used: {captions[name]!r}"
        for name, rows in sorted(texts.items())
        if len(set(filter(None, rows))) > 1
    ]
    return captions, notes


def walk(folder: Path) -> tuple[list[Path], list[Path], list[Path], Counter[str], list[str]]:
    """Videos and images, metadata files, tar files, a count of the rest by suffix, and the links not followed.

    All are in a fixed order, a folder before those in it, real folders before linked ones.

    Raises:
        UserError: the folder is not there, or a folder cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the videos")
    videos: list[Path] = []
    metadata: list[Path] = []
    tars: list[Path] = []
    ignored: Counter[str] = Counter()
    notes: list[str] = []
    # Real folders, and under which name they were seen.
    seen: dict[str, Path] = {}
    places = [folder]
    while places:
        links: list[Path] = []
        for place in places:
            if (first := seen.get(os.path.realpath(place))) is not None:
                shown = first.relative_to(folder)
                notes.append(
                    f"{place.relative_to(folder)}: a link to the folder {shown}, whose files are used once"
                )
                continue
            for path in _below(place, seen, links):
                suffix = path.suffix.lower()
                if suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES:
                    videos.append(path)
                elif path.name in METADATA_NAMES:
                    metadata.append(path)
                elif suffix == ".txt":
                    continue
                elif suffix == SHARD_SUFFIX and path.is_file():
                    tars.append(path)
                elif path.is_symlink() and not path.exists():
                    notes.append(f"{path.relative_to(folder)}: a link to nothing")
                else:
                    ignored[suffix or "no suffix"] += 1
        places = []
        for link in links:
            target = Path(os.path.realpath(link))
            if any(Path(os.path.realpath(held)).is_relative_to(target) for held in (folder, link.parent)):
                notes.append(f"{link.relative_to(folder)}: a link to a folder that holds it, not followed")
            else:
                places.append(link)
    return videos, metadata, tars, ignored, notes


def _below(place: Path, seen: dict[str, Path], links: list[Path]) -> Iterator[Path]:
    """The files in a folder and in the real ones below it that were not seen; links to folders go to `links`."""

    def fail(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error

    for here, subfolders, names in os.walk(place, onerror=fail):
        real = os.path.realpath(here)
        # A link led into it.
        if real in seen:
            subfolders.clear()
            continue
        seen[real] = Path(here)
        shown = [Path(here, name) for name in sorted(subfolders) if not name.startswith(".")]
        links += [path for path in shown if path.is_symlink()]
        subfolders[:] = [path.name for path in shown if not path.is_symlink()]
        yield from (Path(here, name) for name in sorted(names) if not name.startswith("."))


def content_hash(path: Path) -> str:
    """Hex digits of a file's bytes, on disk or in a shard; raises UserError where it cannot be read."""
    try:
        try:
            return checksum(path)
        except NotADirectoryError:
            return _member_checksum(os.fspath(path), state(path))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=1 << 17)
def _member_checksum(path: str, _state: FileState) -> str:
    with open_file(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def some_of(names: Iterable[str], most: int = 5) -> str:
    """A list in words, cut after a few."""
    items = list(names)
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
