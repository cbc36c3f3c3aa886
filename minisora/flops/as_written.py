"""Runs a model as its Python is written for as long as it is counted, and puts everything back.

What makes a model fast also hides its operators: a compiled function is opaque to a tracer, the fast path of
`nn.TransformerEncoder` is one operator a layer on a nested tensor, and control flow in the form of operators
hides its body. All three have an eager meaning with the same products, and that is what runs.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator

from minisora.errors import UserError

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
        # flex_attention asks for a device that its fused kernels know; its plain form runs on any, meta included
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
        # torch wraps its own operators in a local function when they are called eagerly, and compiles that
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
