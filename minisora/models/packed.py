"""Packed native sizes: clips of different length and shape in common rows of tokens, none padded to another's size.

Patch n' Pack (NaViT, Dehghani et al. 2023, arXiv 2307.06304): a row holds the tokens of several clips one after
the other, and masks keep each clip to itself and to its own text.

Letters: R rows, L tokens of a row, K clips of a row at most, M text tokens, D width, B clips, F noise levels of all
clips together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minisora.errors import UserError

_EMPTY = -1  # the clip of a token that pads a row


@dataclass(frozen=True)
class Rows:
    """Which clips lie in which row, and how long the rows are."""

    clips: list[list[int]]  # of each row, in order
    lengths: list[int]  # tokens of each clip
    length: int  # L, of the fullest row

    @property
    def waste(self) -> float:
        """The share of tokens that only pad rows."""
        return 1 - sum(self.lengths) / (len(self.clips) * self.length)


def pack(lengths: Sequence[int], capacity: int) -> Rows:
    """Clips into as few rows of at most `capacity` tokens as even filling allows.

    Longest clips first, each into the emptiest row (Graham 1969, LPT); one row more where that overflows. All rows
    then are as long as the fullest.

    Raises:
        UserError: a clip is longer than the capacity.
    """
    longest = max(lengths)
    if longest > capacity:
        raise UserError(
            f"a clip of {longest} tokens does not fit a packed row of {capacity}: raise data.packing to {longest}"
        )
    count = -(-sum(lengths) // capacity)
    while True:
        rows: list[list[int]] = [[] for _ in range(count)]
        filled = [0] * count
        for clip in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
            row = filled.index(min(filled))
            rows[row].append(clip)
            filled[row] += lengths[clip]
        if max(filled) <= capacity:
            return Rows([row for row in rows if row], list(lengths), max(filled))
        count += 1


@dataclass(frozen=True)
class PackedIndex:
    """Where every token of the rows comes from, and what it may look at."""

    rows: Rows
    clip: Tensor  # R L, the clip of a token, -1 for padding
    token: Tensor  # R L, its place among the tokens of all clips one after the other; 0 for padding
    text_clip: Tensor  # R K, the clips whose text stands beside the row, -1 for none

    @classmethod
    def build(cls, rows: Rows, device: torch.device) -> "PackedIndex":
        """The index of a packing."""
        starts = [0]
        for length in rows.lengths:
            starts.append(starts[-1] + length)
        most = max(len(clips) for clips in rows.clips)
        clip = torch.full((len(rows.clips), rows.length), _EMPTY)
        token = torch.zeros(len(rows.clips), rows.length, dtype=torch.long)
        text_clip = torch.full((len(rows.clips), most), _EMPTY)
        for row, clips in enumerate(rows.clips):
            place = 0
            for number, which in enumerate(clips):
                here = slice(place, place + rows.lengths[which])
                clip[row, here] = which
                token[row, here] = torch.arange(starts[which], starts[which + 1])
                text_clip[row, number] = which
                place = here.stop
        return cls(rows, clip.to(device), token.to(device), text_clip.to(device))

    def gather(self, tokens: Tensor) -> Tensor:
        """Tokens of all clips one after the other (N ...) laid out in rows, R L ...; padding repeats token 0."""
        return tokens[self.token]

    def scatter(self, rows: Tensor) -> list[Tensor]:
        """Rows (R L D) back to the tokens of each clip (N_i D), in the order of the clips."""
        real = self.clip >= 0
        flat = rows.new_empty(sum(self.rows.lengths), rows.shape[-1]).index_copy(
            0, self.token[real], rows[real]
        )
        return list(flat.split(self.rows.lengths))

    def own_clip(self) -> Tensor:
        """R 1 L L, true where two tokens are of one clip; padding sees padding."""
        return (self.clip[:, :, None] == self.clip[:, None, :])[:, None]

    def own_text(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The texts beside each row, and which text tokens each token may look at.

        Args:
            text: B M D.
            mask: B M, true where a token is real.

        Returns:
            R (K M) D, and R L (K M); padding sees the first clip's text.
        """
        beside = text[self.text_clip].flatten(1, 2)  # R (K M) D; -1 repeats the last text, which nobody sees
        real = mask[self.text_clip] & (self.text_clip >= 0)[:, :, None]  # R K M
        reader = torch.where(self.clip >= 0, self.clip, self.text_clip[:, :1])  # R L
        own = (reader[:, :, None] == self.text_clip[:, None, :])[..., None] & real[:, None]  # R L K M
        return beside, own.flatten(2)


def levels_of_tokens(grids: Sequence[tuple[int, int, int]], sigmas: Sequence[Tensor]) -> Tensor:
    """Which of all clips' noise levels, one after the other, each of all clips' tokens has: N.

    Args:
        grids: tokens along (time, height, width) of each clip.
        sigmas: of each clip, 1 noise level or one per token frame.
    """
    found, first = [], 0
    for (t, h, w), sigma in zip(grids, sigmas, strict=True):
        frames = torch.arange(t) if len(sigma) > 1 else torch.zeros(t, dtype=torch.long)
        found.append((first + frames).repeat_interleave(h * w))
        first += len(sigma)
    return torch.cat(found)
