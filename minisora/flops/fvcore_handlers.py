"""What a traced operator costs: fvcore handlers for multiply-accumulates, a column for elementwise work, and
the list of what is free. An operator in none of the three is refused by the ledger.

fvcore's own handlers are replaced: they miss fused attention and `padding="same"`, count a broadcast
`(4, 8) @ (10, 8, 5)` as 160 instead of 1,600, allocate an einsum's operands, and mix norms into the MACs.

Units: MACs (1 MAC = 2 FLOPs); elementwise work in operations.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from minisora.errors import UserError
from minisora.flops.torch_formulas import bilinear_macs, native_attention_macs, recurrent_macs
from minisora.flops.trace_shims import ATTENTION, CONVOLUTION

Values = list[Any]  # of torch._C.Value
Handler = Callable[[Values, Values], Counter[str]]
MAC, ELEMENTWISE = "mac", "elementwise"


def shape(value: Any) -> list[int]:
    """Sizes of a traced tensor.

    Raises:
        UserError: the trace did not record them, so nothing can be counted.
    """
    if not value.isCompleteTensor():
        raise UserError(
            f"the trace has no shape for '{value.debugName()}', so its operator cannot be counted"
        )
    return list(value.type().sizes())


def python_value(value: Any) -> Any:
    """A traced value as a formula takes it: shapes in place of tensors, lists of them, constants."""
    if value.isCompleteTensor():
        return tuple(shape(value))
    if value.node().kind() in ("prim::ListConstruct", "prim::TupleConstruct"):
        return [python_value(each) for each in value.node().inputs()]
    return value.toIValue()


def matmul_macs(a: list[int], b: list[int]) -> int:
    """MACs of `a @ b` with torch's rules: vectors allowed, batch dimensions broadcast."""
    if len(a) == 1:
        a = [1, *a]
    if len(b) == 1:
        b = [*b, 1]
    batch = np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))
    return prod(batch) * a[-2] * a[-1] * b[-1]


