"""MACs of a real forward pass, by module and operator, from fvcore's trace with our handlers.

fvcore alone counts fused attention as zero and says so in a log line: 13 % short on DiT-XL/2 at 512
pixels, 50 to 87 % at video lengths. Here every traced operator has a handler or is listed as free, or the
count is refused.

Units: MACs (1 MAC = 2 FLOPs) of the whole call, so per batch.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

from minisora.errors import UserError
from minisora.flops.as_written import as_written, uncompiled
from minisora.flops.fvcore_handlers import FREE, FREE_PRIM, MAC, handlers
from minisora.flops.torch_formulas import Formulas, remedy
from minisora.flops.trace_shims import traceable, traced_operators

with warnings.catch_warnings():  # fvcore scripts two functions of its own, which torch calls deprecated
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis


@dataclass(frozen=True)
class FvcoreCount:
    """What fvcore saw of one forward pass.

    `macs` and `elementwise` map (module path, operator) to the work done in that module itself, not in its
    children; paths are the model's own, "" is the root.
    """

    macs: dict[tuple[str, str], int] = field(default_factory=dict)
    elementwise: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def total_macs(self) -> int:
        """MACs of the whole pass."""
        return sum(self.macs.values())

    @property
    def total_elementwise(self) -> int:
        """Elementwise operations of the whole pass, norms included; a rough figure kept out of the MACs."""
        return sum(self.elementwise.values())

    def by_module(self) -> dict[str, int]:
        """MACs by module path, children included ("" is everything)."""
        return sum_up_tree(self.macs)

    def by_operator(self) -> dict[str, int]:
        """MACs by operator name."""
        counts: Counter[str] = Counter()
        for (_, operator), macs in self.macs.items():
            counts[operator] += macs
        return dict(counts)


def sum_up_tree(own: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """Add each module's own work to all its ancestors: (path, operator) -> work to path -> work."""
    totals: Counter[str] = Counter()
    for (path, _), work in own.items():
        parts = path.split(".") if path else []
        for depth in range(len(parts) + 1):
            totals[".".join(parts[:depth])] += work
    return dict(totals)


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


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of any output: a tensor, tuples, dicts (diffusers outputs are dicts), dataclasses."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        output = list(vars(output).values())
    return [t for part in output for t in tensors_in(part)] if isinstance(output, list | tuple) else []


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


def count_macs(
    model: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    formulas: Formulas | None = None,
) -> FvcoreCount:
    """Trace `model(*args, **kwargs)` and count its MACs, without gradients.

    Works on meta tensors (no memory, no arithmetic), on a CPU and on CUDA; the counts are the same.

    Args:
        model: any module; it is left as it was, in its own train or eval mode.
        args, kwargs: its arguments; tensors may be nested in tuples, lists and dicts.
        formulas: MACs of operators that have no handler here, as in `StrictFlopCounter`.

    Raises:
        UserError: an operator has no handler (the message names it and the modules it ran in), or torch's
            tracer cannot follow the model.
    """
    refuse_scripted(model)
    with uncompiled(model):
        return _count_macs(model, args, kwargs or {}, formulas)


def _count_macs(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], formulas: Formulas | None
) -> FvcoreCount:
    call = _Call(model, args, kwargs)
    # not `.train()`, which would reach into the model
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
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"torch's tracer, which fvcore's count stands on, cannot follow {type(model).__name__} "
            f"({type(error).__name__}: {first}): count its parts one by one, or by torch alone with "
            "minisora.flops.count_torch.count_forward, which traces nothing"
        ) from error
    _refuse_unknown(analysis)
    count = FvcoreCount()
    for path, work in _exclusive(inclusive).items():
        for operator, amount in work.items():
            kind, _, name = operator.partition(":")
            if amount:
                (count.macs if kind == MAC else count.elementwise)[_own_path(path), name] = int(amount)
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
