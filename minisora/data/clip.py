"""One captioned clip, and what every source of clips can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """A video and what it shows."""

    video: Tensor  # C T H W, float32 in [-1, 1]
    caption: str


class ClipDataset(Protocol):
    """Captioned clips of one size, by index; an item never depends on what was asked for before."""

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def __getitem__(self, index: int) -> Clip:
        """One clip; a pure function of the index."""
        ...

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of several clips, `B C T H W` float32 in [-1, 1]; faster than one by one."""
        ...

    def captions(self) -> list[str]:
        """The caption of every clip, without decoding any video."""
        ...

    def fingerprint(self) -> str:
        """Hex digits that change when the data, the clip size or a caption changes."""
        ...


@runtime_checkable
class StandsIn(Protocol):
    """Clips or latents of which damaged ones are left out, so that others stand in for them."""

    def captions_of(self, indices: Sequence[int]) -> list[str]:
        """The captions of what was given for these clips: to be asked after it was."""
        ...
