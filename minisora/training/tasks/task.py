"""What the loop trains: a task is data, model and loss; `vae_task` and `dit_task` have the two of minisora."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minisora.config import TrainConfig
from minisora.data.batches import BatchSource


class Task(Protocol):
    """What the loop needs: a name, settings, the module to optimise, batches, a loss and a validation."""

    @property
    def name(self) -> str:
        """ "vae" or "dit"."""
        ...

    @property
    def block(self) -> str:
        """Class of the repeated layer, the unit in which FSDP2 shards."""
        ...

    @property
    def settings(self) -> TrainConfig:
        """Of the stage."""
        ...

    @property
    def model(self) -> nn.Module:
        """What is optimised."""
        ...

    @property
    def source(self) -> BatchSource[Any]:
        """Where batches come from."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch on the model's device, and parts of it to report."""
        ...

    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Sums over this rank's share of the fixed validation clips, with their number as "count"."""
        ...

    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""
        ...


def validation_parts(count: int, rank: int, world_size: int, size: int) -> Iterator[tuple[range, float]]:
    """This process's share of the first `count` positions, at most `size` at a time, each part with its weight.

    Every process gets as many parts: FSDP2 gathers weights in every forward pass and would wait for a process
    that makes none. One that has no position left repeats one, with weight 0.
    """
    positions = range(rank, count, world_size)
    for start in range(0, -(-count // world_size), size):
        part = positions[start : start + size]
        yield (part, 1.0) if part else (range(rank % count, rank % count + 1), 0.0)


def validation_batches(
    source: BatchSource[Any], count: int, rank: int, world_size: int, device: torch.device
) -> Iterator[tuple[range, float, Any]]:
    """As `validation_parts`, 16 positions at a time, each part with its batch on `device`."""
    for part, weight in validation_parts(count, rank, world_size, 16):
        yield part, weight, source.at(part).to(device)


def size_text(numbers: Sequence[int]) -> str:
    """Such as "17x64x64"."""
    return "x".join(str(n) for n in numbers)
