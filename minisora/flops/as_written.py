"""Runs a model so that a counter sees every product of it, and puts everything back afterwards.

**As it is written.** What makes a model fast also hides its operators: a compiled function is opaque to a tracer, the
fast path of `nn.TransformerEncoder` is one operator a layer on a nested tensor, and control flow in the form of
operators hides its body. All three have an eager meaning with the same products, and that is what runs.

**Traceable.** torch's tracer, which fvcore stands on, stops on meta tensors at the first Python-written shape function
(while tracing, sizes are tensors), and records no convolution at all: the node appears deeper than a meta tensor ever
goes. On any tensors it stops at fused attention called by its operator: it becomes one node.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.fx.experimental import _config as fx_config
from torch.utils._python_dispatch import TorchDispatchMode

from minisora.errors import UserError
from minisora.flops.attention_formulas import LAYOUTS, arguments, attention_flops, operator_name

_MESSAGE = (
    "{} decides by a tensor's value what runs, and a meta tensor has none: count on real tensors, or count its "
    "branch or body by itself"
)


@contextlib.contextmanager
def as_written(operators: Mapping[str, Callable[..., Any]] | None = None) -> Iterator[None]:
    """Compiled code runs eagerly, `torch.cond` and `while_loop` as Python, attention without its fast path.

    The branch or the number of turns is that of the values given; a meta tensor, without values, is refused.

    Args:
        operators: higher-order operator by name -> what stands in for it, such as one that a tracer can see.
    """
    stand_ins: dict[str, Callable[..., Any]] = {"cond": _cond, "while_loop": _while_loop, **(operators or {})}
    original: Callable[..., Any] = HigherOrderOperator.__call__

    def call(self: HigherOrderOperator, /, *args: Any, **kwargs: Any) -> Any:
        stand_in = stand_ins.get(self.name())
        return original(self, *args, **kwargs) if stand_in is None else stand_in(*args, **kwargs)

    with contextlib.ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(mock.patch.object(HigherOrderOperator, "__call__", call))
        flex = sys.modules.get("torch.nn.attention.flex_attention")
        # It asks for a device that its fused kernels know; its plain form runs on any, meta included.
        if hasattr(flex, "_validate_device"):
            stack.enter_context(mock.patch.object(flex, "_validate_device"))
        _run_compiled_code_eagerly(stack)
        yield


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """The modules inside `model` that `torch.compile` or `.compile()` made, as they were before, for the duration.

    `as_written` runs them eagerly too; this also gives their parts the paths that the uncompiled model has.
    """
    with contextlib.ExitStack() as stack:
        for module in list(model.modules()):
            if getattr(module, "_compiled_call_impl", None) is not None:
                stack.enter_context(mock.patch.object(module, "_compiled_call_impl", None))
            for name, child in list(module._modules.items()):
                original = getattr(child, "_orig_mod", None)
                if isinstance(original, nn.Module):
                    stack.enter_context(mock.patch.dict(module._modules, {name: original}))
        yield


def _run_compiled_code_eagerly(stack: contextlib.ExitStack) -> None:
    """Until `stack` closes, for what is compiled already and for what is compiled meanwhile."""
    compile_ = torch.compile
    eager = False

    def stand_aside() -> None:
        nonlocal eager
        if eager:
            return
        eager = True
        from torch._dynamo import eval_frame

        stack.enter_context(torch.compiler.set_stance("force_eager"))
        # A compiled function refuses to run inside a trace, eagerly too, where torch has no such context.
        if hasattr(eval_frame, "_use_eager_on_nested_compile"):
            stack.enter_context(eval_frame._use_eager_on_nested_compile())

    def compile_and_stand_aside(model: Any = None, *args: Any, **kwargs: Any) -> Any:
        # torch wraps its own operators in a local function when they are called eagerly, and compiles that.
        name, module = getattr(model, "__qualname__", ""), getattr(model, "__module__", None) or ""
        if module.startswith("torch.") and "<locals>" in name:
            return model
        compiled = compile_(model, *args, **kwargs)
        stand_aside()
        return compiled

    stack.enter_context(mock.patch.object(torch, "compile", compile_and_stand_aside))
    # The compiler takes seconds to import: nothing is compiled as long as nobody has.
    if "torch._dynamo" in sys.modules:
        stand_aside()


def _decides(operator: str, value: Any) -> bool:
    """The truth of a value that decides what runs."""
    if isinstance(value, Tensor) and value.device.type == "meta":
        raise UserError(_MESSAGE.format(operator))
    return bool(value)


def _cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any) -> Any:
    return (true_fn if _decides("torch.cond", pred) else false_fn)(*operands)


def _while_loop(
    cond_fn: Callable[..., Any],
    body_fn: Callable[..., Any],
    carried: tuple[Any, ...],
    additional: tuple[Any, ...] = (),
    /,
    **kwargs: Any,
) -> tuple[Any, ...]:
    while _decides("while_loop", cond_fn(*carried, *additional)):
        carried = tuple(body_fn(*carried, *additional))
    return carried


CONVOLUTION = "minisora_flops::convolution"
"""The node that stands for any convolution on meta tensors: (input, weight, transposed) -> output."""

ATTENTION = "minisora_flops::attention"
"""The node that stands for any fused attention called by its operator: (query, key, value, MACs, name) -> output."""

_TRACER = "Tracer"
_BLOCK_MASKS = (
    "_create_empty_block_mask",
    "create_mask",
    "_convert_mask_to_block_mask",
    "_create_sparse_block_from_block_mask",
)
# The calls that the operators below stand for.
_convolutions: list[Callable[[], Tensor]] = []
_attentions: list[Callable[[], Tensor]] = []


# For meta tensors only: it has a shape and no kernel.
torch.library.define(CONVOLUTION, "(Tensor x, Tensor weight, bool transposed) -> Tensor")


@torch.library.register_fake(CONVOLUTION)
def _(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    return _convolutions[-1]()


@torch.library.custom_op(ATTENTION, mutates_args=())
def _attention(query: Tensor, key: Tensor, value: Tensor, macs: int, name: str) -> Tensor:
    with untraced():
        return _attentions[-1]()


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, macs: int, name: str) -> Tensor:
    with untraced():
        return _attentions[-1]()


def _traced_attention(operator: str, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """One node for a call of an attention operator, whose symbolic sizes or Python functions stop the tracer.

    Of what `run` returns only the first tensor, the output, is part of the trace.
    """
    named = arguments(operator, args, kwargs)
    query, key, value = (
        named[long] if long in named else named[long[0]] for long in ("query", "key", "value")
    )
    rest: list[Any] = []

    def compute() -> Tensor:
        result = run(*args, **kwargs)
        first, *rest[:] = result if isinstance(result, tuple) else (result,)
        return first

    with untraced():
        macs = attention_flops(operator, args, kwargs) // 2
    _attentions.append(compute)
    try:
        output = torch.ops.minisora_flops.attention(query, key, value, macs, operator.partition("::")[2])
    finally:
        _attentions.pop()
    return (output, *rest) if rest else output


def traced_operators() -> dict[str, Callable[..., Any]]:
    """Higher-order operators that a trace records as one node, for `as_written`."""
    original = HigherOrderOperator.__call__

    def flex_attention(*args: Any, **kwargs: Any) -> Any:
        operator = torch.ops.higher_order.flex_attention
        run = functools.partial(original, operator)
        if torch._C._get_tracing_state() is None:
            return run(*args, **kwargs)
        return _traced_attention("higher_order::flex_attention", run, args, kwargs)

    return {"flex_attention": flex_attention}


def _attention_as_node(original: Callable[..., Any]) -> Callable[..., Any]:
    """`__call__` of torch's operators (`torch.ops.aten...`), with attention recorded as one node."""

    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        operator = operator_name(self)
        if operator not in LAYOUTS or torch._C._get_tracing_state() is None:
            return original(self, *args, **kwargs)
        return _traced_attention(operator, functools.partial(original, self), args, kwargs)

    return call


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Pauses the tracer: operators are not recorded, and sizes are plain integers."""
    excluded = torch._C._dispatch_tls_is_dispatch_key_excluded(_TRACER)
    state = torch._C._get_tracing_state()
    set_state = getattr(torch._C, "_set_tracing_state")  # noqa: B009 - torch has no stub for it
    torch._C._dispatch_tls_set_dispatch_key_excluded(_TRACER, False)
    set_state(None)
    try:
        yield
    finally:
        set_state(state)
        torch._C._dispatch_tls_set_dispatch_key_excluded(_TRACER, excluded)


class _Untraced(TorchDispatchMode):
    """Runs each operator with tracing paused, so that Python shape functions get plain integers."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default and not _convolutions:
            raise UserError(
                "aten::convolution is called directly, not through torch.nn.functional, where fvcore's trace "
                "cannot see it on meta tensors: count this model on real ones (device='cpu')"
            )
        with untraced():
            return func(*args, **(kwargs or {}))


