"""VideoDiT: a diffusion transformer over spacetime patches of video latents.

Follows DiT (Peebles & Xie 2023, arXiv 2212.09748): patch embedding, adaLN-Zero blocks, a linear head, all
conditioned on the noise level. What video and text add: 3-axis positions, QK-norm, full or factorised
attention, cross-attention to text tokens, and a noise level that may differ per latent frame (known frames
are frames with sigma = 0). With a `causal_window` no frame sees a later one, so that a world can be played frame by
frame (`minisora.models.frame_memory`).

The file reads upwards: small layers, attention, the block, the model.

Letters: B batch, C channels, T H W latent grid, F 1 or T, S tokens per frame, N = T S tokens, M text tokens,
D width, h heads.
"""

from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from minisora.errors import UserError
from minisora.models.clip_grid import Patch, token_grid
from minisora.models.patchify import patchify, unpatchify
from minisora.models.positions import grid_sinusoid, rotary_table, rotate, sinusoid

Axis = Literal["all", "space", "time"]  # which tokens attend to each other
Layer = TypeVar("Layer", bound=nn.Module)

_NEEDS_TEXT = "this VideoDiT is text-conditional: pass text, text_mask and pooled"
# Longer rows would keep too many scores.
_OPEN_MAX_KEYS = 1024
# On a CPU with AVX-512 whose torch kernels are held to less (ATEN_CPU_CAPABILITY), the fused kernel packs bfloat16
# for AVX-512 all the same and fails: "pack_vnni2 is only supported when avx512 is supported".
_HELD_BELOW_AVX512 = (
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") and torch.cpu._is_avx512_supported()
)


def zero_init(layer: Layer) -> Layer:
    """Zero every parameter of `layer`, so the residual branch it closes starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN: x (1 + scale) + shift (Peebles & Xie 2023, arXiv 2212.09748, section 3.2).

    Args:
        x: tokens, B T S D.
        shift, scale: B F 1 D with F = 1 (one noise level per clip) or F = T (one per latent frame).
    """
    return torch.addcmul(shift, x, 1 + scale)


def drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout in training; no operator at all where nothing is dropped."""
    return F.dropout(x, share) if training and share else x


class MLP(nn.Module):
    """Linear, GELU, linear. (DiT takes GELU's tanh form, within 5e-4 of it and slower on a CPU.)"""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, width)
        # See `VideoDiT.set_dropout`.
        self.dropout = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map ... D to ... D."""
        return self.down(drop(self.act(self.up(x)), self.dropout, self.training))


class SigmaEmbedding(nn.Module):
    """Noise level to conditioning vector: sinusoid of 1000 sigma, then a two-layer MLP (as DiT's timestep)."""

    def __init__(self, width: int, num_frequencies: int = 256):
        super().__init__()
        self.num_frequencies = num_frequencies
        self.up = nn.Linear(num_frequencies, width)
        self.act = nn.SiLU()
        self.down = nn.Linear(width, width)

    def forward(self, sigma: Tensor) -> Tensor:
        """Map sigma (B F, in [0, 1]) to B F D."""
        features = sinusoid(1000 * sigma, self.num_frequencies).to(self.up.weight.dtype)  # B F 256
        return self.down(self.act(self.up(features)))  # B F D


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(D/h)) v by torch's fused kernel, but for training on short rows in bfloat16 on a CPU.

    There the fused kernel's backward is slower than the products written out, whose scores are rounded to bfloat16.

    Args:
        q: B h N D/h.
        k, v: B h M D/h.
        mask: true where a query may look, broadcastable to B h N M; at least one per query.

    Returns:
        B h N D/h.
    """
    learns = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if learns and q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= _OPEN_MAX_KEYS:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # B h N M
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v
    if _HELD_BELOW_AVX512 and q.device.type == "cpu" and q.dtype == torch.bfloat16:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def causal_mask(frames: int, window: int, device: torch.device, streams: int = 1) -> Tensor:
    """Which frames see which, T T bool: each itself and those before it, `window` in all.

    In two streams the same frames stand a second time behind the first (2T 2T): those see themselves, and of the frames
    before the first ones; nobody sees them.
    """
    at = torch.arange(frames, device=device)
    ago = at[:, None] - at  # T T
    first = (ago >= 0) & (ago < window)
    if streams == 1:
        return first
    past, own = first & (ago > 0), ago == 0
    return torch.cat([torch.cat([first, torch.zeros_like(own)], dim=1), torch.cat([past, own], dim=1)])


class PastKeys(Protocol):
    """Keys and values that one attention has computed before, of tokens that are not in its input any more."""

    def join(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The ones before and these, each B h N D/h, in the order of the tokens."""
        ...


def head_norm(width: int, heads: int, qk_norm: bool) -> nn.Module:
    """QK-norm: LayerNorm over the channels of a head, no bias (Dehghani et al. 2023, arXiv 2302.05442)."""
    return nn.LayerNorm(width // heads, eps=1e-6, bias=False) if qk_norm else nn.Identity()


class SelfAttention(nn.Module):
    """Multi-head self-attention with QK-norm and rotary positions."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        # One for queries and keys: only the product of their gains matters.
        self.norm = head_norm(width, heads, qk_norm)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, rope: Tensor, mask: Tensor | None = None, past: PastKeys | None = None
    ) -> Tensor:
        """Attend among the N tokens of each row.

        Args:
            x: B N D.
            rope: 2 N 1 D/h, or 2 B N 1 D/h where rows differ.
            mask: true where a token sees another, broadcastable to B 1 N N; all do by default.
            past: of tokens before these, which they see too.

        Returns:
            B N D.
        """
        width = x.shape[-1]
        qk, v = self.qkv(x).split((2 * width, width), dim=-1)  # B N 2D, B N D
        qk = rotate(self.norm(qk.unflatten(-1, (2 * self.heads, -1))), rope)  # B N 2h D/h
        q, k = qk.transpose(1, 2).chunk(2, dim=1)  # each B h N D/h
        v = v.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B h N D/h
        if past is not None:
            k, v = past.join(k, v)  # each B h M D/h
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))  # B N D


class CrossAttention(nn.Module):
    """Attention from video tokens to text tokens; its output starts at zero."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.norm_q = head_norm(width, heads, qk_norm)
        self.norm_k = head_norm(width, heads, qk_norm)
        self.out = zero_init(nn.Linear(width, width))

    def forward(self, x: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Attend from x (B N D) to text (B M D) where the mask (B M or B N M) is true; returns B N D."""
        k, v = self.kv(text).chunk(2, dim=-1)  # each B M D
        q = self.norm_q(self.q(x).unflatten(-1, (self.heads, -1))).transpose(1, 2)  # B h N D/h
        k = self.norm_k(k.unflatten(-1, (self.heads, -1))).transpose(1, 2)  # B h M D/h
        v = v.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B h M D/h
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None, :]  # B 1 N M or B 1 1 M
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))  # B N D


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
        # See `VideoDiT.set_dropout`.
        self.dropout = 0.0
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
        text_mask: Tensor | None = None,
        level: Tensor | None = None,
        mask: Tensor | None = None,
        past: PastKeys | None = None,
    ) -> Tensor:
        """Map tokens B T S D to B T S D.

        Args:
            x: B T S D.
            cond: silu(conditioning) B F D, or the shared modulation B F 6D where the block has none of its own.
            rope: table of the block's axis.
            text, text_mask: text tokens B M D, and who may look at them, B M or B N M.
            level: B T, the row of cond (1 F D for the whole batch) that modulates each frame; the frame's own by
                default.
            mask: true where a token sees another, B 1 N N (axis "all") or T T (axis "time"); all do by default.
            past: keys and values of frames before these (axis "time").
        """
        modulation = self.modulation(cond) if self.modulation is not None else cond + self.modulation_offset
        if level is not None:
            modulation = modulation[0, level]  # B T 6D
        shift1, scale1, gate1, shift3, scale3, gate3 = modulation[:, :, None].chunk(6, dim=-1)  # each B F 1 D

        attended = self._attend(modulate(self.norm1(x), shift1, scale1), rope, mask, past)  # B T S D
        x = torch.addcmul(x, gate1, self._drop(attended))  # B T S D
        if self.cross is not None and self.norm2 is not None and text is not None and text_mask is not None:
            attended = self.cross(self.norm2(x).flatten(1, 2), text, text_mask)  # B N D
            x = x + self._drop(attended).unflatten(1, x.shape[1:3])  # B T S D
        mapped = self.mlp(modulate(self.norm3(x), shift3, scale3))  # B T S D
        return torch.addcmul(x, gate3, self._drop(mapped))  # B T S D

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout, self.training)

    def _attend(self, x: Tensor, rope: Tensor, mask: Tensor | None, past: PastKeys | None) -> Tensor:
        batch, frames, places, _ = x.shape
        if self.axis == "all":
            return self.attention(x.flatten(1, 2), rope, mask).unflatten(1, (frames, places))  # B T S D
        if self.axis == "space":  # one row per frame
            return self.attention(x.flatten(0, 1), rope).unflatten(0, (batch, frames))  # B T S D
        rows = x.transpose(1, 2).flatten(0, 1)  # (B S) T D, one row per place
        return self.attention(rows, rope, mask, past).unflatten(0, (batch, places)).transpose(1, 2)  # B T S D


class VideoDiT(ModelMixin, ConfigMixin):
    """Predicts the velocity noise - x_0 of noisy video latents (`minisora.flow.path` states the convention).

    Any number of frames and any size that the patch divides; one image is a one-frame video. A fresh model
    outputs exactly zero.

    Args:
        in_channels: channels of the latents.
        patch: (time, height, width) of a spacetime patch, in latent cells.
        width, depth, heads: channels, blocks and attention heads; width / heads must be even and at least 6.
        mlp_ratio: hidden width of the MLP over `width`.
        attention: "full" over all tokens, or "factorised": even blocks attend within a frame, odd ones
            through time (as Latte, Ma et al. 2024, arXiv 2401.03048).
        modulation: "per_block" (adaLN-Zero) or "shared" (adaLN-single).
        qk_norm: normalise queries and keys.
        text_width: channels of the text tokens and of the pooled text; None for no text.
        num_classes: class-conditional as in the DiT paper (one more class is the null label); None for none.
        out_channels: defaults to `in_channels`; the paper's models have twice as many (they learn a variance).
        rope_theta: longest rotary wavelength over 2 pi, in tokens.
        causal_window: a frame sees itself and those before it, so many in all, and how long ago they were, not when;
            needs "factorised" attention. None: all frames see each other.
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
        causal_window: int | None = None,
    ):
        super().__init__()
        if causal_window is not None and attention != "factorised":
            raise UserError(
                f"causal_window = {causal_window} needs attention = factorised, not {attention}: only there is time an "
                "axis of its own"
            )
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
        streams: int = 1,
    ) -> Tensor:
        """Velocity of noisy latents.

        Args:
            latents: B C T H W, normalised.
            sigma: noise level in [0, 1], B for one per clip or B T/patch for one per token frame.
            text: text tokens, B M text_width.
            text_mask: B M, true where a token is real; at least one per row.
            pooled: pooled text, B text_width.
            labels: class labels, B or one per token frame, B T (class-conditional models only).
            streams: 2 where the frames stand in the latents twice, one half behind the other, as `causal_mask` has it
                (models with a `causal_window` only).

        Returns:
            Velocity, B C T H W (or `out_channels`).

        Raises:
            UserError: the latents do not divide into patches, or conditioning is missing.
        """
        grid = token_grid((latents.shape[2], latents.shape[3], latents.shape[4]), self.patch)
        x = self.embed_latents(latents, grid)  # B T S D
        cond = self.condition(sigma, pooled, labels)  # B F D
        block_cond = self.block_condition(cond)  # B F D, or B F 6D
        text = self.project_text(text, text_mask)  # B M D
        frames, window = grid[0] // streams, self.config.causal_window
        ropes = self.rope_tables((frames, *grid[1:]), x.device)
        if streams > 1 and "time" in ropes:
            ropes["time"] = ropes["time"].repeat(1, streams, 1, 1)  # 2 T 1 D/h
        mask = None if window is None else causal_mask(frames, window, x.device, streams)  # T T
        for block, axis in zip(self.blocks, self.axes, strict=True):
            x = self.run_block(block, x, block_cond, ropes[axis], text, text_mask, None, mask)  # B T S D
        x = self.read_out(x, self.modulation_out(cond))  # B T S (C pt ph pw)
        return unpatchify(x, self.patch, grid)  # B C T H W

    def set_dropout(self, share: float) -> None:
        """Drop so much in training: of what each branch adds to the tokens, and of the hidden values of each MLP.

        Where timm's attention and MLP drop, of which the DiT paper's blocks are made (there with 0). A setting of the
        training, not of the model: it is not saved with it.
        """
        for block in self.blocks:
            assert isinstance(block, DiTBlock)
            block.dropout = block.mlp.dropout = share

    # The steps of `forward`; `minisora.models.packed` takes the same ones over rows of many clips.

    def embed_latents(self, latents: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Tokens B T S D of latents B C T H W, with the features of their positions."""
        x = self.embed(patchify(latents, self.patch))  # B T S D
        if self.config.causal_window is not None:
            # What is played has no length: where a frame stands in it is not told.
            grid = (1, *grid[1:])
        return x + grid_sinusoid(grid, self.config.width, x.device).to(x.dtype)

    def condition(self, sigma: Tensor, pooled: Tensor | None, labels: Tensor | None = None) -> Tensor:
        """silu of the embeddings of noise level (B or B F), pooled text (a row per clip or level) and class: B F D."""
        cond = self.embed_sigma(sigma if sigma.ndim == 2 else sigma[:, None])  # B F D
        if self.embed_pooled is not None:
            if pooled is None:
                raise UserError(_NEEDS_TEXT)
            cond = cond + self.embed_pooled(pooled).view(len(cond), -1, cond.shape[-1])  # B F D
        if self.embed_class is not None:
            if labels is None:
                raise UserError("this VideoDiT is class-conditional: pass labels")
            cond = cond + self.embed_class(labels).view(len(cond), -1, cond.shape[-1])  # B F D
        return F.silu(cond)

    def block_condition(self, cond: Tensor) -> Tensor:
        """What the blocks get: cond B F D itself, or the modulation B F 6D that they share."""
        return cond if self.shared_modulation is None else self.shared_modulation(cond)

    def project_text(self, text: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Text tokens B M text_width in the model's width, B M D."""
        if self.embed_text is None:
            return text
        if text is None or mask is None:
            raise UserError(_NEEDS_TEXT)
        return self.embed_text(text)

    def rope_tables(
        self, grid: tuple[int, int, int], device: torch.device, first: int = 0
    ) -> dict[Axis, Tensor]:
        """Rotary tables, 2 N 1 D/h, per attention axis; a frame's tokens share t = 0, a place's share h = w = 0.

        Args:
            grid: tokens along (time, height, width).
            device: where to build them.
            first: number of the first frame, for the axis "time".
        """
        head_width, theta = self.config.width // self.config.heads, self.config.rope_theta
        grids: dict[Axis, Any] = {"all": grid, "space": (1, *grid[1:]), "time": (grid[0], 1, 1)}
        return {
            axis: rotary_table(grids[axis], head_width, theta, device, first if axis == "time" else 0)
            for axis in dict.fromkeys(self.axes)
        }

    def run_block(self, block: nn.Module, x: Tensor, *arguments: Any) -> Tensor:
        """One block over tokens B T S D, under activation checkpointing where it is on; arguments as of `DiTBlock`."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, x, *arguments)  # B T S D
        return block(x, *arguments)  # B T S D

    def read_out(self, x: Tensor, modulation: Tensor) -> Tensor:
        """The head: tokens B T S D under their modulation (B F 2D) to B T S (C pt ph pw)."""
        shift, scale = modulation[:, :, None].chunk(2, dim=-1)  # each B F 1 D
        return self.head(modulate(self.norm_out(x), shift, scale))
