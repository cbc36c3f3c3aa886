"""FLOP formulas that `torch.utils.flop_counter` lacks, and the operators that may count as nothing.

torch's counter adds 0 for any operator it does not know. Attention on a CPU is one of them (pytorch issue
195460), the fused path of `nn.MultiheadAttention` another, so a count can be short without a word. Here an
operator has a formula, or is listed as free, or is refused. Attention has a file of its own,
`attention_formulas`.

Units: FLOPs, 2 per multiply-accumulate. A formula takes an operator's arguments with shapes in place of tensors.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch

Shape = tuple[int, ...]
Formulas = Mapping[str, Callable[..., int]]
"""A user's own: operator ("library::name") -> MACs from its arguments in order, shapes in place of tensors."""


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


def _native_encoder_layer(
    x: Shape, width: int, heads: int, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """One `nn.TransformerEncoderLayer`: self-attention, and two linear layers on every token."""
    given = [arg for arg in args if isinstance(arg, tuple)]
    # qkv, projection, norms 1 and 2, then the MLP: its two weights are the last matrices
    mlp = [shape for shape in given if len(shape) == 2][2:4]
    return 2 * (native_attention_macs(x, x, width) + prod(x[:-1]) * sum(prod(shape) for shape in mlp))


def _grouped_matrices(a: Shape, b: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Groups of products: a row, a column or a term of the sum belongs to one group, so groups add nothing."""
    groups = a[0] if len(a) == len(b) == 3 else 1
    return 2 * groups * a[-2] * a[-1] * b[-1]


def bilinear_macs(rows: int, weight: Shape) -> int:
    """MACs of x1 A x2 with A of (out, in1, in2): `x1 A` for every row, then its product with x2."""
    out, first, second = weight
    return rows * out * (first + 1) * second


def _trilinear(
    a: Shape,
    b: Shape,
    c: Shape,
    expand_a: list[int],
    expand_b: list[int],
    expand_c: list[int],
    sum_over: list[int],
    *args: Any,
    out_shape: Any = None,
    **kwargs: Any,
) -> int:
    """What `F.bilinear` and its gradients become: a product of three, summed over some of their axes.

    The first two are contracted over the axes that the third has not, then what is left with the third.
    """
    first, second, third = (
        _expanded(shape, expand) for shape, expand in ((a, expand_a), (b, expand_b), (c, expand_c))
    )
    pair = tuple(max(sizes) for sizes in zip(first, second, strict=True))
    left = [1 if axis in sum_over and axis in expand_c else size for axis, size in enumerate(pair)]
    return 2 * (prod(pair) + prod(max(sizes) for sizes in zip(left, third, strict=True)))


def _expanded(shape: Shape, at: list[int]) -> Shape:
    """A shape with an axis of 1 at every place of `at`, as `_trilinear` unsqueezes it."""
    sizes = list(shape)
    for axis in sorted(at):
        sizes.insert(axis, 1)
    return tuple(sizes)


def recurrent_macs(tokens: int, weights: Sequence[Any]) -> int:
    """MACs of an LSTM, a GRU or an RNN: every weight matrix meets every token of every sequence once.

    Args:
        tokens: of all sequences together.
        weights: shapes of all layers and directions; biases are vectors and cost nothing.
    """
    return tokens * sum(prod(shape) for shape in weights if isinstance(shape, tuple) and len(shape) == 2)


def _recurrent_layer(x: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """oneDNN's: two weights, two biases (0 where it has none), one direction of one layer."""
    return 2 * recurrent_macs(prod(x[:-1]), args[:2])


def _recurrent_layer_backward(x: Shape, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """The gradients of inputs and of weights each cost what the forward pass costs."""
    return 2 * _recurrent_layer(x, *args)


def _recurrent(x: Shape, weights: list[Shape], *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """cuDNN's and MIOpen's: all layers and directions in one call."""
    return 2 * recurrent_macs(prod(x[:-1]), [tuple(shape) for shape in weights])


def _recurrent_backward(
    x: Shape, weights: list[Shape], *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """The last argument says which gradients are asked for; that of the weights is the last of them."""
    return (1 + bool(args[-1][-1])) * _recurrent(x, weights)


FORMULAS: dict[str, Callable[..., int]] = {
    "aten::_native_multi_head_attention": _native_attention,
    "aten::_triton_multi_head_attention": _native_attention,
    "aten::_transformer_encoder_layer_fwd": _native_encoder_layer,
    "aten::convolution_backward": _convolution_backward,
    "aten::mv": _matrix_vector,
    "aten::dot": _matrix_vector,
    "aten::vdot": _matrix_vector,
    "aten::addmv": _add_matrix_vector,
    "aten::addbmm": _add_batch,
    "aten::_addmm_activation": _add_matrix,
    "aten::_int_mm": _grouped_matrices,
    "aten::_grouped_mm": _grouped_matrices,
    "aten::_scaled_grouped_mm": _grouped_matrices,
    "aten::_trilinear": _trilinear,
    "aten::mkldnn_rnn_layer": _recurrent_layer,
    "aten::mkldnn_rnn_layer_backward": _recurrent_layer_backward,
    "aten::_cudnn_rnn": _recurrent,
    "aten::_cudnn_rnn_backward": _recurrent_backward,
    "aten::miopen_rnn": _recurrent,
    "aten::miopen_rnn_backward": _recurrent_backward,
}
"""Formula by operator, in place of torch's own where it has one."""

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
            "cat|_chunk_cat|stack|(unsafe_)?split(_with_sizes)?(_copy)?|repeat(_interleave)?|roll|flip|meshgrid|isin",
            "index_(select|put|copy|add|fill)_?|_index_put_impl_|gather|(masked_)?scatter(_add|_reduce)?_?",
            "(select|slice|diagonal|as_strided)_(backward|scatter)|masked_select|nonzero(_static)?|unfold_backward",
            "(arg)?sort|topk|searchsorted|bucketize|histc|_?unique.*|cum(sum|prod|max|min)|_cummax_helper",
            "embedding(_dense_backward|_renorm_)?|im2col|col2im|complex|polar|(constant_|_)?pad(_nd)?",
            "(reflection|replication)_pad[123]d(_backward)?|(channel|pixel)_(un)?shuffle",
            "_?upsample_(nearest|linear|bilinear|trilinear|bicubic)(_exact)?[123]d(_aa)?(_backward)?",
            "_?(adaptive_)?(avg|max)_pool[123]d(_with_indices)?(_backward)?",
            "(mse|smooth_l1|huber|nll|binary_cross_entropy)_loss(_forward|_backward)?|prelu_kernel(_backward)?",
            "(t|transpose|(un)?squeeze|swap(axes|dims)|as_strided)_",
            "_thnn_(fused|differentiable)_(lstm|gru)_cell(_backward(_impl)?)?|_cudnn_rnn_flatten_weight",
            "_?pack_padded_sequence(_backward)?|_?pad_packed_sequence",
            "_foreach_.*|_fused_(adam|adamw|sgd|adagrad)_|_amp_.*",
        )
    )
)
_FREE_NAMESPACES = frozenset({"prim", "prims", "profiler", "c10d", "_c10d_functional", "fsdp"})
_FREE_TAGS = frozenset({torch.Tag.pointwise, torch.Tag.reduction})


def operator_name(packet: Any) -> str:
    """Qualified name: "aten::mm", "higher_order::flex_attention", a Triton kernel's own."""
    if isinstance(packet, torch._ops.HigherOrderOperator):
        return f"higher_order::{packet.name()}"
    if isinstance(packet, torch._ops.OpOverload):
        packet = packet.overloadpacket
    qualified = getattr(packet, "_qualified_op_name", None)
    return str(qualified) if qualified else f"triton::{getattr(packet, '__name__', packet)}"


def is_free(packet: Any) -> bool:
    """Whether a dispatched operator multiplies and accumulates nothing, so that 0 is its true count."""
    namespace, _, name = operator_name(packet).partition("::")
    if namespace in _FREE_NAMESPACES:
        return True
    if namespace != "aten":
        return False
    if _FREE.fullmatch(name):
        return True
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    return any(overload.is_view or _FREE_TAGS & set(overload.tags) for overload in overloads)


def remedy(operators: list[str]) -> str:
    """What a user can do about operators that cannot be counted, as the end of a message."""
    spaces = {operator.partition("::")[0] for operator in operators}
    if spaces & {"quantized", "_quantized"} or any("quantized_" in operator for operator in operators):
        return "count the model before it is quantized, which leaves its products as they are"
    if spaces & {"prim"} and not any("PythonOp" in operator for operator in operators):
        return "count the Python that was scripted, before torch.jit.script"
    if spaces & {"higher_order"}:
        return "write it as plain Python for the count, or count the function inside it"
    return (
        f"pass formulas={{'{operators[0]}': macs}} to the function that counts, where macs takes the operator's "
        "arguments in order, shapes in place of tensors, and returns multiply-accumulates (0 if it has none)"
    )
