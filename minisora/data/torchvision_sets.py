"""Data sets of torchvision that are on disk already; nothing is downloaded.

MovingMNIST is read by torchvision itself. UCF101 is read by `FolderDataset` from the folder that
torchvision's class uses (`UCF-101/<Class>/*.avi`), because that class decodes through the torchcodec package;
a caption is the name of the class in words. Absolute imports keep it apart from the package of its name.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from minisora.config import ClipConfig
from minisora.data.clip import Clip
from minisora.data.folder.folder_dataset import FolderDataset, content_hash, split_files
from minisora.data.folder.record import DataRecord
from minisora.data.folder.scan import scan_folder
from minisora.data.video.read_video import ClipTooShort, ShortClips
from minisora.errors import UserError, nearest

DATASETS = ("MovingMNIST", "UCF101")
_DIGITS_CAPTION = "two white digits moving"


def open_torchvision(
    name: str,
    root: Path,
    clip: ClipConfig,
    split: Literal["train", "validation"],
    num_validation: int,
    short_clips: ShortClips,
    record: DataRecord | None = None,
) -> "MovingDigits | FolderDataset":
    """A data set by the name of its torchvision class.

    Raises:
        UserError: the name is unknown, or the data are not in `root`.
    """
    if name == "MovingMNIST":
        return MovingDigits(root, clip, split, num_validation, short_clips)
    if name == "UCF101":
        return _ucf101(root, clip, split, num_validation, short_clips, record)
    raise UserError(
        f"data.dataset '{name}' is unknown{nearest(name, DATASETS)}; known: {', '.join(DATASETS)}"
    )


class MovingDigits:
    """MovingMNIST as a `ClipDataset`: frames as they come (it states no rate), resized, grey as RGB.

    The last clips, a tenth but at most `num_validation`, are for validation. See `open_torchvision`.
    """

    def __init__(
        self,
        root: Path,
        clip: ClipConfig,
        split: Literal["train", "validation"],
        num_validation: int,
        short_clips: ShortClips,
    ) -> None:
        from torchvision import datasets  # here: it is slow to import

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
        self._digits = digits[:, : clip.frames, 0]  # N T H W
        self._source = root / "MovingMNIST" / "mnist_test_seq.npy"
        self._split = split
        self._clip = clip

    def __len__(self) -> int:
        return len(self._digits)

    def __getitem__(self, index: int) -> Clip:
        """One clip."""
        return Clip(self.clips([index])[0], _DIGITS_CAPTION)

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these clips, `B 3 T H W` float32 in [-1, 1]."""
        grey = self._digits[list(indices)].float()  # B t h w
        size = (self._clip.height, self._clip.width)
        if size != tuple(grey.shape[-2:]):
            grey = functional.interpolate(grey, size, mode="bilinear", antialias=True).clamp_(0, 255)
        missing = self._clip.frames - grey.shape[1]
        if missing > 0:
            grey = torch.cat([grey, grey[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        return (grey / 127.5 - 1)[:, None].repeat(1, 3, 1, 1, 1)

    def captions(self) -> list[str]:
        """The caption of every clip: always the same."""
        return [_DIGITS_CAPTION] * len(self)

    def fingerprint(self) -> str:
        """Hex digits of the file, the split and the clip."""
        facts = f"{content_hash(self._source)} {self._split} {len(self)} {self._clip.model_dump_json()}"
        return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _ucf101(
    root: Path,
    clip: ClipConfig,
    split: Literal["train", "validation"],
    num_validation: int,
    short_clips: ShortClips,
    record: DataRecord | None,
) -> FolderDataset:
    folder = next((place for place in (root / "UCF-101", root / "UCF101", root) if _has_classes(place)), None)
    if folder is None:
        raise UserError(
            f"UCF101 is not in {root}: unpack UCF101.rar there, so that {root / 'UCF-101'} has 101 folders"
        )
    scan = scan_folder(folder, clip, short_clips, caption_of=lambda video: _class_in_words(video.parent.name))
    if record is not None:
        scan = record.pin(scan, clip, tell=split == "train")
    files = split_files(scan, split, num_validation)
    limit = num_validation if split == "validation" else None
    return FolderDataset(
        folder, clip, short_clips, files=files, scan=scan, max_clips=limit, spread=True, record=record
    )


def _has_classes(place: Path) -> bool:
    return place.is_dir() and any(place.glob("*/*.avi"))


def _class_in_words(name: str) -> str:
    """ApplyEyeMakeup -> "apply eye makeup"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
