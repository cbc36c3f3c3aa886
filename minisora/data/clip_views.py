"""Altered views of clips as further clips: augmentation that leaves captions true (`data.augment`).

A view is a function of (seed, index), so views have indices, latents and fingerprints as all clips have. The first
view of every clip is the clip as it is.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from minisora.config import AugmentConfig
from minisora.data.caption_claims import may_be_mirrored, names_brightness, names_speed
from minisora.data.clips import ClipDataset, ClipMemory, HasNames, ReadsAnew, StandsIn
from minisora.data.draws import uniforms
from minisora.errors import UserError

# Draws of a view, by their number; the first two are the shift's.
_BRIGHTNESS, _CONTRAST, _MIRROR, _SPEED = range(2, 6)
_NUM_DRAWS = 6


def move(videos: Tensor, by: Tensor) -> Tensor:
    """Every video moved up and left by so many pixels, its border repeated.

    Args:
        videos: B C T H W.
        by: B 2, whole (y, x).
    """
    height, width = videos.shape[-2:]
    rows = (torch.arange(height, device=videos.device) + by[:, :1]).clamp(0, height - 1)  # B H
    columns = (torch.arange(width, device=videos.device) + by[:, 1:]).clamp(0, width - 1)  # B W
    which = torch.arange(len(videos), device=videos.device)[:, None, None]
    moved = videos.permute(0, 3, 4, 1, 2)[which, rows[:, :, None], columns[:, None, :]]  # B H W C T
    return moved.permute(0, 3, 4, 1, 2)


def recolor(video: Tensor, brightness: float, contrast: float) -> Tensor:
    """A video brighter or darker by a share, then the slope of its middle greys steeper or flatter by another.

    Black stays black, and white white but for what brightness takes: what pads a picture stays as it is.

    Args:
        video: uint8 of any shape.
        brightness: share in [-0.5, 0.5].
        contrast: share in [-0.5, 0.5]; beyond it, the curve would fall somewhere.
    """
    levels = np.clip(np.arange(256) / 255 * (1 + brightness), 0, 1)
    levels += 2 * contrast * levels * (1 - levels) * (2 * levels - 1)
    return torch.from_numpy((levels * 255).round().astype(np.uint8)[video.numpy()])


class ClipViews:
    """A `ClipDataset` of several views of each of some clips; the first view is the clip as it is.

    A VAE encodes an object differently depending on where it lies on the grid of its strides, so even a clip shifted
    by less than a cell is a new training example. The clips are held in a `ClipMemory`, the views are not.

    A view is altered only as far as its caption stays true, by its words (`minisora.data.caption_claims`).

    Args:
        dataset: holds the clips.
        clip_indices: indices in `dataset` of the clips to use.
        augment: how many views of each clip, and what alters them.
        seed: decides how each view is altered.
        spread: put the first view of every clip before the second ones; else the views of a clip together.
        limit: most bytes of clips to hold; None: as of `ClipMemory`.

    Raises:
        UserError: views are to be faster or slower, and the clips have no files to read anew.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        clip_indices: Sequence[int],
        augment: AugmentConfig,
        seed: int = 0,
        spread: bool = False,
        limit: int | None = None,
    ):
        if augment.speed > 1 and not isinstance(dataset, ReadsAnew):
            raise UserError(
                f"data.augment.speed={augment.speed:g} reads frames anew from files, and these clips have none: set "
                "data.augment.speed=1"
            )
        self.dataset, self.clip_indices = dataset, list(clip_indices)
        self.augment, self.seed, self.spread = augment, seed, spread
        self._captions = dataset.captions()
        self._memory = ClipMemory(dataset, limit=limit)

    def __len__(self) -> int:
        return len(self.clip_indices) * self.augment.views

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these views, `B C T H W` uint8."""
        augment = self.augment
        places = [self._place(index) for index in indices]
        videos = torch.stack(self._memory.clips([source for source, _ in places]))
        drawn = uniforms(self.seed, indices, _NUM_DRAWS)  # B 6
        altered = [row for row, (_, view) in enumerate(places) if view > 0]
        if augment.speed > 1 or augment.mirror or augment.color:
            # Asked after the clips were read: of what was.
            captions = self.captions_of([indices[row] for row in altered])
            for row, caption in zip(altered, captions, strict=True):
                videos[row] = self._alter(videos[row], places[row][0], caption, drawn[row])
        if augment.shift:
            by = (torch.from_numpy(drawn[:, :2]) * (2 * augment.shift + 1)).floor().long() - augment.shift
            unaltered = torch.tensor([view == 0 for _, view in places])
            videos = move(videos, torch.where(unaltered[:, None], 0, by))
        return videos

    def _alter(self, video: Tensor, source: int, caption: str, drawn: np.ndarray) -> Tensor:
        """A clip `C T H W` uint8 as a view has it, but for its shift.

        Args:
            video: the clip as it is.
            source: its index in `dataset`.
            caption: what has to stay true.
            drawn: uniform numbers, `_NUM_DRAWS`.
        """
        augment = self.augment
        if augment.speed > 1 and isinstance(self.dataset, ReadsAnew) and not names_speed(caption):
            anew = self.dataset.at_speed(source, augment.speed, float(drawn[_SPEED]))
            video = video if anew is None else anew
        if augment.mirror and drawn[_MIRROR] < 0.5 and may_be_mirrored(caption):
            video = video.flip(-1)
        if augment.color and not names_brightness(caption):
            brightness, contrast = (
                augment.color * (2 * float(drawn[number]) - 1) for number in (_BRIGHTNESS, _CONTRAST)
            )
            video = recolor(video, brightness, contrast)
        return video

    def captions(self) -> list[str]:
        """The caption of every view: its clip's."""
        return [self._captions[self._place(index)[0]] for index in range(len(self))]

    def captions_of(self, indices: Sequence[int]) -> list[str]:
        """The captions of the videos that `clips` returned for these views."""
        sources = [self._place(index)[0] for index in indices]
        if isinstance(self.dataset, StandsIn):
            return self.dataset.captions_of(sources)
        return [self._captions[source] for source in sources]

    def names(self) -> list[str]:
        """The file of every view; [] where clips are of no files."""
        if not isinstance(self.dataset, HasNames):
            return []
        names = self.dataset.names()
        return [names[self._place(index)[0]] for index in range(len(self))] if names else []

    def fingerprint(self) -> str:
        """Hex digits of the clips and of what alters them."""
        facts = [
            self.dataset.fingerprint(),
            self.clip_indices,
            self.augment.views,
            self.augment.shift,
            self.seed,
        ]
        # Views of the captioner are only shifted, and were before there was more.
        apart = {"views", "shift", "plain_epochs"}
        more = self.augment.model_dump(exclude=apart) | {"spread": self.spread}
        if more != AugmentConfig().model_dump(exclude=apart) | {"spread": False}:
            facts.append(more)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]

    def _place(self, index: int) -> tuple[int, int]:
        """The index in `dataset` of the clip that a view shows, and the number of the view, 0 as it is."""
        index = range(len(self))[index]
        if self.spread:
            view, clip = divmod(index, len(self.clip_indices))
        else:
            clip, view = divmod(index, self.augment.views)
        return self.clip_indices[clip], view


def num_unaltered(dataset: ClipDataset) -> int:
    """How many of the clips are as they are, which come first: all but in training with `data.augment`."""
    return len(dataset.clip_indices) if isinstance(dataset, ClipViews) else len(dataset)
