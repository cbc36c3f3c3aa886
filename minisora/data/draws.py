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


def random_crop(video: Tensor, crop: Sequence[int], generator: np.random.Generator) -> Tensor:
    """A random box of a video; it may start at any frame and pixel.

    Args:
        video: C T H W, or B C T H W (one box for the whole batch).
        crop: (frames, height, width) of the box.
        generator: where the place is drawn from; see `rng`.

    Raises:
        UserError: the box does not fit in the video.
    """
    sizes = tuple(video.shape[-3:])  # T H W
    if any(part > whole for part, whole in zip(crop, sizes, strict=True)):
        raise UserError(
            f"crop {tuple(crop)} (frames, height, width) is larger than the clip {sizes}: make it smaller"
        )
    t, y, x = (int(generator.integers(0, whole - part + 1)) for part, whole in zip(crop, sizes, strict=True))
    return video[..., t : t + crop[0], y : y + crop[1], x : x + crop[2]]


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
