"""VideoDiT: a diffusion transformer over spacetime patches of video latents.

Follows DiT (Peebles & Xie 2023, arXiv 2212.09748): patch embedding, adaLN-Zero blocks, a linear head, all
conditioned on the noise level. What video and text add: 3-axis positions, QK-norm, full or factorised
attention, cross-attention to text tokens, and a noise level that may differ per latent frame (known frames
are frames with sigma = 0).

Letters: B batch, C channels, T H W latent grid, F 1 or T, S tokens per frame, N = T S tokens, M text tokens,
D width.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from minisora.errors import UserError
from minisora.models.dit_block import Axis, DiTBlock
from minisora.models.layers import SigmaEmbedding, modulate, zero_init
from minisora.models.packed import PackedIndex, levels_of_tokens, pack
from minisora.models.patchify import Patch, patchify, token_grid, unpatchify
from minisora.models.positions import grid_sinusoid, rotary_table

PACKED_NEEDS_FULL = "packed rows need dit.attention=full: tokens of one clip would not see each other"


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
        x = self._embed(latents, grid)  # B T S D
        cond = self._condition(sigma, pooled, labels)  # B F D
        text = self._text(text, text_mask)  # B M D
        x = self._transform(x, cond, self._ropes(grid, x.device), text, text_mask)  # B T S (C pt ph pw)
        return unpatchify(x, self.patch, grid)  # B C T H W

    def forward_packed(
        self,
        clips: Sequence[Tensor],
        sigmas: Sequence[Tensor],
        capacity: int,
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        pooled: Tensor | None = None,
    ) -> list[Tensor]:
        """Velocities of clips of any sizes in common rows of tokens (`minisora.models.packed`): as `forward` of each.

        Args:
            clips: noisy latents, C T H W each, of any T H W.
            sigmas: of each clip, 1 or T/patch noise levels.
            capacity: most tokens of a row.
            text, text_mask, pooled: as in `forward`, a row per clip.

        Raises:
            UserError: a clip does not fit a row, or attention is not "full".
        """
        if set(self.axes) != {"all"}:
            raise UserError(PACKED_NEEDS_FULL)
        device = clips[0].device
        grids = [token_grid((clip.shape[1], clip.shape[2], clip.shape[3]), self.patch) for clip in clips]
        index = PackedIndex.build(pack([t * h * w for t, h, w in grids], capacity), device)
        tokens = [
            self._embed(clip[None], grid).flatten(0, 2) for clip, grid in zip(clips, grids, strict=True)
        ]
        ropes = [self._ropes(grid, device)["all"] for grid in grids]  # 2 N 1 D/h each
        rope = torch.stack([index.gather(table) for table in torch.cat(ropes, dim=1)])  # 2 R L 1 D/h

        owner = torch.repeat_interleave(torch.tensor([len(sigma) for sigma in sigmas])).to(device)  # F
        cond = self._condition(torch.cat(list(sigmas))[None], None if pooled is None else pooled[owner], None)
        level = index.gather(levels_of_tokens(grids, sigmas).to(device))  # R L
        text, beside, mask = self._text(text, text_mask), None, None
        if text is not None and text_mask is not None:
            beside, mask = index.own_text(text, text_mask)
        x = index.gather(torch.cat(tokens))[:, :, None]  # R L 1 D
        x = self._transform(x, cond, {"all": rope}, beside, mask, level, index.own_clip())[:, :, 0]
        return [
            unpatchify(clip.unflatten(0, (1, grid[0], -1)), self.patch, grid)[0]
            for clip, grid in zip(index.scatter(x), grids, strict=True)
        ]

    def _embed(self, latents: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Tokens B T S D of latents, with the features of their places."""
        x = self.embed(patchify(latents, self.patch))
        return x + grid_sinusoid(grid, self.config.width, x.device).to(x.dtype)

    def _text(self, text: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if self.embed_text is None:
            return text
        if text is None or mask is None:
            raise UserError("this VideoDiT is text-conditional: pass text, text_mask and pooled")
        return self.embed_text(text)

    def _transform(
        self,
        x: Tensor,
        cond: Tensor,
        ropes: dict[str, Tensor],
        text: Tensor | None,
        mask: Tensor | None,
        *packed: Tensor,
    ) -> Tensor:
        """The blocks and the head: tokens B T S D to B T S (C pt ph pw); `packed` is a block's level and visible."""
        block_cond = self.shared_modulation(cond) if self.shared_modulation is not None else cond
        for block, axis in zip(self.blocks, self.axes, strict=True):
            arguments = (x, block_cond, ropes[axis], text, mask, *packed)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, *arguments)
            else:
                x = block(*arguments)  # B T S D
        modulation = self.modulation_out(cond)  # B F 2D
        if packed:
            modulation = modulation[0, packed[0]]  # B L 2D
        shift, scale = modulation[:, :, None].chunk(2, dim=-1)  # each B F 1 D
        return self.head(modulate(self.norm_out(x), shift, scale))

    def _condition(self, sigma: Tensor, pooled: Tensor | None, labels: Tensor | None) -> Tensor:
        """silu of the summed embeddings of noise level, pooled text and class: B F D."""
        cond = self.embed_sigma(sigma if sigma.ndim == 2 else sigma[:, None])  # B F D
        if self.embed_pooled is not None:
            if pooled is None:
                raise UserError("this VideoDiT is text-conditional: pass text, text_mask and pooled")
            cond = cond + self.embed_pooled(pooled).view(
                len(cond), -1, cond.shape[-1]
            )  # a row, or one a level
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
