"""MACs of a real forward pass, by module and operator, from fvcore's trace with handlers of ours: the first count.

fvcore alone counts fused attention as zero and says so in a log line: 13 % short on DiT-XL/2 at 512 pixels, 50 to 87 %
at video lengths. Its handlers also miss `padding="same"`, count a broadcast `(4, 8) @ (10, 8, 5)` as 160 instead of
1,600, allocate an einsum's operands, and mix norms into the MACs, so all are replaced. Here every traced operator has a
handler for multiply-accumulates, or one for a column of elementwise work, or is listed as free; or the count is
refused.

Units: MACs (1 MAC = 2 FLOPs) of the whole call, so per batch; elementwise work in operations.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

from minisora.errors import UserError
from minisora.flops.agree import Count
from minisora.flops.as_written import (
    ATTENTION,
    CONVOLUTION,
    as_written,
    traceable,
    traced_operators,
    uncompiled,
)
from minisora.flops.count_torch import Formulas, bilinear_macs, native_attention_macs, recurrent_macs, remedy
from minisora.flops.passes import Pass, tensors_in
from minisora.memory import is_out_of_memory

# fvcore scripts two functions of its own, which torch calls deprecated.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis

# Of torch._C.Value.
Values = list[Any]
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
    # Implicit output: letters that appear once, in alphabetical order.
    if "->" not in equation:
        joined = "".join(operands)
        output = hidden_letters + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))
    total = 0
    steps = list(zip(path[::2], path[1::2], strict=True)) if path else []
    while len(operands) > 1:
        i, j = steps.pop(0) if steps else (0, 1)
        a, b = operands[i], operands[j]
        rest = [term for k, term in enumerate(operands) if k not in (i, j)]
        keep = set(output).union(*rest)
        # A letter of one operand only is summed before the product; it costs no multiplications.
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
        # A 0-dim tensor is a size, not work.
        largest = max((prod(dims) for dims in tensors if dims), default=0)
        return Counter({f"{ELEMENTWISE}:{name}": per_element * largest})

    return handler


def handlers(formulas: Mapping[str, Callable[..., int]] | None = None) -> dict[str, Handler]:
    """Handler by traced operator name (`aten::linear`); `formulas` are a user's own, as in `count_fvcore`."""
    table = {f"aten::{name}": _mac(count)(name) for name, count in _MACS.items()}
    table[CONVOLUTION] = _mac(lambda i, o: _conv(i, o, i[2].toIValue()))("_convolution")
    table |= {f"aten::{name}": _elementwise(name, n) for name, n in _ELEMENTWISE.items()}
    table[ATTENTION] = lambda i, o: Counter({f"{MAC}:{i[4].toIValue()}": i[3].toIValue()})
    for operator, macs in (formulas or {}).items():
        table[operator] = _mac(_by_user(macs))(operator.removeprefix("aten::"))
    return table


def _by_user(macs: Callable[..., int]) -> Callable[[Values, Values], int]:
    return lambda inputs, outputs: macs(*map(python_value, inputs))


