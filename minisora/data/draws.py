"""Random choices without state: every one is a function of (seed, where it is used).

Nothing here has to be saved in a checkpoint, and neither the number of processes nor of workers changes what
is drawn: a run that is killed and resumed, or spread over two processes, sees the same clips and crops.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from torch import Tensor

from minisora.errors import UserError

_UINT64 = (1 << 64) - 1


def rng(seed: int, *keys: int) -> np.random.Generator:
    """A generator of its own for each (seed, *keys), such as (seed, step, sample); keys are not negative."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *keys])))


def sample_indices(num_items: int, positions: Iterable[int], seed: int) -> list[int]:
    """The items at `positions` of the endless shuffled order of a data set.

    Position p lies in epoch p // num_items, and each epoch is its own permutation: every item comes once an
    epoch. A process takes its share as a strided range, `range(start + rank, stop, world_size)`.

    Raises:
        UserError: there are no items.
    """
    if num_items < 1:
        raise UserError(
            "the data set has 0 clips, so there is nothing to train on; see `minisora data check`"
        )
    return [int(_permutation(num_items, seed, p // num_items)[p % num_items]) for p in positions]


@lru_cache(maxsize=8)
def _permutation(num_items: int, seed: int, epoch: int) -> np.ndarray:
    return rng(seed, epoch).permutation(num_items)


def random_box(
    sizes: Sequence[int],
    crop: Sequence[int],
    generator: np.random.Generator,
    moving: Tensor | None = None,
) -> tuple[slice, slice, slice]:
    """The place of a random box in a video; it may start at any frame and pixel.

    Args:
        sizes: (frames, height, width) of the video.
        crop: (frames, height, width) of the box.
        generator: where the place is drawn from; see `rng`.
        moving: T H W bool; the box then holds one of these pixels, anywhere in it, if any lies within its frames.

    Raises:
        UserError: the box does not fit in the video.
    """
    if any(part > whole for part, whole in zip(crop, sizes, strict=True)):
        raise UserError(
            f"crop {tuple(crop)} (frames, height, width) is larger than the clip {tuple(sizes)}: make it smaller"
        )
    start = [int(generator.integers(0, whole - part + 1)) for part, whole in zip(crop, sizes, strict=True)]
    if moving is not None:
        places = moving[start[0] : start[0] + crop[0]].flatten().nonzero().flatten()
        if len(places):
            place = int(places[generator.integers(len(places))])
            pixel = (place // sizes[2] % sizes[1], place % sizes[2])  # (y, x)
            for axis in (1, 2):
                first = pixel[axis - 1] - int(generator.integers(crop[axis]))
                start[axis] = min(max(first, 0), sizes[axis] - crop[axis])
    t, y, x = (slice(first, first + part) for first, part in zip(start, crop, strict=True))
    return t, y, x


def uniforms(seed: int, indices: Sequence[int] | np.ndarray, num_draws: int) -> np.ndarray:
    """Uniform numbers in [0, 1) for many items at once, `len(indices) num_draws` float64.

    Draw k of item i is a hash of (seed, i, k) by the finaliser of splitmix64 (Steele, Lea, Flood 2014), so it
    does not depend on which other items are asked for. A million numpy generators would do the same slower.
    """
    item = np.asarray(indices, dtype=np.uint64)[:, None]  # B 1
    draw = np.arange(num_draws, dtype=np.uint64)[None, :]  # 1 K
    mixed = _mix(_mix(_mix(np.full((1, 1), seed & _UINT64, np.uint64)) ^ item) ^ draw)  # B K
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """One step of splitmix64; unsigned arithmetic wraps by design."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