def _traced_convolution(original: Callable[..., Tensor], transposed: bool) -> Callable[..., Tensor]:
    def call(x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        _convolutions.append(lambda: original(x, weight, *args, **kwargs))
        try:
            return torch.ops.minisora_flops.convolution(x, weight, transposed)
        finally:
            _convolutions.pop()

    return call


def _not_traced(original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with untraced():
            return original(*args, **kwargs)

    return call


def _without_bool(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`masked_fill(mask, True)` as `masked_fill(mask, 1)`: the tracer's type system has no bool scalar."""

    def call(self: Tensor, mask: Tensor, value: Any) -> Tensor:
        return original(self, mask, int(value) if isinstance(value, bool) else value)

    return call


class MetaAutocast(torch.autocast):
    """`torch.autocast` that does nothing for meta tensors, where torch's own refuses to be made."""

    def __new__(cls, device_type: str, *args: Any, **kwargs: Any) -> Any:
        """A null context on meta, torch's own class elsewhere."""
        return contextlib.nullcontext() if device_type == "meta" else _autocast(device_type, *args, **kwargs)


_autocast = torch.autocast


@contextlib.contextmanager
def meta_allowances() -> Iterator[None]:
    """Lets `torch.autocast("meta")` and `nonzero` pass for the duration.

    `nonzero` of a meta tensor takes every element as nonzero, which is true of the masks that
    `minisora.flops` counts with (every token is real).
    """
    nonzero = mock.patch.object(fx_config, "meta_nonzero_assume_all_nonzero", True)
    with mock.patch.object(torch, "autocast", MetaAutocast), nonzero:
        yield


@contextlib.contextmanager
def traceable(meta: bool) -> Iterator[None]:
    """Everything a trace needs for the duration; `meta`: the tensors are meta or fake, without data."""
    with contextlib.ExitStack() as stack:
        flex = sys.modules.get("torch.nn.attention.flex_attention")
        # Block masks are bookkeeping on vmapped functions, which no tracer follows.
        for name in _BLOCK_MASKS:
            if hasattr(flex, name):
                stack.enter_context(mock.patch.object(flex, name, _not_traced(getattr(flex, name))))
        for kind in (OpOverloadPacket, OpOverload):
            stack.enter_context(mock.patch.object(kind, "__call__", _attention_as_node(kind.__call__)))
        for name in ("masked_fill", "masked_fill_"):
            stack.enter_context(mock.patch.object(Tensor, name, _without_bool(getattr(Tensor, name))))
        if meta:
            for name in (f"{kind}{axes}d" for kind in ("conv", "conv_transpose") for axes in (1, 2, 3)):
                shim = _traced_convolution(getattr(F, name), "transpose" in name)
                stack.enter_context(mock.patch.object(F, name, shim))
                stack.enter_context(mock.patch.object(torch, name, shim))
            stack.enter_context(meta_allowances())
            stack.enter_context(_Untraced())
        yield
