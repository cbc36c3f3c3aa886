"""Open the data set that a config asks for: the shapes world, a folder of videos, or one of torchvision's sets.

Sets of torchvision must be on disk already; nothing is downloaded. MovingMNIST is read by torchvision itself. UCF101 is
read by `FolderDataset` from the folder that torchvision's class uses (`UCF-101/<Class>/*.avi`), because that class
decodes through the torchcodec package; a caption is the name of the class in words.
"""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from minisora.config import BucketConfig, ClipConfig, Config
from minisora.data.caption_claims import may_be_mirrored
from minisora.data.clip_views import ClipViews
from minisora.data.clips import ClipDataset, Split, to_uint8
from minisora.data.folder.folder_dataset import FolderDataset, split_files
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import FolderScan, content_hash, scan_folder
from minisora.data.shapes_world.shapes_dataset import ShapesWorld
from minisora.data.video.read_video import ClipTooShort, Fit, ShortClips, fit_pictures
from minisora.errors import UserError, nearest
from minisora.memory import available_memory
from minisora.screen import Progress, counting, plain

TORCHVISION_SETS = ("MovingMNIST", "UCF101")
# Of free memory, for the clips that views are made of.
_SHARE_OF_VIEWED = 0.25
_DIGITS_CAPTION = "two white digits moving"

_log = logging.getLogger(__name__)


def open_dataset(config: Config, split: Split, record: DataRecord | None = None) -> ClipDataset:
    """The clips of `config.data`, cut and resampled to `config.clip`; in training with their views of `data.augment`.

    With the `record` of a stage they are those that the stage was begun on, and damaged ones are left out.

    What a folder drops or pads is logged as a warning when its training part is opened; the data set's
    `report` has it file by file.

    Raises:
        UserError: the source is not there, nothing in it is usable, or it cannot be altered so; the message says why.
    """
    dataset, augment = _open_plain(config, split, record), config.data.augment
    if split == "validation" or augment.views == 1:
        return dataset
    if augment.mirror and not any(map(may_be_mirrored, dataset.captions())):
        _log.warning(
            "data.augment.mirror: every caption names a side or something written, so none is mirrored"
        )
    # What reads the views may hold them: half of what it finds free.
    limit = int(available_memory() * _SHARE_OF_VIEWED)
    return ClipViews(dataset, range(len(dataset)), augment, config.seed, spread=True, limit=limit)


def _open_plain(config: Config, split: Split, record: DataRecord | None) -> ClipDataset:
    """`open_dataset` without views."""
    data, clip = config.data, config.clip
    if data.source == "shapes":
        num_clips = data.num_clips if split == "train" else data.num_validation_clips
        size = (clip.frames, clip.height, clip.width)
        return ShapesWorld(num_clips, config.seed, *size, clip.fps, split, data.wall_share)
    # A Config cannot be made so; checked again for whoever builds one by `model_construct`.
    if data.path is None:
        raise UserError(f"data.source={data.source} needs data.path (or --data DIR)")
    folder = data.path
    caption_of: Callable[[Path], str] | None = None
    if data.source == "torchvision":
        if data.dataset == "MovingMNIST":
            return MovingDigits(
                data.path,
                clip,
                split,
                data.num_validation_clips,
                data.short_clips,
                data.fit,
                data.overlap if split == "train" else 0.0,
            )
        if data.dataset != "UCF101":
            raise UserError(
                f"data.dataset '{data.dataset}' is unknown{nearest(data.dataset, TORCHVISION_SETS)}; "
                f"known: {', '.join(TORCHVISION_SETS)}"
            )
        folder, caption_of = _ucf101_folder(data.path), _class_caption
    with _shown_progress("checking clips") as progress:
        scan = scan_folder(
            folder,
            clip,
            data.short_clips,
            data.require_captions,
            caption_of=caption_of,
            progress=progress,
            overlap=data.overlap,
        )
    return _of_folder(folder, config, split, scan, record)


