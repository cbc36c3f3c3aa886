"""Bytes of the tensors that are alive while something runs, and their peak: what a device must hold for it.

Every operator's results are seen by the dispatcher; a tensor's storage counts once, whoever shares it, from its making
until the last tensor on it is gone. What a kernel takes for itself and gives back, and what an allocator holds in
reserve, is not seen. It works alike on a CPU, on CUDA and on fake tensors (`FakeTensorMode`), where a model of any size
takes no memory at all.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts while it is entered.

    Args:
        modules: whose parameters and buffers are there already; what else is, `hold` counts.
    """

    def __init__(self, *modules: nn.Module):
        super().__init__()
        self.now = self.peak = 0
        # Storages that are counted: by id, with what takes them off again.
        self._known: dict[int, Any] = {}
        for module in modules:
            self.hold([*module.parameters(), *module.buffers()])

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made outside."""
        for tensor in tensors:
            self._see(tensor)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        size = storage.nbytes()
        self._known[key] = weakref.finalize(storage, self._gone, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.now -= size


def training_peak(module: nn.Module, loss: Callable[[], Tensor]) -> int:
    """The peak of a step of training, bytes: weights, gradients, AdamW's moments, and what is alive beside them.

    Gradients are there from the step before, as where they are accumulated; the optimizer works after the peak.

    Args:
        module: what is trained; it gets gradients.
        loss: a forward pass of it.
    """
    optimizer = torch.optim.AdamW(module.parameters())
    loss().backward()
    optimizer.step()
    memory = LiveMemory(module)
    memory.hold(p.grad for p in module.parameters() if p.grad is not None)
    states = (value for state in optimizer.state.values() for value in state.values())
    memory.hold(value for value in states if isinstance(value, Tensor))
    with memory:
        loss().backward()
    return memory.peak
