"""VideoDiT: a diffusion transformer over spacetime patches of video latents.

Follows DiT (Peebles & Xie 2023, arXiv 2212.09748): patch embedding, adaLN-Zero blocks, a linear head, all
conditioned on the noise level. What video and text add: 3-axis positions, QK-norm, full or factorised
attention, cross-attention to text tokens, and a noise level that may differ per latent frame (known frames
are frames with sigma = 0).

Letters: B batch, C channels, T H W latent grid, F 1 or T, S tokens per frame, N = T S tokens, M text tokens,
D width.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from minisora.errors import UserError
from minisora.models.attention import CrossAttention, SelfAttention
from minisora.models.layers import MLP, SigmaEmbedding, modulate, zero_init
from minisora.models.patchify import Patch, patchify, token_grid, unpatchify
from minisora.models.rope import grid_sinusoid, rotary_table

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
        self, x: Tensor, cond: Tensor, rope: Tensor, text: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Map tokens B T S D to B T S D.

        `cond` is silu(conditioning) B F D, or the shared modulation B F 6D where the block has none of its own.
        """
        modulation = self.modulation(cond) if self.modulation is not None else cond + self.modulation_offset
        shift1, scale1, gate1, shift3, scale3, gate3 = modulation[:, :, None].chunk(6, dim=-1)  # each B F 1 D

        x = torch.addcmul(x, gate1, self._attend(modulate(self.norm1(x), shift1, scale1), rope))  # B T S D
        if self.cross is not None and self.norm2 is not None and text is not None and mask is not None:
            attended = self.cross(self.norm2(x).flatten(1, 2), text, mask)  # B N D
            x = x + attended.unflatten(1, x.shape[1:3])  # B T S D
        return torch.addcmul(x, gate3, self.mlp(modulate(self.norm3(x), shift3, scale3)))  # B T S D

    def _attend(self, x: Tensor, rope: Tensor) -> Tensor:
        batch, frames, places, _ = x.shape
        if self.axis == "all":
            return self.attention(x.flatten(1, 2), rope).unflatten(1, (frames, places))
        if self.axis == "space":  # one row per frame
            return self.attention(x.flatten(0, 1), rope).unflatten(0, (batch, frames))
        rows = x.transpose(1, 2).flatten(0, 1)  # one row per place: (B S) T D
        return self.attention(rows, rope).unflatten(0, (batch, places)).transpose(1, 2)


