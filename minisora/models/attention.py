"""Attention: the product of queries, keys and values, and the two layers of a DiT block that use it.

Letters: B batch, N query tokens, M key tokens (or text tokens), D width, h heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from minisora.models.layers import zero_init
from minisora.models.positions import rotate

_OPEN_MAX_KEYS = 1024  # longer rows would keep too many scores
# On a CPU with AVX-512 whose torch kernels are held to less (ATEN_CPU_CAPABILITY), the fused kernel packs bfloat16
# for AVX-512 all the same and fails: "pack_vnni2 is only supported when avx512 is supported".
_HELD_BELOW_AVX512 = (
    torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2") and torch.cpu._is_avx512_supported()
)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k' / sqrt(D/h)) v by torch's fused kernel, but for training on short rows in bfloat16 on a CPU.

    There the fused kernel's backward took 42 % of a toy step; the products written out take a third of its
    time at 80 tokens and half at 320 (two cores of a Zen 4, torch 2.14), with scores rounded to bfloat16. (A core
    with AMX tiles, forward and backward: 4 for 28 ms at 80 tokens, 25 for 47 at 320; the fused kernel's forward
    alone takes half to two thirds of the open one's.)

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


def head_norm(width: int, heads: int, qk_norm: bool) -> nn.Module:
    """QK-norm: LayerNorm over the channels of a head, no bias (Dehghani et al. 2023, arXiv 2302.05442)."""
    return nn.LayerNorm(width // heads, eps=1e-6, bias=False) if qk_norm else nn.Identity()


class SelfAttention(nn.Module):
    """Multi-head self-attention with QK-norm and rotary positions."""

    def __init__(self, width: int, heads: int, qk_norm: bool):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = head_norm(width, heads, qk_norm)  # one for both: only the product of their gains matters
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend among the N tokens of each row.

        Args:
            x: B N D.
            rope: 2 N 1 D/h, or 2 B N 1 D/h where rows differ.
            mask: B 1 N N, true where two tokens see each other; all do by default.

        Returns:
            B N D.
        """
        width = x.shape[-1]
        qk, v = self.qkv(x).split((2 * width, width), dim=-1)  # B N 2D, B N D
        qk = rotate(self.norm(qk.unflatten(-1, (2 * self.heads, -1))), rope)  # B N 2h D/h
        q, k = qk.transpose(1, 2).chunk(2, dim=1)  # each B h N D/h
        v = v.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B h N D/h
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
        """Attend from x (B N D) to text (B M D) where mask (B M or B N M) is true; returns B N D."""
        k, v = self.kv(text).chunk(2, dim=-1)  # each B M D
        q = self.norm_q(self.q(x).unflatten(-1, (self.heads, -1))).transpose(1, 2)  # B h N D/h
        k = self.norm_k(k.unflatten(-1, (self.heads, -1))).transpose(1, 2)  # B h M D/h
        v = v.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # B h M D/h
        mask = mask[:, None] if mask.ndim == 3 else mask[:, None, None, :]  # B 1 N M or B 1 1 M
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))  # B N D
