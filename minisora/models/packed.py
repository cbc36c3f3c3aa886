"""Packed native sizes: clips of different length and shape in common rows of tokens, none padded to another's size.

Patch n' Pack (NaViT, Dehghani et al. 2023, arXiv 2307.06304): a row holds the tokens of several clips one after
the other, and masks keep each clip to itself and to its own text. The DiT knows nothing of it: its steps are taken
here over the rows, one token a frame, so that each token has the noise level of its clip's frame.

Letters: R rows, L tokens of a row, K clips of a row at most, M text tokens, D width, B clips, F noise levels of all
clips together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minisora.errors import UserError
from minisora.models.clip_grid import token_grid
from minisora.models.dit import VideoDiT
from minisora.models.patchify import unpatchify

PACKED_NEEDS_FULL = "packed rows need dit.attention=full: tokens of one clip would not see each other"
# The clip of a token that pads a row.
_EMPTY = -1


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
    token: Tensor  # R L, its index among the tokens of all clips one after the other; 0 for padding
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
            stop = 0
            for number, which in enumerate(clips):
                here = slice(stop, stop + rows.lengths[which])
                clip[row, here] = which
                token[row, here] = torch.arange(starts[which], starts[which + 1])
                text_clip[row, number] = which
                stop = here.stop
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
        sigmas: noise levels of each clip, 1 or one per token frame.
    """
    levels, first = [], 0
    for (t, h, w), sigma in zip(grids, sigmas, strict=True):
        frames = torch.arange(t) if len(sigma) > 1 else torch.zeros(t, dtype=torch.long)
        levels.append((first + frames).repeat_interleave(h * w))
        first += len(sigma)
    return torch.cat(levels)


def packed_velocities(
    dit: VideoDiT,
    clips: Sequence[Tensor],
    sigmas: Sequence[Tensor],
    capacity: int,
    text: Tensor | None = None,
    text_mask: Tensor | None = None,
    pooled: Tensor | None = None,
) -> list[Tensor]:
    """Velocities of clips of any sizes in common rows of tokens, as `dit` gives them of each clip alone.

    Args:
        dit: a model with full attention.
        clips: noisy latents, C T H W each, of any T H W.
        sigmas: noise levels of each clip, 1 or T/patch.
        capacity: most tokens of a row.
        text, text_mask, pooled: as of `VideoDiT.forward`, a row per clip.

    Raises:
        UserError: a clip does not fit a row, or attention is not "full".
    """
    if set(dit.axes) != {"all"}:
        raise UserError(PACKED_NEEDS_FULL)
    device = clips[0].device
    grids = [token_grid((clip.shape[1], clip.shape[2], clip.shape[3]), dit.patch) for clip in clips]
    index = PackedIndex.build(pack([t * h * w for t, h, w in grids], capacity), device)
    tokens = [
        dit.embed_latents(clip[None], grid).flatten(0, 2) for clip, grid in zip(clips, grids, strict=True)
    ]  # N_i D each
    x = index.gather(torch.cat(tokens))[:, :, None]  # R L 1 D
    ropes = [dit.rope_tables(grid, device)["all"] for grid in grids]  # 2 N_i 1 D/h each
    rope = torch.stack([index.gather(table) for table in torch.cat(ropes, dim=1)])  # 2 R L 1 D/h

    owner = torch.repeat_interleave(torch.tensor([len(sigma) for sigma in sigmas])).to(device)  # F
    cond = dit.condition(torch.cat(list(sigmas))[None], None if pooled is None else pooled[owner])  # 1 F D
    block_cond = dit.block_condition(cond)  # 1 F D, or 1 F 6D
    level = index.gather(levels_of_tokens(grids, sigmas).to(device))  # R L
    text, beside, readers = dit.project_text(text, text_mask), None, None
    if text is not None and text_mask is not None:
        beside, readers = index.own_text(text, text_mask)  # R (K M) D, R L (K M)
    mask = index.own_clip()  # R 1 L L
    for block in dit.blocks:
        x = dit.run_block(block, x, block_cond, rope, beside, readers, level, mask)  # R L 1 D
    rows = dit.read_out(x, dit.modulation_out(cond)[0, level])[:, :, 0]  # R L (C pt ph pw)
    return [
        unpatchify(clip.unflatten(0, (1, grid[0], -1)), dit.patch, grid)[0]
        for clip, grid in zip(index.scatter(rows), grids, strict=True)
    ]