def _shown_progress(what: str) -> AbstractContextManager[Progress]:
    """A bar for what takes minutes with a large folder; of several processes only the first shows it."""
    return counting(Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0"), what)


def _of_folder(
    folder: Path, config: Config, split: Split, scan: FolderScan, record: DataRecord | None
) -> FolderDataset:
    """One part of a scanned folder: in training what the record holds, in validation at most so many clips."""
    data, clip = config.data, config.clip
    if data.buckets_by_shape:
        others = [(bucket.height, bucket.width) for bucket in data.buckets]
        scan = scan.of_shape((clip.height, clip.width), others)
    if record is not None:
        with _shown_progress("reading clips") as progress:
            scan = record.pin(scan, clip, tell=split == "train", progress=progress)
    if split == "train" and (scan.dropped or scan.notes or scan.remarks()):
        _log.warning("%s", plain(scan.summary()))
    return FolderDataset(
        folder,
        clip,
        data.short_clips,
        data.require_captions,
        files=split_files(scan, split, data.num_validation_clips),
        scan=scan,
        max_clips=data.num_validation_clips if split == "validation" else None,
        spread=True,
        record=record,
        fit=data.fit,
        overlap=data.overlap if split == "train" else 0.0,
    )


def bucket_configs(config: Config) -> list[Config]:
    """The config of each further size of clips: that clip size, and its share of the clips.

    Where each file is used at the nearest size only, the others stand beside it.
    """
    clip, buckets = config.clip, config.data.buckets
    first = BucketConfig(frames=clip.frames, height=clip.height, width=clip.width)
    return [
        config.replace(
            **{
                "clip.frames": bucket.frames,
                "clip.height": bucket.height,
                "clip.width": bucket.width,
                "data.num_clips": max(1, round(config.data.num_clips * bucket.share)),
                "data.buckets": (first, *buckets[:number], *buckets[number + 1 :])
                if config.data.buckets_by_shape
                else (),
            }
        )
        for number, bucket in enumerate(buckets)
    ]


class MovingDigits:
    """MovingMNIST as a `ClipDataset`: frames as they come (it states no rate), resized, grey as RGB.

    The last clips, a tenth but at most `num_validation`, are for validation.

    Args:
        root: the folder that holds `MovingMNIST/mnist_test_seq.npy`.
        clip: size and length of a clip.
        split: which part of the clips.
        num_validation: most clips for validation.
        short_clips: what to do where a clip is longer than the 20 frames of the set; see `read_video`.
        fit: what becomes of the square pictures where a clip is not square; see `fit_pictures`.
        overlap: share of a clip that the next one of the same frames shows again; 0: each gives one, its beginning.

    Raises:
        ClipTooShort: a clip is longer, and `short_clips` is not "pad".
        UserError: the data are not in `root`.
    """

    def __init__(
        self,
        root: Path,
        clip: ClipConfig,
        split: Split,
        num_validation: int,
        short_clips: ShortClips,
        fit: Fit = "crop",
        overlap: float = 0.0,
    ) -> None:
        # Here, because it is slow to import.
        from torchvision import datasets

        try:
            digits = datasets.MovingMNIST(str(root), split=None, download=False).data  # N T 1 H W uint8
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(
                f"MovingMNIST is not in {root} ({error}): put mnist_test_seq.npy into {root / 'MovingMNIST'}"
            ) from error
        if digits.shape[1] < clip.frames and short_clips != "pad":
            raise ClipTooShort(
                f"MovingMNIST has {digits.shape[1]} frames, {clip.frames} wanted: lower clip.frames, "
                "or set data.short_clips to pad"
            )
        held = min(max(1, len(digits) // 10), num_validation)
        if len(digits) > 1:
            digits = digits[:-held] if split == "train" else digits[-held:]
        self._digits = digits[:, :, 0]  # N T H W
        step = max(1, round((1 - overlap) * clip.frames))
        # First frames of the clips of one video.
        self._starts = range(0, max(0, digits.shape[1] - clip.frames) + 1, step) if overlap else range(1)
        self._source = root / "MovingMNIST" / "mnist_test_seq.npy"
        self._split = split
        self._clip, self._fit, self._overlap = clip, fit, overlap

    def __len__(self) -> int:
        return len(self._digits) * len(self._starts)

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these clips, `B 3 T H W` uint8; first the first clip of every video."""
        places = [divmod(range(len(self))[index], len(self._digits)) for index in indices]
        grey = torch.stack(
            [self._digits[video][self._starts[window] :][: self._clip.frames] for window, video in places]
        )  # B t h w
        grey = fit_pictures(grey.float(), self._clip.height, self._clip.width, self._fit)
        missing = self._clip.frames - grey.shape[1]
        if missing > 0:
            grey = torch.cat([grey, grey[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        return to_uint8(grey / 127.5 - 1)[:, None].repeat(1, 3, 1, 1, 1)

    def captions(self) -> list[str]:
        """The caption of every clip: always the same."""
        return [_DIGITS_CAPTION] * len(self)

    def fingerprint(self) -> str:
        """Hex digits of the file, the split and the clip."""
        facts = f"{content_hash(self._source)} {self._split} {len(self)} {self._clip.model_dump_json()}"
        # Before there was a choice, digits were squashed where a clip is not square.
        if self._clip.height != self._clip.width and self._fit != "squash":
            facts += f" fit {self._fit}"
        if self._overlap:
            facts += f" overlap {self._overlap}"
        return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _ucf101_folder(root: Path) -> Path:
    folder = next((path for path in (root / "UCF-101", root / "UCF101", root) if _has_classes(path)), None)
    if folder is None:
        raise UserError(
            f"UCF101 is not in {root}: unpack UCF101.rar there, so that {root / 'UCF-101'} has 101 folders"
        )
    return folder


def _has_classes(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*/*.avi"))


def _class_caption(video: Path) -> str:
    """ApplyEyeMakeup/x.avi -> "apply eye makeup"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", video.parent.name).lower()