class _Call(nn.Module):
    """A model with its arguments bound, so that only tensors are traced inputs and only tensors come out."""

    def __init__(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]):
        super().__init__()
        self.model = model
        leaves, self.spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
        self.where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self.constants = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The model's output tensors, flat."""
        leaves = list(self.constants)
        for place, tensor in zip(self.where, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return tuple(tensors_in(self.model(*args, **kwargs)))


class _StrictAnalysis(FlopCountAnalysis):
    """fvcore's analysis with our handlers and nothing ignored but what is listed."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...], formulas: Formulas | None):
        super().__init__(model, inputs)
        self.clear_op_handles()
        free = {f"aten::{name}" for name in FREE} | {f"prim::{name}" for name in FREE_PRIM}
        self._ignored_ops = free - set(formulas or {})
        self.set_op_handle(**handlers(formulas))
        self.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")

    def _should_ignore_node(self, node: Any) -> bool:
        return node.kind() in self._ignored_ops


def count_fvcore(part: Pass, formulas: Formulas | None = None) -> Count:
    """Trace one call and count its MACs, without gradients.

    Works on meta tensors (no memory, no arithmetic), on a CPU and on CUDA; the counts are the same.

    Args:
        part: its module is left as it was, in its own train or eval mode.
        formulas: MACs of operators that have no handler here, as in `StrictFlopCounter`.

    Raises:
        UserError: an operator has no handler (the message names it and the modules it ran in), the model is
            TorchScript, or torch's tracer cannot follow it.
    """
    refuse_scripted(part.module)
    with uncompiled(part.module):
        return _count(part.module, part.args, part.kwargs, formulas)


def _count(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], formulas: Formulas | None
) -> Count:
    call = _Call(model, args, kwargs)
    # Not `.train()`, which would reach into the model.
    call.training = model.training
    analysis = _StrictAnalysis(call, call.tensors, formulas)
    meta = any(
        t.device.type == "meta" or isinstance(t, FakeTensor) for t in (*model.parameters(), *call.tensors)
    )
    try:
        with torch.no_grad(), _hooks_put_back(call), as_written(traced_operators()), traceable(meta):
            inclusive = analysis.by_module_and_operator()
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"torch's tracer, which fvcore's count stands on, cannot follow {type(model).__name__} "
            f"({type(error).__name__}: {first}): count its parts one by one, or by torch alone with "
            "minisora.flops.count_torch.count_forward, which traces nothing"
        ) from error
    _refuse_unknown(analysis)
    count = Count("fvcore")
    for path, work in _exclusive(inclusive).items():
        for operator, amount in work.items():
            kind, _, name = operator.partition(":")
            if amount:
                (count.own if kind == MAC else count.elementwise)[_own_path(path), name] = int(amount)
    return count


def refuse_scripted(model: nn.Module) -> None:
    """Stop at TorchScript, which a trace does not enter.

    Raises:
        UserError: the model or a part of it was made by `torch.jit.script` or `torch.jit.trace`.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"'{path}' of {type(model).__name__}" if path else "the model"
            raise UserError(
                f"{where} is TorchScript ({getattr(module, 'original_name', type(module).__name__)}), which "
                "fvcore's trace cannot enter: count the module that was given to torch.jit"
            )


@contextlib.contextmanager
def _hooks_put_back(model: nn.Module) -> Iterator[None]:
    """Takes off the hooks that fvcore leaves on every module when a trace fails."""
    before = [
        (hooks, set(hooks))
        for module in model.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    ]
    try:
        yield
    finally:
        for hooks, known in before:
            for key in set(hooks) - known:
                del hooks[key]


def _own_path(path: str) -> str:
    """Path inside the model of a path inside `_Call`, which holds it as `model`."""
    return path.partition(".")[2] if path.startswith("model.") else ""


def _exclusive(inclusive: Mapping[str, Counter[str]]) -> dict[str, Counter[str]]:
    """Each module's own work: its total less its children's."""
    own = {path: Counter(work) for path, work in inclusive.items()}
    for path, work in inclusive.items():
        if path:
            own[path.rpartition(".")[0]].subtract(work)
    return own


def _refuse_unknown(analysis: FlopCountAnalysis) -> None:
    unknown = analysis.unsupported_ops()
    if not unknown:
        return
    named = []
    for operator, times in sorted(unknown.items()):
        inside = [p for p in analysis._named_modules if operator in analysis.unsupported_ops(p)]
        deepest = max(inside, key=lambda p: (p.count("."), len(p)), default="")
        named.append(f"{operator} ({times}x, such as in '{_own_path(deepest) or 'the model itself'}')")
    raise UserError(
        f"fvcore has no handler for {', '.join(named)}: the count would be short; {remedy(sorted(unknown))}"
    )