class VideoDiT(ModelMixin, ConfigMixin):
    """Predicts the velocity noise - x_0 of noisy video latents (`minisora.flow.path` states the convention).

    Any number of frames and any size that the patch divides; one image is a one-frame video. A fresh model
    outputs exactly zero.

    Args:
        in_channels: channels of the latents.
        patch: (time, height, width) of a spacetime patch, in latent cells.
        width, depth, heads: of the transformer; width / heads must be even and at least 6.
        mlp_ratio: hidden width of the MLP over `width`.
        attention: "full" over all tokens, or "factorised": even blocks attend within a frame, odd ones
            through time (as Latte, Ma et al. 2024, arXiv 2401.03048).
        modulation: "per_block" (adaLN-Zero) or "shared" (adaLN-single).
        qk_norm: normalise queries and keys.
        text_width: channels of the text tokens and of the pooled text; None for no text.
        num_classes: class-conditional as in the DiT paper (one more class is the null label); None for none.
        out_channels: defaults to `in_channels`; the paper's models have twice as many (they learn a variance).
        rope_theta: longest rotary wavelength over 2 pi, in tokens.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012 - diffusers' own spelling

    @register_to_config
    def __init__(
        self,
        in_channels: int = 8,
        patch: tuple[int, int, int] = (1, 2, 2),
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        attention: Literal["full", "factorised"] = "full",
        modulation: Literal["per_block", "shared"] = "per_block",
        qk_norm: bool = True,
        text_width: int | None = None,
        num_classes: int | None = None,
        out_channels: int | None = None,
        rope_theta: float = 100.0,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"width = {width} is not a multiple of heads = {heads}")
        if (width // heads) % 2 or width // heads < 6:
            raise UserError(
                f"width / heads = {width // heads} must be even and at least 6 for 3-axis rotation"
            )
        self.patch: Patch = (patch[0], patch[1], patch[2])
        self.gradient_checkpointing = False
        cells = patch[0] * patch[1] * patch[2]

        self.embed = nn.Linear(in_channels * cells, width)
        self.embed_sigma = SigmaEmbedding(width)
        self.embed_class = nn.Embedding(num_classes + 1, width) if num_classes is not None else None
        self.embed_text = nn.Linear(text_width, width) if text_width is not None else None
        self.embed_pooled = nn.Linear(text_width, width) if text_width is not None else None
        self.shared_modulation = zero_init(nn.Linear(width, 6 * width)) if modulation == "shared" else None
        pattern: tuple[Axis, ...] = ("all",) if attention == "full" else ("space", "time")
        self.axes: list[Axis] = [pattern[i % len(pattern)] for i in range(depth)]
        self.blocks = nn.ModuleList(
            DiTBlock(
                width,
                heads,
                int(width * mlp_ratio),
                axis=axis,
                qk_norm=qk_norm,
                cross=text_width is not None,
                own_modulation=modulation == "per_block",
            )
            for axis in self.axes
        )
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = zero_init(nn.Linear(width, 2 * width))
        self.head = zero_init(nn.Linear(width, (out_channels or in_channels) * cells))
        self._init_weights()

    def _init_weights(self) -> None:
        """DiT's initialisation: Xavier for linear layers, normal(0.02) for the conditioning embeddings."""
        for block in self.blocks:
            assert isinstance(block, DiTBlock)
            linears = [block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down]
            if block.cross is not None:
                linears += [block.cross.q, block.cross.kv]
            for linear in linears:
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        for layer in (self.embed_sigma.up, self.embed_sigma.down, self.embed_class):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)

    def forward(
        self,
        latents: Tensor,
        sigma: Tensor,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        pooled: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Velocity of noisy latents.

        Args:
            latents: B C T H W, normalised.
            sigma: noise level in [0, 1], B for one per clip or B T/patch for one per token frame.
            text: text tokens, B M text_width.
            text_mask: B M, true where a token is real; at least one per row.
            pooled: pooled text, B text_width.
            labels: class labels, B (class-conditional models only).

        Returns:
            Velocity, B C T H W (or `out_channels`).

        Raises:
            UserError: the latents do not divide into patches, or conditioning is missing.
        """
        grid = token_grid((latents.shape[2], latents.shape[3], latents.shape[4]), self.patch)
        x = self.embed(patchify(latents, self.patch))  # B T S D
        x = x + grid_sinusoid(grid, self.config.width, x.device).to(x.dtype)
        cond = self._condition(sigma, pooled, labels)  # B F D
        if self.embed_text is not None:
            if text is None or text_mask is None:
                raise UserError("this VideoDiT is text-conditional: pass text, text_mask and pooled")
            text = self.embed_text(text)  # B M D
        block_cond = self.shared_modulation(cond) if self.shared_modulation is not None else cond
        ropes = self._ropes(grid, x.device)
        for block, axis in zip(self.blocks, self.axes, strict=True):
            arguments = (x, block_cond, ropes[axis], text, text_mask)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, *arguments)
            else:
                x = block(*arguments)  # B T S D
        shift, scale = self.modulation_out(cond)[:, :, None].chunk(2, dim=-1)  # each B F 1 D
        x = self.head(modulate(self.norm_out(x), shift, scale))  # B T S (C pt ph pw)
        return unpatchify(x, self.patch, grid)  # B C T H W

    def _condition(self, sigma: Tensor, pooled: Tensor | None, labels: Tensor | None) -> Tensor:
        """silu of the summed embeddings of noise level, pooled text and class: B F D."""
        cond = self.embed_sigma(sigma if sigma.ndim == 2 else sigma[:, None])  # B F D
        if self.embed_pooled is not None:
            if pooled is None:
                raise UserError("this VideoDiT is text-conditional: pass text, text_mask and pooled")
            cond = cond + self.embed_pooled(pooled)[:, None]
        if self.embed_class is not None:
            if labels is None:
                raise UserError("this VideoDiT is class-conditional: pass labels")
            cond = cond + self.embed_class(labels)[:, None]
        return F.silu(cond)

    def _ropes(self, grid: tuple[int, int, int], device: torch.device) -> dict[str, Tensor]:
        """Rotary tables per attention axis; a frame's tokens share t = 0 and a place's share h = w = 0."""
        head_width, theta = self.config.width // self.config.heads, self.config.rope_theta
        grids: dict[str, Any] = {"all": grid, "space": (1, *grid[1:]), "time": (grid[0], 1, 1)}
        return {
            axis: rotary_table(grids[axis], head_width, theta, device) for axis in dict.fromkeys(self.axes)
        }
