"""What the loop trains: a task is data, model, loss and validation. Those of the two stages have files of their own."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from minisora.config import TrainConfig
from minisora.data.batches import (
    Batch,
    BatchSource,
)

# Latents validated at a time.
_VALIDATION_BATCH = 16


class Task(ABC):
    """What the loop needs: a name, settings, the module to optimise, batches, a loss and a validation."""

    # "vae", "dit", "caption", "actions" or "dynamics", as in the config's train_NAME.
    name: str
    # Class of the repeated layer, the unit in which FSDP2 shards and blocks are compiled.
    block: str
    settings: TrainConfig
    model: nn.Module
    source: BatchSource[Any]

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch on the model's device, and parts of it to report."""

    @abstractmethod
    def validate(self, model: nn.Module, rank: int, world_size: int) -> dict[str, Tensor]:
        """Sums over this rank's share of the fixed validation clips, with their number as "count".

        A sum over others than these has its own number, as "count_" and its name.
        """

    def cost_batches(self, clips: int) -> Sequence[Batch]:
        """A batch of so many clips of every shape that steps may have, by which the costs are counted and timed."""
        return [self.source.at(range(clips))]

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Facts to print before step 0."""

    @property
    def last_source(self) -> BatchSource[Any]:
        """Where the batches of the last `last_steps` come from."""
        return self.source

    @property
    def last_steps(self) -> int:
        """So many steps of the fall of the learning rate, at its end, have batches of `last_source`."""
        return 0

    @property
    def keeps_best(self) -> bool:
        """Whether the model is the averaged weights of the least validation "loss", not those of the last step."""
        return False

    @property
    def patience(self) -> int:
        """So many validations in a row without a lesser "loss" end the stage; 0: none do."""
        return 0


def validation_parts(count: int, rank: int, world_size: int, size: int) -> Iterator[tuple[range, float]]:
    """This process's share of the first `count` positions, at most `size` at a time, each part with its weight.

    Every process gets as many parts: FSDP2 gathers weights in every forward pass and would wait for a process
    that makes none. One that has no position left repeats one, with weight 0.
    """
    positions = range(rank, count, world_size)
    for start in range(0, -(-count // world_size), size):
        part = positions[start : start + size]
        yield (part, 1.0) if part else (range(rank % count, rank % count + 1), 0.0)


def validation_sums(
    source: BatchSource[Any],
    clips: int,
    rank: int,
    world_size: int,
    device: torch.device,
    summed_loss: Callable[[range, Any], Tensor],
) -> dict[str, Tensor]:
    """Sums for `Task.validate` over the first `clips` positions of a source.

    Args:
        source: of the batches.
        clips: how many there are to validate on.
        rank: of this process.
        world_size: number of processes.
        device: of the model.
        summed_loss: of the positions of a batch and the batch: the sum over its clips, a scalar.
    """
    total, count = torch.zeros((), device=device), torch.zeros((), device=device)
    for part, weight in validation_parts(clips, rank, world_size, _VALIDATION_BATCH):
        total += weight * summed_loss(part, source.at(part).to(device))
        count += weight * len(part)
    return {"loss": total, "count": count}


def shape_text(numbers: Sequence[int]) -> str:
    """Such as "17x64x64"."""
    return "x".join(str(n) for n in numbers)
