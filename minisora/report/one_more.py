"""Where one more value lies, by a few that are known: what the intervals of both back-tests are."""

from collections.abc import Sequence

import numpy as np


def one_more(logs: Sequence[float]) -> tuple[float, float] | None:
    """5 to 95 % for one more value, by Student's t on logarithms: few known ones give a wide interval.

    Args:
        logs: natural logarithms of the known ones, a vote each.

    Returns:
        The ends, no logarithms; None for fewer than three.
    """
    # Here, as it takes as long to import as everything else of a plan together.
    from scipy.special import stdtrit

    if len(logs) < 3:
        return None
    middle, scale = float(np.mean(logs)), float(np.std(logs, ddof=1) * np.sqrt(1 + 1 / len(logs)))
    spread = scale * float(stdtrit(len(logs) - 1, 0.95))
    return float(np.exp(middle - spread)), float(np.exp(middle + spread))
