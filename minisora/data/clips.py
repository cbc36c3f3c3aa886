"""Clips as bytes: what every source of them gives, and what holds them in memory.

A byte is `((x + 1) * 127.5)` rounded of a value x in [-1, 1]. A clip is made bytes once, where it is drawn or decoded,
and becomes float on the device that computes with it (`to_float`); `to_uint8` of `to_float` is exact.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from minisora.memory import available_memory, size_text

Split = Literal["train", "validation"]

# Of the range of values: a pixel further than this from its clip's median frame moves.
MOVED = 0.1
# Of the memory that is free when a `ClipMemory` is made, the share that it may fill.
_SHARE = 0.5
# Bytes read at a time, while a source that draws or resizes in float32 has four for each of them.
_AT_ONCE = 16 << 20


def to_uint8(video: Tensor) -> Tensor:
    """Float in [-1, 1] (values outside are clamped) -> uint8, of any shape."""
    return video.clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)


def to_float(video: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], of any shape; call it on the device that computes with the result."""
    return video.float() / 127.5 - 1


def moving(video: Tensor) -> Tensor:
    """Where a clip differs from its median frame by more than a tenth of the range, in any channel.

    Args:
        video: `... C T H W` uint8.

    Returns:
        `... T H W` bool.
    """
    still = video.median(dim=-3, keepdim=True).values
    # Bytes have no sign: the larger less the smaller.
    apart = torch.maximum(video, still) - torch.minimum(video, still)
    return (apart > MOVED * 255).any(dim=-4)


class ClipDataset(Protocol):
    """Captioned clips of one size, by index."""

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def clips(self, indices: Sequence[int]) -> Tensor:
        """The videos of these clips, `B C T H W` uint8, each a pure function of its index.

        Raises:
            IndexError: there is no such clip.
            UserError: a file cannot be decoded; the message names it.
        """
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
        """The captions of what was returned for these clips: to be asked after it was."""
        ...


@runtime_checkable
class HasNames(Protocol):
    """Clips that lie in files."""

    def names(self) -> list[str]:
        """The file of every clip."""
        ...


@runtime_checkable
class ReadsAnew(Protocol):
    """Clips that can be read from their files at another speed."""

    def at_speed(self, index: int, most: float, draw: float) -> Tensor | None:
        """A clip `C T H W` uint8, at most so many times faster or slower, as `draw` in [0, 1) has it; None: it cannot.

        To be asked after the clip itself was read.
        """
        ...


class ClipMemory:
    """The first clips of a data set, held as far as they fit: each is decoded or drawn the first time it is needed.

    Clips that do not fit are read anew each time.

    Args:
        dataset: the source of the clips.
        max_clips: use no more than this many clips; None: all.
        limit: most bytes to hold; None: half of what this process may take now (`available_memory`).
    """

    def __init__(self, dataset: ClipDataset, max_clips: int | None = None, limit: int | None = None):
        self.dataset = dataset
        self.num_clips = len(dataset) if max_clips is None else min(len(dataset), max_clips)
        self.limit = int(available_memory() * _SHARE) if limit is None else limit
        self._clips: dict[int, Tensor] = {}
        self._moving: dict[int, Tensor] = {}
        # Bytes of the held clips, and of one clip (known once one was read).
        self._held = self._clip_bytes = 0

    def fill(self) -> None:
        """Decode or draw all that fit now: loader processes forked after it share the one copy."""
        start, step = 0, 1
        while start < self.num_clips and self._held + self._clip_bytes <= self.limit:
            self.clips(range(start, min(start + step, self.num_clips)))
            start, step = start + step, self._at_once()

    def clips(self, indices: Sequence[int]) -> list[Tensor]:
        """The videos of these clips, each `C T H W` uint8, not to be changed."""
        fresh: dict[int, Tensor] = {}
        missing = sorted({index for index in indices if index not in self._clips})
        while missing:
            chunk, missing = missing[: self._at_once()], missing[self._at_once() :]
            for index, video in zip(chunk, self.dataset.clips(chunk), strict=True):
                self._clip_bytes = video.nbytes
                # Not a view, which would keep the clips that were read with it.
                fresh[index] = video.clone()
                if self._held + video.nbytes <= self.limit:
                    self._clips[index] = fresh[index]
                    self._held += video.nbytes
        return [self._clips[index] if index in self._clips else fresh[index] for index in indices]

    def moving(self, indices: Sequence[int]) -> list[Tensor]:
        """Where each of these clips moves, `T H W` bool; held beside the clips that are."""
        fresh: dict[int, Tensor] = {}
        for index, video in zip(indices, self.clips(indices), strict=True):
            if index not in self._moving:
                mask = moving(video)
                if index not in self._clips or self._held + mask.nbytes > self.limit:
                    fresh[index] = mask
                    continue
                self._moving[index] = mask
                self._held += mask.nbytes
        return [self._moving[index] if index in self._moving else fresh[index] for index in indices]

    def describe(self, shape: Sequence[int], remedy: str) -> str:
        """One line on what is, or will be, held of clips of `shape` C T H W, with `remedy` if not all of them fit."""
        clip_bytes = torch.Size(shape).numel()
        total, fit = clip_bytes * self.num_clips, min(self.num_clips, self.limit // clip_bytes)
        if fit == self.num_clips:
            return f"{size_text(total)} of clips, all {self.num_clips:,} held as bytes"
        return (
            f"{size_text(total)} of clips, more than the {size_text(self.limit)} for them: {fit:,} of "
            f"{self.num_clips:,} are held, the others read anew for every batch; {remedy}"
        )

    def _at_once(self) -> int:
        """How many clips to read at a time; one until the size of a clip is known."""
        return max(1, _AT_ONCE // self._clip_bytes) if self._clip_bytes else 1
