"""FLOPs of a real pass, forward and backward, by torch's `FlopCounterMode` made strict.

Three things are added to it: the formulas it lacks (`torch_formulas`); an error, in place of a silent 0, for
an operator that has no formula and is not known to be free; and one counting rule for attention everywhere
(`attention_formulas`). What is compiled or fused runs as it is written (`as_written`) while it is counted.
On meta tensors attention is taken as the fused kernel that a CPU or a GPU runs (so a 20-billion-parameter
model counts the same before and after it has a machine), and the channels that CUDA's flash kernel pads to
a multiple of 8 are not counted.

Units: FLOPs, 2 per multiply-accumulate, of everything inside the call (so per batch, not per sample).
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, _FlopCounterMode, shape_wrapper

from minisora.errors import UserError
from minisora.flops.as_written import as_written
from minisora.flops.attention_formulas import LAYOUTS, arguments, attention_size, is_backward
from minisora.flops.torch_formulas import FORMULAS, Formulas, is_free, operator_name, remedy


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
        # operator -> the module of every call
        self.unknown: defaultdict[str, list[str]] = defaultdict(list)
        self._formulas = dict(formulas or {})
        self._attention = _AttentionWatch()
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

    def by_module(self) -> dict[str, int]:
        """FLOPs by module path as the root module names it ("" is everything), forward passes only."""
        paths = {
            name.partition(".")[2]: sum(ops.values()) for name, ops in self.flop_counts.items() if "." in name
        }
        return {"": self.get_total_flops(), **paths}

    def by_operator(self) -> dict[str, int]:
        """FLOPs by operator name."""
        return {str(op): count for op, count in self.flop_counts["Global"].items()}

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
        if operator in self._formulas:
            given = arguments(operator, args, kwargs)
            macs = shape_wrapper(lambda *all_of_them, out_shape: self._formulas[operator](*all_of_them))
            return 2 * int(macs(*given.values())), 0
        formula: Callable[..., int] | None = self.flop_registry.get(packet)
        if operator not in LAYOUTS and operator not in FORMULAS and formula is None:
            return None, 0
        _refuse_ragged(operator, args)
        if operator in LAYOUTS:
            size = attention_size(operator, args, kwargs)
            if is_backward(operator):
                return size.backward_flops, size.recompute_flops
            return size.forward_flops, 0
        if operator in FORMULAS or formula is None:
            formula = shape_wrapper(FORMULAS[operator])
        return int(formula(*args, **kwargs, out_val=out)), 0

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


class _AttentionWatch:
    """Sees attention as it was asked for, before a backend pads or decomposes it.

    It stands in for `torch.nn.functional.scaled_dot_product_attention` while it is entered. (A
    TorchFunctionMode would be off during `backward`, where checkpointed blocks run again.)
    """

    def __init__(self) -> None:
        self._asked: tuple[int, int] | None = None  # channels of (query and key, value), while inside a call
        self._unpadded: dict[tuple[int, ...], tuple[int, int]] = {}  # shapes the kernel saw -> channels asked
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
        if backward:  # the gradient has the values' channels
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
    not counted (`closed_form.optimizer_flops` is its arithmetic).

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
