"""The data loader: which positions a process takes at each step, and the loading of their batches.

What a batch holds is `minisora.data.batches`'s business; the loader's state is one number, the step.
"""

from collections.abc import Iterable, Iterator, Sequence

from torch.utils.data import DataLoader, Dataset

from minisora.data.batch import Batch
from minisora.data.batches import BatchSource
from minisora.errors import UserError


def micro_batch(
    step: int, micro: int, *, batch_size: int, accumulation: int, rank: int, world_size: int
) -> range:
    """Positions of one process's part of a step: slice `micro * world_size + rank` of the global batch."""
    size = batch_size // (accumulation * world_size)
    start = step * batch_size + (micro * world_size + rank) * size
    return range(start, start + size)


def check_batch_size(batch_size: int, accumulation: int, world_size: int) -> None:
    """Raise UserError unless the global batch divides over processes and micro-batches."""
    parts = accumulation * world_size
    if batch_size % parts:
        low = batch_size // parts * parts
        near = f"{low} or {low + parts}" if low else str(parts)
        raise UserError(
            f"batch_size {batch_size} does not divide into {world_size} processes x {accumulation} micro-batches: "
            f"use {near}"
        )


class _Positions(Dataset):
    """A batch source as a torch data set, fetched a whole batch at a time."""

    def __init__(self, source: BatchSource):
        self.source = source

    def __getitem__(self, position: int) -> Batch:
        return self.source.at([position])

    def __getitems__(self, positions: Sequence[int]) -> Batch | UserError:
        try:
            return self.source.at(positions)
        except UserError as error:  # raised in a worker, it would come back with that process's traceback
            return error


def _as_is(batch: Batch | UserError) -> Batch | UserError:
    return batch


class _Schedule:
    """Positions of every micro-batch from a step on; what the data loader iterates over."""

    def __init__(self, start: int, stop: int, accumulation: int, **place: int):
        self.start, self.stop, self.accumulation, self.place = start, stop, accumulation, place

    def __iter__(self) -> Iterator[range]:
        for step in range(self.start, self.stop):
            for micro in range(self.accumulation):
                yield micro_batch(step, micro, accumulation=self.accumulation, **self.place)

    def __len__(self) -> int:
        return (self.stop - self.start) * self.accumulation


def batches(
    source: BatchSource,
    *,
    start_step: int,
    stop_step: int,
    batch_size: int,
    accumulation: int = 1,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Micro-batches of one process for steps [start_step, stop_step), `accumulation` of them a step.

    Raises:
        UserError: the batch does not divide over processes and micro-batches, or one cannot be loaded.
    """
    check_batch_size(batch_size, accumulation, world_size)
    schedule = _Schedule(
        start_step, stop_step, accumulation, batch_size=batch_size, rank=rank, world_size=world_size
    )
    loader = DataLoader(
        _Positions(source),
        batch_sampler=schedule,  # type: ignore[arg-type]  # any iterable of index lists will do
        collate_fn=_as_is,  # type: ignore[arg-type]  # `__getitems__` hands over a whole batch
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=False,
    )
    return _raising(loader)


def _raising(loader: Iterable[Batch | UserError]) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch
