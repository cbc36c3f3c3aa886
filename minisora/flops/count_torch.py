"""FLOPs of a real pass, forward and backward, by torch's `FlopCounterMode` made strict: the second count.

Three things are added to it. The formulas it lacks: torch adds 0 for any operator it does not know, of which
attention on a CPU is one (pytorch issue 195460) and the fused path of `nn.MultiheadAttention` another, so a count can
be short without a word. An error in place of that 0: here an operator has a formula, or is listed as free, or is
refused. One counting rule for attention everywhere (`attention_formulas`). What is compiled or fused runs as it is
written (`as_written`) while it is counted. On meta tensors attention is taken as the fused kernel that a CPU or a GPU
runs (so a 20-billion-parameter model counts the same before and after it has a machine), and the channels that CUDA's
flash kernel pads to a multiple of 8 are not counted.

Units: FLOPs, 2 per multiply-accumulate, of everything inside the call (so per batch, not per sample); of a formula,
MACs.
"""

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode, shape_wrapper

from minisora.errors import UserError
from minisora.flops.agree import Count
from minisora.flops.as_written import as_written, uncompiled
from minisora.flops.attention_formulas import (
    LAYOUTS,
    AttentionWatch,
    arguments,
    attention_size,
    is_backward,
    operator_name,
)
from minisora.flops.passes import Pass
from minisora.memory import is_out_of_memory

Shape = tuple[int, ...]
Formulas = Mapping[str, Callable[..., int]]
"""Operator ("library::name") -> MACs from all its arguments in order, shapes in place of tensors."""


def native_attention_macs(query: Shape, key: Shape, width: int) -> int:
    """MACs of `aten::_native_multi_head_attention`: four projections, scores, weighted sum.

    Args:
        query, key: B S E and B M E.
        width: E.
    """
    batch, s, m = query[0], query[1], key[1]
    return batch * (2 * s * width**2 + 2 * m * width**2 + 2 * s * m * width)


def _native_encoder_layer(x: Shape, width: int, heads: int, *rest: Any) -> int:
    """One `nn.TransformerEncoderLayer`: self-attention, and two linear layers on every token."""
    # Of the matrices qkv and projection come first, then the two of the MLP.
    mlp = [shape for shape in rest if isinstance(shape, tuple) and len(shape) == 2][2:4]
    return native_attention_macs(x, x, width) + prod(x[:-1]) * sum(prod(shape) for shape in mlp)


def _convolution_backward(grad: Shape, x: Shape, weight: Shape, *rest: Any) -> int:
    """The gradients of input and of weight each cost what the forward pass costs.

    torch's own formula multiplies the weight's share by `groups`, which is wrong for grouped convolutions.
    """
    transposed, asked_for = rest[4], rest[-1]
    places = x if transposed else grad
    return x[0] * prod(places[2:]) * prod(weight) * (bool(asked_for[0]) + bool(asked_for[1]))


def _grouped_matrices(a: Shape, b: Shape, *rest: Any) -> int:
    """Groups of products: a row, a column or a term of the sum belongs to one group, so groups add nothing."""
    groups = a[0] if len(a) == len(b) == 3 else 1
    return groups * a[-2] * a[-1] * b[-1]


def bilinear_macs(rows: int, weight: Shape) -> int:
    """MACs of x1 A x2 with A of (out, in1, in2): `x1 A` for every row, then its product with x2."""
    out, first, second = weight
    return rows * out * (first + 1) * second


def _trilinear(a: Shape, b: Shape, c: Shape, *rest: Any) -> int:
    """What `F.bilinear` and its gradients become: a product of three, summed over some of their axes.

    The first two are contracted over the axes that the third has not, then what is left with the third.
    """
    *new_axes, summed = rest[:4]
    first, second, third = map(_expanded, (a, b, c), new_axes)
    pair = tuple(map(max, first, second))
    left = [1 if axis in summed and axis in new_axes[2] else size for axis, size in enumerate(pair)]
    return prod(pair) + prod(map(max, left, third))


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


def _recurrent_layer(x: Shape, *rest: Any) -> int:
    """oneDNN's: two weights, two biases (0 where it has none), one direction of one layer."""
    return recurrent_macs(prod(x[:-1]), rest[:2])


def _recurrent(x: Shape, weights: list[Shape], *rest: Any) -> int:
    """cuDNN's and MIOpen's: all layers and directions in one call."""
    return recurrent_macs(prod(x[:-1]), [tuple(shape) for shape in weights])


def _recurrent_backward(x: Shape, weights: list[Shape], *rest: Any) -> int:
    """The last argument says which gradients are asked for; that of the weights is the last of them."""
    return (1 + bool(rest[-1][-1])) * _recurrent(x, weights)


FORMULAS: Formulas = {
    "aten::_native_multi_head_attention": lambda q, k, v, width, *_: native_attention_macs(q, k, width),
    "aten::_triton_multi_head_attention": lambda q, k, v, width, *_: native_attention_macs(q, k, width),
    "aten::_transformer_encoder_layer_fwd": _native_encoder_layer,
    "aten::convolution_backward": _convolution_backward,
    "aten::mv": lambda matrix, *_: prod(matrix),
    "aten::dot": lambda vector, *_: prod(vector),
    "aten::vdot": lambda vector, *_: prod(vector),
    "aten::addmv": lambda start, matrix, *_: prod(matrix),
    "aten::addbmm": lambda start, a, b, *_: prod(a) * b[-1],
    "aten::_addmm_activation": lambda start, a, b, *_: prod(a) * b[-1],
    "aten::_int_mm": _grouped_matrices,
    "aten::_grouped_mm": _grouped_matrices,
    "aten::_scaled_grouped_mm": _grouped_matrices,
    "aten::_trilinear": _trilinear,
    "aten::mkldnn_rnn_layer": _recurrent_layer,
    # The gradients of inputs and of weights each cost what the forward pass costs.
    "aten::mkldnn_rnn_layer_backward": lambda *args: 2 * _recurrent_layer(*args),
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
            "_?(native_|fused_|cudnn_|miopen_)?(layer|group|batch|rms)_norm(_backward)?",
            "_?(native_)?batch_norm_(legit|with_update|no_update)(_no_training)?(_functional)?",
            "_weight_norm_interface(_backward)?",
            "(leaky_relu|elu|rrelu_with_noise|glu|mish|log_sigmoid|soft(plus|shrink))(_backward)?",
            "hard(shrink|sigmoid|swish|tanh)(_backward)?",
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


@dataclass(frozen=True)
class StepCount:
    """FLOPs of one loss and its backward pass, for the whole batch that the loss was taken over.

    `train_flops` is everything that ran: forward, backward, and what was computed a second time. Of it,
    `recompute_flops` bought memory, not gradients: blocks run again under checkpointing, and the attention
    scores that a fused backward kernel rebuilds. MFU is taken of the difference, `model_flops`.
    """

    forward_flops: int
    train_flops: int
    recompute_flops: int

    @property
    def backward_flops(self) -> int:
        """Everything after the loss, recomputation included."""
        return self.train_flops - self.forward_flops

    @property
    def model_flops(self) -> int:
        """Forward and gradients without recomputation: the numerator of MFU (PaLM, arXiv 2204.02311, B)."""
        return self.train_flops - self.recompute_flops

    @property
    def ratio(self) -> float:
        """Train step over forward."""
        return self.train_flops / self.forward_flops


class StrictFlopCounter(FlopCounterMode):
    """`FlopCounterMode` that refuses an operator it cannot count. Use as a context manager; counts FLOPs.

    Args:
        formulas: for operators that have none here, or in place of the one they have.

    Raises:
        UserError: on leaving the context, if any operator had no formula and is not known to be free.
    """

    def __init__(self, formulas: Formulas | None = None) -> None:
        super().__init__(display=False)
        self.recompute_flops = 0
        # Operator -> the module of every call.
        self.unknown: defaultdict[str, list[str]] = defaultdict(list)
        self._formulas = {**FORMULAS, **(formulas or {})}
        self._attention = AttentionWatch()
        self._context = contextlib.ExitStack()

    def __enter__(self) -> "StrictFlopCounter":
        self.flop_counts.clear()
        with contextlib.ExitStack() as stack:
            stack.enter_context(as_written())
            stack.enter_context(self._attention)
            self.mod_tracker.__enter__()
            stack.callback(self.mod_tracker.__exit__)
            self.mode = stack.enter_context(_StrictMode(self))
            self._context = stack.pop_all()
        return self

    def __exit__(self, *args: Any) -> Any:
        self._context.__exit__(*args)
        self.mode = None
        if self.unknown and args[0] is None:
            named = ", ".join(
                f"{operator} ({len(modules)}x{_inside(max(modules, key=len))})"
                for operator, modules in sorted(self.unknown.items())
            )
            raise UserError(
                f"no FLOP formula for {named}: the count would be short; {remedy(sorted(self.unknown))}"
            )

    def own_macs(self) -> dict[tuple[str, str], int]:
        """MACs by module and operator, of forward passes only; a module's children are left out.

        A module's parent is its nearest ancestor that ran the operator (containers are never called).
        """
        inclusive = {("", str(op)): flops // 2 for op, flops in self.flop_counts["Global"].items()}
        for name, flops_of in self.flop_counts.items():
            if "." in name:
                inclusive |= {(name.partition(".")[2], str(op)): f // 2 for op, f in flops_of.items()}
        own = dict(inclusive)
        for (path, operator), macs in inclusive.items():
            parent = path
            while parent:
                parent = parent.rpartition(".")[0]
                if (parent, operator) in inclusive:
                    own[parent, operator] -= macs
                    break
        return {key: macs for key, macs in own.items() if macs}

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        """torch's hook, called once for every operator that does not decompose."""
        operator = operator_name(func_packet)
        args = self._attention.unpad(operator, args)
        flops, rebuilt = self._flops(operator, func_packet, out, args, kwargs)
        if flops is None:
            if not is_free(func_packet):
                self.unknown[operator].append(self._module())
            return out
        for parent in set(self.mod_tracker.parents):
            self.flop_counts[parent][func_packet] += flops
        # Autograd runs with gradients off; a checkpoint turns them on to run a block again.
        in_backward = torch._C._current_graph_task_id() != -1
        self.recompute_flops += flops if in_backward and torch.is_grad_enabled() else rebuilt
        return out

    def _flops(self, operator: str, packet: Any, out: Any, args: Any, kwargs: Any) -> tuple[int | None, int]:
        """FLOPs of a call, None if unknown, and those of them that rebuild attention scores."""
        macs: Callable[..., int] | None = self._formulas.get(operator)
        if macs is None and operator not in LAYOUTS and packet not in self.flop_registry:
            return None, 0
        _refuse_ragged(operator, args)
        if macs is not None:
            on_shapes = shape_wrapper(lambda *shapes, out_shape: macs(*shapes))
            return 2 * int(on_shapes(*arguments(operator, args, kwargs).values())), 0
        if operator in LAYOUTS:
            size = attention_size(operator, args, kwargs)
            if is_backward(operator):
                return size.backward_flops, size.recompute_flops
            return size.forward_flops, 0
        return int(self.flop_registry[packet](*args, **kwargs, out_val=out)), 0

    def _module(self) -> str:
        """Path of the innermost module that runs now, as the root module names it."""
        return max(self.mod_tracker.parents, key=len).partition(".")[2]


def _inside(path: str) -> str:
    return f", such as in '{path}'" if path else ""


def _refuse_ragged(operator: str, args: Any) -> None:
    if any(isinstance(t, Tensor) and t.is_nested and t.layout == torch.strided for t in args):
        raise UserError(
            f"{operator} ran on a nested tensor, whose sizes no formula takes: count it on a padded one"
        )


class _StrictMode(_FlopCounterMode):
    """torch's dispatch hook, with higher-order operators counted or refused by name."""

    def __init__(self, counter: StrictFlopCounter) -> None:
        super().__init__(counter)

    def _handle_higher_order_ops(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        operator = operator_name(func)
        if operator in LAYOUTS:
            return self.counter._count_flops(func, func(*args, **kwargs), args, kwargs)
        if "triton_kernel" in operator:
            return super()._handle_higher_order_ops(func, types, args, kwargs)
        raise UserError(
            f"the operator {operator} hides what it runs, so it cannot be counted: {remedy([operator])}"
        )


def count_forward(fn: Callable[[], Any], *, formulas: Formulas | None = None) -> int:
    """FLOPs of `fn()`: whatever runs inside it, on the tensors it has.

    Args:
        fn: called once, without compilation and fused fast paths.
        formulas: MACs of operators that have no formula here, as in `StrictFlopCounter`.

    Raises:
        UserError: an operator ran that has no formula.
    """
    with StrictFlopCounter(formulas) as counter:
        fn()
    return counter.get_total_flops()


def count_step(loss_fn: Callable[[], Tensor], *, formulas: Formulas | None = None) -> StepCount:
    """FLOPs of one training step: `loss_fn()`, then `.backward()` on what it returns.

    It runs the step for real and adds to the parameters' gradients; the caller zeroes them. The optimizer is
    not counted (`count_closed_form.optimizer_flops` is its arithmetic).

    Args:
        loss_fn: returns a scalar loss that requires a gradient.
        formulas: MACs of operators that have no formula here, as in `StrictFlopCounter`; an operator's
            backward has a name of its own.

    Raises:
        UserError: an operator ran that has no formula, or the loss needs no gradient.
    """
    with StrictFlopCounter(formulas) as counter:
        loss = loss_fn()
        forward = counter.get_total_flops()
        if not loss.requires_grad:
            raise UserError(
                "the loss needs no gradient, so there is no backward pass to count: unfreeze a parameter"
            )
        loss.backward()
    return StepCount(forward, counter.get_total_flops(), counter.recompute_flops)


def count_training(part: Pass) -> StepCount:
    """FLOPs of forward and backward of the pass, on the tensors it has; gradients are dropped afterwards."""
    count = count_step(part.loss)
    part.module.zero_grad()
    return count


def count_torch(part: Pass, formulas: Formulas | None = None) -> Count:
    """MACs of one call by module and operator, without gradients, as torch dispatches it.

    Args:
        part: on any device; on meta nothing is computed. Compiled modules count as they were before.
        formulas: MACs of operators that have no formula here, as in `StrictFlopCounter`.

    Raises:
        UserError: as `StrictFlopCounter`, or the module runs but not while it is counted. The model's own errors
            come as the model raises them.
    """
    with uncompiled(part.module):
        try:
            with torch.no_grad(), StrictFlopCounter(formulas) as counter:
                part()
        except UserError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # The model's own errors come from its own run, as they are.
            with torch.no_grad(), as_written():
                part()
            first = (str(error).strip().splitlines() or [""])[0]
            raise UserError(
                f"{part.name} runs, but not under torch's counter ({type(error).__name__}: {first}): count its "
                "parts one by one, on dense tensors"
            ) from error
    return Count("torch", counter.own_macs())
