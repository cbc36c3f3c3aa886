"""The repeated layer of the DiT: adaLN-Zero around self-attention, cross-attention to text, and an MLP.

Letters: B batch, T frames, S tokens per frame, F 1 or T, L tokens of a packed row, M text tokens, D width.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from minisora.models.attention import CrossAttention, SelfAttention
from minisora.models.layers import MLP, modulate, zero_init

Axis = Literal["all", "space", "time"]  # which tokens attend to each other


class DiTBlock(nn.Module):
    """One adaLN-Zero block: self-attention over `axis`, optional cross-attention to text, MLP.

    `axis` names which tokens see each other: "all" of the clip, those of one frame ("space"), or those at one
    place through time ("time").
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        *,
        axis: Axis,
        qk_norm: bool,
        cross: bool,
        own_modulation: bool,
    ):
        super().__init__()
        self.axis = axis
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = SelfAttention(width, heads, qk_norm)
        self.norm2 = nn.LayerNorm(width, eps=1e-6) if cross else None
        self.cross = CrossAttention(width, heads, qk_norm) if cross else None
        self.norm3 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = MLP(width, hidden)
        # Per-block modulation as in DiT, or an offset to the one shared by all blocks (PixArt-alpha's
        # adaLN-single, Chen et al. 2023, arXiv 2310.00426).
        self.modulation: nn.Linear | None = None
        if own_modulation:
            self.modulation = zero_init(nn.Linear(width, 6 * width))
        else:
            self.modulation_offset = nn.Parameter(torch.zeros(6 * width))

    def forward(
        self,
        x: Tensor,
        cond: Tensor,
        rope: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        level: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Map tokens B T S D to B T S D.

        Args:
            x: B T S D.
            cond: silu(conditioning) B F D, or the shared modulation B F 6D where the block has none of its own.
            rope: table of the block's axis.
            text, mask: B M D, and B M or B N M.
            level: of packed rows (B L 1 D): which of cond's F, then of a batch of 1, is each token's, B L.
            visible: of packed rows: which tokens see each other, B 1 L L.
        """
        modulation = self.modulation(cond) if self.modulation is not None else cond + self.modulation_offset
        if level is not None:
            modulation = modulation[0, level]  # B L 6D
        shift1, scale1, gate1, shift3, scale3, gate3 = modulation[:, :, None].chunk(6, dim=-1)  # each B F 1 D

        x = torch.addcmul(
            x, gate1, self._attend(modulate(self.norm1(x), shift1, scale1), rope, visible)
        )  # B T S D
        if self.cross is not None and self.norm2 is not None and text is not None and mask is not None:
            attended = self.cross(self.norm2(x).flatten(1, 2), text, mask)  # B N D
            x = x + attended.unflatten(1, x.shape[1:3])  # B T S D
        return torch.addcmul(x, gate3, self.mlp(modulate(self.norm3(x), shift3, scale3)))  # B T S D

    def _attend(self, x: Tensor, rope: Tensor, visible: Tensor | None) -> Tensor:
        batch, frames, places, _ = x.shape
        if self.axis == "all":
            return self.attention(x.flatten(1, 2), rope, visible).unflatten(1, (frames, places))
        if self.axis == "space":  # one row per frame
            return self.attention(x.flatten(0, 1), rope).unflatten(0, (batch, frames))
        rows = x.transpose(1, 2).flatten(0, 1)  # one row per place: (B S) T D
        return self.attention(rows, rope).unflatten(0, (batch, places)).transpose(1, 2)