def einsum_macs(equation: str, shapes: list[list[int]], path: list[int] | None = None) -> int:
    """MACs of an einsum contracted pair by pair, left to right or along `path` (opt_einsum's, flattened).

    A pair that sums over nothing is an outer product: elementwise, no MACs.
    """
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    sizes: dict[str, int] = {}
    operands: list[str] = []
    for term, dims in zip(terms, shapes, strict=True):
        if "..." in term:
            hidden = len(dims) - len(term.replace("...", ""))
            term = term.replace("...", "".join(chr(0x3B1 + 30 - hidden + i) for i in range(hidden)))
        for letter, size in zip(term, dims, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
        operands.append(term)
    hidden_letters = "".join(sorted({c for term in operands for c in term if ord(c) >= 0x3B1}))
    output = output.replace("...", hidden_letters)
    if "->" not in equation:  # implicit output: letters that appear once, in alphabetical order
        joined = "".join(operands)
        output = hidden_letters + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    total = 0
    steps = list(zip(path[::2], path[1::2], strict=True)) if path else []
    while len(operands) > 1:
        i, j = steps.pop(0) if steps else (0, 1)
        a, b = operands[i], operands[j]
        rest = [term for k, term in enumerate(operands) if k not in (i, j)]
        keep = set(output).union(*rest)
        # a letter of one operand only is summed before the product; it costs no multiplications
        a, b = ("".join(c for c in x if c in keep or c in y) for x, y in ((a, b), (b, a)))
        union = dict.fromkeys(a + b)
        if any(c not in keep for c in union):
            total += prod(sizes[c] for c in union)
        operands = (
            ["".join(c for c in union if c in keep), *rest]
            if not path
            else [*rest, "".join(c for c in union if c in keep)]
        )
    return total


def _mac(count: Callable[[Values, Values], int]) -> Callable[[str], Handler]:
    return lambda name: lambda inputs, outputs: Counter({f"{MAC}:{name}": int(count(inputs, outputs))})


def _conv(inputs: Values, outputs: Values, transposed: bool) -> int:
    places = shape(inputs[0]) if transposed else shape(outputs[0])
    return places[0] * prod(places[2:]) * prod(shape(inputs[1]))


def _sdpa(inputs: Values, outputs: Values) -> int:
    out, keys, channels = shape(outputs[0]), shape(inputs[1])[-2], shape(inputs[0])[-1]
    return prod(out[:-1]) * keys * (channels + out[-1])


def _einsum(inputs: Values, outputs: Values) -> int:
    path = inputs[2].toIValue() if len(inputs) > 2 else None
    return einsum_macs(inputs[0].toIValue(), [shape(v) for v in inputs[1].node().inputs()], path)


def _recurrent(inputs: Values, outputs: Values) -> int:
    """An LSTM, GRU or RNN of several layers: the last list of tensors holds the weights."""
    weights = [v for v in map(python_value, inputs) if isinstance(v, list) and len(v) > 1][-1]
    return recurrent_macs(prod(shape(inputs[0])[:-1]), weights)


def _recurrent_cell(inputs: Values, outputs: Values) -> int:
    return recurrent_macs(prod(shape(inputs[0])[:-1]), [tuple(shape(v)) for v in inputs[2:4]])


def _tensordot(inputs: Values, outputs: Values) -> int:
    a, b, _, summed = map(python_value, inputs[:4])
    return prod(a) * prod(size for axis, size in enumerate(b) if axis not in {d % len(b) for d in summed})


def _grouped(inputs: Values, outputs: Values) -> int:
    a, b = shape(inputs[0]), shape(inputs[1])
    return (a[0] if len(a) == len(b) == 3 else 1) * a[-2] * a[-1] * b[-1]


def _product(first: int) -> Callable[[Values, Values], int]:
    return lambda i, o: matmul_macs(shape(i[first]), shape(i[first + 1]))


_MACS: dict[str, Callable[[Values, Values], int]] = {
    "linear": lambda i, o: prod(shape(i[0])) * prod(shape(i[1])[:-1]),
    "matmul": _product(0),
    "mm": _product(0),
    "bmm": _product(0),
    "mv": _product(0),
    "dot": _product(0),
    "inner": lambda i, o: prod(shape(i[0])) * prod(shape(i[1])[:-1]),
    "addmm": _product(1),
    "addmv": _product(1),
    "baddbmm": _product(1),
    "addbmm": _product(1),
    "einsum": _einsum,
    "tensordot": _tensordot,
    "bilinear": lambda i, o: bilinear_macs(prod(shape(i[0])[:-1]), tuple(shape(i[2]))),
    "_int_mm": _product(0),
    "_grouped_mm": _grouped,
    "_scaled_grouped_mm": _grouped,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _recurrent_cell),
    "_convolution": lambda i, o: _conv(i, o, i[6].toIValue()),
    "convolution": lambda i, o: _conv(i, o, i[6].toIValue()),
    "_convolution_mode": lambda i, o: _conv(i, o, False),
    "scaled_dot_product_attention": _sdpa,
    "_native_multi_head_attention": lambda i, o: native_attention_macs(
        tuple(shape(i[0])), tuple(shape(i[1])), i[3].toIValue()
    ),
}


def _names(text: str) -> list[str]:
    return text.split()


# Operations per element of the larger of the first input and the output: rough by nature, so kept apart from
# the MACs. Norms as fvcore takes them.
_ONE = _names(
    "__and__ __or__ _upsample_bilinear2d_aa _upsample_nearest_exact2d abs adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d add add_ addcdiv addcmul amax amin argmax avg_pool1d "
    "avg_pool2d avg_pool3d bitwise_and bitwise_not bitwise_or ceil celu clamp clamp_max clamp_min cos "
    "cumprod cumsum div div_ elu eq erf exp exp_ expm1 floor floor_divide fmod ge ger gt hardswish "
    "hardtanh le leaky_relu lerp linalg_vector_norm log log1p logical_and logical_not logical_or "
    "logsumexp lt masked_fill masked_fill_ max max_pool2d max_pool3d maximum mean min minimum mish mul "
    "mul_ ne neg norm outer pow prod reciprocal relu relu6 relu_ remainder round rsqrt rsub sigmoid "
    "sigmoid_ sign sin softplus sqrt square std sub sub_ sum tanh tanh_ threshold trunc upsample_bilinear2d "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d var where"
)
_FOUR = _names("batch_norm gelu glu log_softmax logaddexp normalize selu silu silu_ softmax")
_FIVE = _names("group_norm instance_norm layer_norm rms_norm")
_ELEMENTWISE = dict.fromkeys(_ONE, 1) | dict.fromkeys(_FOUR, 4) | dict.fromkeys(_FIVE, 5)

FREE = frozenset(
    _names(
        "Bool Float FloatImplicit Int IntImplicit ScalarImplicit alias all any arange argsort as_strided "
        "atleast_1d bernoulli broadcast_tensors cat channel_shuffle chunk clone column_stack complex concat "
        "constant_pad_nd contiguous copy_ detach diagonal dropout dropout_ dstack embedding empty empty_like "
        "expand expand_as eye feature_dropout fill_ flatten flip full full_like gather hstack imag index "
        "index_put index_put_ index_select is_nonzero item lift_fresh linspace meshgrid movedim narrow "
        "new_empty new_full new_ones new_zeros nonzero numel numpy_T ones ones_like pad permute "
        "pixel_shuffle pixel_unshuffle polar rand rand_like randint randn randn_like real reflection_pad1d "
        "reflection_pad2d repeat repeat_interleave "
        "replication_pad1d replication_pad2d replication_pad3d reshape "
        "resolve_conj "
        "_pack_padded_sequence _pad_packed_sequence "
        "resolve_neg roll scalar_tensor scatter select size slice sort split split_with_sizes squeeze stack "
        "swapaxes t tensor_split tile to topk transpose tril triu type_as unbind unflatten unfold unsqueeze "
        "unsafe_chunk unsafe_split "
        "unsqueeze_ view view_as view_as_complex view_as_real vstack zero_ zeros zeros_like"
    )
)
"""Operators of the `aten` namespace that move, make or reorder data: no arithmetic."""

# Bookkeeping of the trace itself. Not prim::If, Loop, PythonOp or CallFunction: work hides in them.
FREE_PRIM = frozenset(
    _names(
        "Constant GetAttr ImplicitTensorToNum ListConstruct ListUnpack NumToTensor TupleConstruct TupleIndex "
        "TupleUnpack Uninitialized data device dtype is_cuda layout requires_grad unchecked_cast"
    )
)


def _elementwise(name: str, per_element: int) -> Handler:
    def handler(inputs: Values, outputs: Values) -> Counter[str]:
        tensors = [shape(v) for v in (*inputs[:1], *outputs[:1]) if v.isCompleteTensor()]
        # a 0-dim tensor is a size, not work
        largest = max((prod(dims) for dims in tensors if dims), default=0)
        return Counter({f"{ELEMENTWISE}:{name}": per_element * largest})

    return handler


def handlers(formulas: Mapping[str, Callable[..., int]] | None = None) -> dict[str, Handler]:
    """Handler by traced operator name (`aten::linear`); `formulas` are a user's own, as in `count_macs`."""
    table = {f"aten::{name}": _mac(count)(name) for name, count in _MACS.items()}
    table[CONVOLUTION] = _mac(lambda i, o: _conv(i, o, i[2].toIValue()))("_convolution")
    table |= {f"aten::{name}": _elementwise(name, n) for name, n in _ELEMENTWISE.items()}
    table[ATTENTION] = lambda i, o: Counter({f"{MAC}:{i[4].toIValue()}": i[3].toIValue()})
    for operator, macs in (formulas or {}).items():
        table[operator] = _mac(_by_user(macs))(operator.removeprefix("aten::"))
    return table


def _by_user(macs: Callable[..., int]) -> Callable[[Values, Values], int]:
    return lambda inputs, outputs: macs(*map(python_value, inputs))
