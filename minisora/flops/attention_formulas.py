"""FLOPs of every attention operator that torch has, whatever the layout of its tensors.

torch's own table takes the dense tensors of `_efficient_attention_forward` (B M H K) for (B H M K), so it swaps
queries with heads, and lacks a third of the operators. One rule holds for all of them here: the products of
queries with keys and of scores with values are counted whole. Masks, causality, windows and block masks are
not taken off, as a kernel may or may not skip what they hide; grouped keys and values are taken once for every
query head, as the products are. What a backend pads or decomposes is counted as it was asked for.

Units: FLOPs, 2 per multiply-accumulate. Letters: B batch, H query heads, M queries, N keys, K channels,
T tokens of all sequences of a packed batch.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor

from minisora.errors import UserError

HEADS_FIRST, TOKENS_FIRST = "B H M K", "B M H K"

LAYOUTS: dict[str, str] = {
    "aten::_scaled_dot_product_flash_attention": HEADS_FIRST,
    "aten::_scaled_dot_product_flash_attention_backward": HEADS_FIRST,
    "aten::_scaled_dot_product_flash_attention_for_cpu": HEADS_FIRST,
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward": HEADS_FIRST,
    "aten::_scaled_dot_product_efficient_attention": HEADS_FIRST,
    "aten::_scaled_dot_product_efficient_attention_backward": HEADS_FIRST,
    "aten::_scaled_dot_product_cudnn_attention": HEADS_FIRST,
    "aten::_scaled_dot_product_cudnn_attention_backward": HEADS_FIRST,
    "aten::_scaled_dot_product_fused_attention_overrideable": HEADS_FIRST,
    "aten::_scaled_dot_product_fused_attention_overrideable_backward": HEADS_FIRST,
    "aten::_scaled_dot_product_attention_math_for_mps": HEADS_FIRST,
    "aten::_triton_scaled_dot_attention": HEADS_FIRST,
    "aten::_cudnn_attention_forward": HEADS_FIRST,
    "aten::_cudnn_attention_backward": HEADS_FIRST,
    "aten::_flash_attention_forward": TOKENS_FIRST,
    "aten::_flash_attention_forward_no_dropout_inplace": TOKENS_FIRST,
    "aten::_flash_attention_backward": TOKENS_FIRST,
    "aten::_efficient_attention_forward": TOKENS_FIRST,
    "aten::_efficient_attention_backward": TOKENS_FIRST,
    "torch_attn::_varlen_attn": TOKENS_FIRST,
    "torch_attn::_varlen_attn_out": TOKENS_FIRST,
    "torch_attn::_varlen_attn_backward": TOKENS_FIRST,
    "higher_order::flex_attention": HEADS_FIRST,
    "higher_order::flex_attention_backward": HEADS_FIRST,
}
"""Layout of the dense tensors by operator. With offsets of packed sequences it is T H K or 1 T H K instead."""

# The higher-order operators have no schema; their first arguments, in order.
_HIGHER_ORDER = ("query", "key", "value")


@dataclass(frozen=True)
class AttentionSize:
    """Sizes of one call: `pairs` is queries times keys of every sequence and query head."""

    pairs: int
    channels: int
    value_channels: int

    @property
    def forward_flops(self) -> int:
        """Two products: queries with keys, scores with values."""
        return 2 * self.pairs * (self.channels + self.value_channels)

    @property
    def backward_flops(self) -> int:
        """Five products: the scores again, and the gradients of scores, values, queries and keys."""
        return 2 * self.pairs * (3 * self.channels + 2 * self.value_channels)

    @property
    def recompute_flops(self) -> int:
        """The one product of `backward_flops` that rebuilds the scores, which a fused kernel does not keep."""
        return 2 * self.pairs * self.channels


def is_backward(operator: str) -> bool:
    """Whether an operator of `LAYOUTS` gives gradients."""
    return operator.endswith("_backward")


def attention_flops(operator: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> int:
    """FLOPs of a call of an operator of `LAYOUTS`; its arguments as in `attention_size`."""
    size = attention_size(operator, args, kwargs)
    return size.backward_flops if is_backward(operator) else size.forward_flops


def attention_size(
    operator: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> AttentionSize:
    """Sizes of a call of an operator of `LAYOUTS`.

    Args:
        operator: qualified name, such as "aten::_flash_attention_forward".
        args, kwargs: of the call; shapes may stand for tensors, but not for the offsets of packed sequences.

    Raises:
        UserError: the lengths of packed sequences are not known.
    """
    named = arguments(operator, args, kwargs)
    query, key, value = (
        _shape(named[long] if long in named else named[short])
        for long, short in (("query", "q"), ("key", "k"), ("value", "v"))
    )
    offsets = _first(named, "cum_seq_q", "cu_seqlens_q", "cu_seq_q")
    if _packed(operator, query, offsets):
        used = named.get("seqused_k")
        keys = _first(named, "cum_seq_k", "cu_seqlens_k", "cu_seq_k")
        queries_of = _lengths(operator, offsets)
        if used is not None:
            keys_of = _values(operator, used)
        else:
            keys_of = queries_of if keys is None else _lengths(operator, keys)
        pairs = query[-2] * sum(m * n for m, n in zip(queries_of, keys_of, strict=True))
    elif LAYOUTS[operator] == HEADS_FIRST:
        pairs = prod(query[:-1]) * key[-2]
    else:
        batch, queries, heads = query[:3]
        pairs = batch * queries * heads * key[1]
    return AttentionSize(int(pairs), query[-1], value[-1])


def arguments(operator: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A call's arguments by the names and in the order of the operator's first schema, defaults filled in."""
    if operator.startswith("higher_order::"):
        return dict(zip(_HIGHER_ORDER, args, strict=False)) | dict(kwargs or {})
    schema = _schema(operator)
    named = dict(zip((name for name, _ in schema), args, strict=False)) | dict(kwargs or {})
    values = {name: named.pop(name, default) for name, default in schema}
    return {name: value for name, value in values.items() if value is not _REQUIRED} | named


_REQUIRED = object()


@functools.cache
def _schema(operator: str) -> list[tuple[str, Any]]:
    """Names and defaults of an operator's arguments, by its first overload."""
    schemas = getattr(torch._C, "_jit_get_schemas_for_operator")(operator)  # noqa: B009 - torch has no stub
    if not schemas:
        return []
    return [(a.name, a.default_value if a.has_default_value() else _REQUIRED) for a in schemas[0].arguments]


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape) if isinstance(tensor, Tensor) else tuple(tensor)


def _first(named: Mapping[str, Any], *names: str) -> Any:
    return next((named[name] for name in names if named.get(name) is not None), None)


def _packed(operator: str, query: tuple[int, ...], offsets: Any) -> bool:
    """Whether sequences of several lengths lie one behind another, which only the raw kernels take."""
    if offsets is None or "_scaled_dot_product" in operator:
        return False
    # The dense kernels hand an empty tensor of offsets to their backward.
    return len(query) == 3 or ("_efficient_" in operator and 0 not in _shape(offsets))


def _lengths(operator: str, offsets: Any) -> list[int]:
    values = _values(operator, offsets)
    return [b - a for a, b in itertools.pairwise(values)]


def _values(operator: str, tensor: Any) -> list[int]:
    if not isinstance(tensor, Tensor) or isinstance(tensor, FakeTensor) or tensor.device.type == "meta":
        raise UserError(
            f"{operator} takes the lengths of its sequences from a tensor whose values are not known here: "
            "count it on real tensors with minisora.flops.count_torch.count_forward"
        )
    return [int(value) for value in tensor.tolist()]


def operator_name(packet: Any) -> str:
    """Qualified name: "aten::mm", "higher_order::flex_attention", a Triton kernel's own."""
    if isinstance(packet, torch._ops.HigherOrderOperator):
        return f"higher_order::{packet.name()}"
    if isinstance(packet, torch._ops.OpOverload):
        packet = packet.overloadpacket
    qualified = getattr(packet, "_qualified_op_name", None)
    return str(qualified) if qualified else f"triton::{getattr(packet, '__name__', packet)}"


class AttentionWatch:
    """Sees attention as it was asked for, before a backend pads or decomposes it.

    It stands in for `torch.nn.functional.scaled_dot_product_attention` while it is entered. (A
    TorchFunctionMode would be off during `backward`, where checkpointed blocks run again.)
    """

    def __init__(self) -> None:
        # Channels of (query and key, value), while inside a call.
        self._asked: tuple[int, int] | None = None
        # Shapes the kernel saw -> channels asked.
        self._unpadded: dict[tuple[int, ...], tuple[int, int]] = {}
        self._original: Callable[..., Tensor] = F.scaled_dot_product_attention

    def __enter__(self) -> None:
        self._original = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = self._call

    def __exit__(self, *args: Any) -> None:
        F.scaled_dot_product_attention = self._original

    def _call(self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if _fused_on_meta(query, key, value, *args, **kwargs):
            return _fused_attention(query, key, value, *args, **kwargs)
        self._asked = (query.shape[-1], value.shape[-1])
        try:
            return self._original(query, key, value, *args, **kwargs)
        finally:
            self._asked = None

    def unpad(self, operator: str, args: Any) -> Any:
        """Arguments of a fused attention kernel with the channels that padding added taken off again."""
        backward = is_backward(operator)
        if "_scaled_dot_product" not in operator or not all(isinstance(t, Tensor) for t in args[:3]):
            return args
        tensors = list(args[:4] if backward else args[:3])
        key = tuple(tensors[-3].shape) + tuple(tensors[-2].shape)
        if self._asked is not None and not backward:
            self._unpadded[key] = self._asked
        asked = self._unpadded.get(key)
        if asked is None or tensors[-1].device.type != "cuda":
            return args
        channels = [asked[0], asked[0], asked[1]]
        # The gradient has the values' channels.
        if backward:
            channels = [asked[1], *channels]
        cut = [t.new_empty(1).expand(*t.shape[:-1], c) for t, c in zip(tensors, channels, strict=True)]
        return (*cut, *args[len(cut) :])


def _fused_on_meta(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> bool:
    """Whether these meta tensors would go to a fused kernel on a real device (where meta tensors do not)."""
    return (
        query.device.type == "meta"
        and query.ndim == key.ndim == value.ndim == 4
        and query.shape[-1] == key.shape[-1] == value.shape[-1]
        and (attn_mask is None or not attn_mask.requires_grad)
    )


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The CPU's fused kernel on meta tensors: one operator forward, one backward, shapes only."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.to(query.dtype)
    if attn_mask is not None:
        batch, heads, queries = query.shape[:3]
        attn_mask = attn_mask.expand(batch, heads, queries, key.shape[2])
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]
