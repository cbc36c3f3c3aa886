"""Clips held in memory as bytes, once: each is decoded or drawn the first time it is asked for.

A byte is `((x + 1) * 127.5)` rounded of a value x in [-1, 1]; `to_bytes` of `from_bytes` is exact.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minisora.data.clip import ClipDataset
from minisora.memory import available_memory, size_text

_SHARE = 0.5  # of what is free when the memory is made
_AT_ONCE = 64 << 20  # bytes of float clips read at a time


def to_bytes(video: Tensor) -> Tensor:
    """[-1, 1] to uint8."""
    return ((video.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_bytes(video: Tensor) -> Tensor:
    """uint8 to [-1, 1], float32."""
    return video.float() / 127.5 - 1


class ClipMemory:
    """The first clips of a data set, held as bytes as far as they fit; the others are read each time.

    Args:
        dataset: where clips come from.
        max_clips: use no more than this many; None: all.
        limit: bytes held at most; by default half of what is free now.
    """

    def __init__(self, dataset: ClipDataset, max_clips: int | None = None, limit: int | None = None):
        self.dataset = dataset
        self.num_clips = len(dataset) if max_clips is None else min(len(dataset), max_clips)
        self.limit = int(available_memory() * _SHARE) if limit is None else limit
        self._bytes: dict[int, Tensor] = {}
        self._held = 0  # bytes
        self._clip_bytes = 0  # of one; known once one was read

    def fill(self) -> None:
        """Decode or draw all that fit now: loader processes forked after it share the one copy."""
        start, step = 0, 1
        while start < self.num_clips and self._held + self._clip_bytes <= self.limit:
            self.clips(range(start, min(start + step, self.num_clips)))
            start, step = start + step, self._at_once()

    def clips(self, indices: Sequence[int]) -> list[Tensor]:
        """Clips as uint8, C T H W each, 0 is black."""
        fresh: dict[int, Tensor] = {}
        missing = sorted({index for index in indices if index not in self._bytes})
        while missing:
            some, missing = missing[: self._at_once()], missing[self._at_once() :]
            for index, pixels in zip(some, to_bytes(self.dataset.clips(some)), strict=True):
                self._clip_bytes = pixels.nbytes
                fresh[index] = pixels.clone()  # not a view that keeps those read with it
                if self._held + pixels.nbytes <= self.limit:
                    self._bytes[index] = fresh[index]
                    self._held += pixels.nbytes
        return [self._bytes[index] if index in self._bytes else fresh[index] for index in indices]

    def describe(self, shape: Sequence[int], remedy: str) -> str:
        """What is, or will be, held of clips of C T H W, in one line; with a remedy where they do not all fit."""
        one = torch.Size(shape).numel()
        total, fit = one * self.num_clips, min(self.num_clips, self.limit // one)
        if fit == self.num_clips:
            return f"{size_text(total)} of clips, all {self.num_clips:,} held as bytes"
        return (
            f"{size_text(total)} of clips, more than the {size_text(self.limit)} for them: {fit:,} of "
            f"{self.num_clips:,} are held, the others read anew for every batch; {remedy}"
        )

    def _at_once(self) -> int:
        """Clips to read at a time; one until the size of a clip is known."""
        return max(1, _AT_ONCE // (4 * self._clip_bytes)) if self._clip_bytes else 1
