"""FLOP formulas that `torch.utils.flop_counter` lacks, and the operators that may count as nothing.

torch's counter adds 0 for any operator it does not know. Attention on a CPU is one of them (pytorch issue
195460), the fused path of `nn.MultiheadAttention` another, so a count can be short without a word. Here an
operator has a formula, or is listed as free, or is refused.

Units: FLOPs, 2 per multiply-accumulate. Letters: B batch, h heads, S queries, M keys, d channels.
"""

import re
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import (
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

aten = torch.ops.aten
Shape = tuple[int, ...]


def _attention(q: Shape, k: Shape, v: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """softmax(q k^T) v: two batched products."""
    return sdpa_flop_count(q, k, v)


def _attention_backward(
    grad: Shape, q: Shape, k: Shape, v: Shape, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """Five batched products: the scores again, and the gradients of scores, values, queries and keys."""
    return sdpa_backward_flop_count(grad, q, k, v)


def _convolution_backward(
    grad: Shape,
    x: Shape,
    weight: Shape,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    output_mask: list[bool],
    out_shape: Any = None,
) -> int:
    """The gradients of input and of weight each cost what the forward pass costs.

    torch's own formula multiplies the weight's share by `groups`, which is wrong for grouped convolutions.
    """
    places = x if transposed else grad
    forward = 2 * x[0] * prod(places[2:]) * prod(weight)
    return forward * (bool(output_mask[0]) + bool(output_mask[1]))


def _matrix_vector(matrix: Shape, vector: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * prod(matrix)


def _add_matrix_vector(
    start: Shape, matrix: Shape, vector: Shape, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return 2 * prod(matrix)


def _add_batch(start: Shape, a: Shape, b: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * prod(a) * b[-1]


def _add_matrix(start: Shape, a: Shape, b: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return 2 * prod(a) * b[-1]


def native_attention_macs(query: Shape, key: Shape, width: int) -> int:
    """MACs of `aten::_native_multi_head_attention`: four projections, scores, weighted sum.

    Args:
        query, key: B S E and B M E.
        width: E.
    """
    batch, s, m = query[0], query[1], key[1]
    return batch * (2 * s * width**2 + 2 * m * width**2 + 2 * s * m * width)


def _native_attention(
    q: Shape, k: Shape, v: Shape, width: int, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    return 2 * native_attention_macs(q, k, width)


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._scaled_dot_product_fused_attention_overrideable: _attention,
    aten._scaled_dot_product_fused_attention_overrideable_backward: _attention_backward,
    aten._native_multi_head_attention: _native_attention,
    aten.convolution_backward: _convolution_backward,
    aten.mv: _matrix_vector,
    aten.dot: _matrix_vector,
    aten.vdot: _matrix_vector,
    aten.addmv: _add_matrix_vector,
    aten.addbmm: _add_batch,
    aten._addmm_activation: _add_matrix,
}

FUSED_BACKWARD = frozenset(
    {
        aten._scaled_dot_product_flash_attention_for_cpu_backward,
        aten._scaled_dot_product_fused_attention_overrideable_backward,
        aten._scaled_dot_product_flash_attention_backward,
        aten._scaled_dot_product_efficient_attention_backward,
        aten._scaled_dot_product_cudnn_attention_backward,
    }
)
"""Attention kernels that compute the scores a second time instead of keeping them: (grad, q, k, v, ...)."""

# What makes, moves, sorts or normalises data: no multiply-accumulates between two tensors. Views, and what
# torch tags as pointwise or as a reduction, are free without being named.
_FREE = re.compile(
    "|".join(
        (
            "_?(native_|fused_)?(layer|group|batch|rms)_norm(_backward)?|_weight_norm_interface(_backward)?",
            "_?(log_|safe_)?softmax(_backward_data)?|(native_)?dropout(_backward)?",
            "(new_|_?efficient)?(empty|full|zeros?|zerotensor|ones|scalar_tensor)(_like|_permuted|_strided)?",
            "(rand|randn|randint|normal|bernoulli|uniform|random|randperm|multinomial)(_like|_functional)?_?",
            "(ar|lin|log)(ange|space)|eye|(tri[lu])(_indices)?|(masked_)?fill_?|zero_|scalar_tensor|lift(_fresh)?(_copy)?",
            "_?(to_|reshape_|unsafe_|narrow_|expand_|view_)*(copy|view|index|alias)_?|_reshape_alias|_copy_from",
            "clone|contiguous|detach_?|(re|_re)?size_|resize_output_|set_|is_same_size|equal|record_stream|item",
            "_local_scalar_dense|_?pin_memory|is_nonzero|_assert_(async|scalar|tensor_metadata)|_has_compatible.*",
            "cat|_chunk_cat|stack|split(_with_sizes)?(_copy)?|repeat(_interleave)?|roll|flip|meshgrid|isin",
            "index_(select|put|copy|add|fill)_?|_index_put_impl_|gather|(masked_)?scatter(_add|_reduce)?_?",
            "(select|slice|diagonal|as_strided)_(backward|scatter)|masked_select|nonzero(_static)?|unfold_backward",
            "(arg)?sort|topk|searchsorted|bucketize|histc|_?unique.*|cum(sum|prod|max|min)|_cummax_helper",
            "embedding(_dense_backward|_renorm_)?|im2col|col2im|complex|polar|(constant_|_)?pad(_nd)?",
            "(reflection|replication)_pad[123]d(_backward)?|(channel|pixel)_(un)?shuffle",
            "_?upsample_(nearest|linear|bilinear|trilinear|bicubic)(_exact)?[123]d(_aa)?(_backward)?",
            "_?(adaptive_)?(avg|max)_pool[123]d(_with_indices)?(_backward)?",
            "(mse|smooth_l1|huber|nll|binary_cross_entropy)_loss(_forward|_backward)?|prelu_kernel(_backward)?",
            "_foreach_.*|_fused_(adam|adamw|sgd|adagrad)_|_amp_.*",
        )
    )
)
_FREE_NAMESPACES = frozenset({"prim", "prims", "profiler", "c10d", "_c10d_functional", "fsdp"})
_FREE_TAGS = frozenset({torch.Tag.pointwise, torch.Tag.reduction})


def is_free(packet: Any) -> bool:
    """Whether a dispatched operator multiplies and accumulates nothing, so that 0 is its true count."""
    namespace, _, name = str(packet._qualified_op_name).partition("::")
    if namespace in _FREE_NAMESPACES:
        return True
    if namespace != "aten":
        return False
    if _FREE.fullmatch(name):
        return True
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    return any(overload.is_view or _FREE_TAGS & set(overload.tags) for overload in overloads)
