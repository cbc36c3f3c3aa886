"""The ranges of numbers that the command line, the configs and the pipelines take, and what follows from a seed.

A number outside of its range is refused with the range; nan and infinity, which compare with nothing, are outside of
every one. Without imports, so that `minisora --help` stays fast.
"""

import math
import numbers

from minisora.errors import UserError

# torch's CPU generator takes 32 bits of a seed and drops the others without a word: 2^32 would be the noise of 0.
NUM_SEEDS = 1 << 32
LAST_SEED = NUM_SEEDS - 1
MAX_STEPS = 1000  # of sampling: the noise levels that the schedulers of diffusers tell apart
MAX_GUIDANCE = 1000.0  # far beyond it a velocity of float32 overflows
MAX_FRAMES = 1 << 20
MAX_MINUTES = 525_600.0  # of training: a year
MAX_SIDE = 1 << 16  # pixels
MAX_SECONDS = 86_400.0  # of a clip: a day
MAX_CARDS = 1 << 20  # of a plan
MAX_CLIPS = 1e15  # of a plan, or dollars
MAX_COUNT = (1 << 31) - 1  # of anything: what an index of 32 bits takes


def check_number(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Refuse a number outside of [low, high], or with `above` of (low, high]; nan and infinity are.

    Args:
        name: for the message, such as "guidance_scale".
        value: a whole number if the bounds are.
        low, high: the range.
        above: low itself is outside too.

    Raises:
        UserError: it is, or it is no such number.
    """
    whole = isinstance(low, int) and isinstance(high, int)
    kind = numbers.Integral if whole else numbers.Real
    # Compared before all else: a whole number of hundreds of digits is no float, which isfinite asks for.
    fits = isinstance(value, kind) and not isinstance(value, bool) and low <= value <= high
    if not fits or not math.isfinite(value) or (above and value == low):
        what = "a whole number, " if whole and not isinstance(value, kind) else ""
        start = f"above {low:g}" if above else f"at least {low:g}"
        raise UserError(
            f"{name} = {value} must be {what}{start} and at most {high if whole else f'{high:g}'}"
        )


def check_seed(seed: int, name: str = "seed") -> None:
    """Refuse what is no seed, from 0 to `LAST_SEED`; raises UserError."""
    check_number(name, seed, 0, LAST_SEED)


def seed_after(seed: int, places: int) -> int:
    """The seed so many places after another one; 0 follows the last."""
    return (seed + places) % NUM_SEEDS
