"""Where one more value lies, by a few that are known: what the intervals of both back-tests are."""

import math
from collections.abc import Sequence

import numpy as np


def one_more(logs: Sequence[float], beside: float = 0.0) -> tuple[float, float] | None:
    """5 to 95 % for one more value, by Student's t on logarithms: few known ones give a wide interval.

    Args:
        logs: natural logarithms of the known ones, a vote each.
        beside: variance of single values around what is known of each, where that is a mean.

    Returns:
        The ends, no logarithms; None for fewer than three.
    """
    if len(logs) < 3:
        return None
    middle, scale = float(np.mean(logs)), math.sqrt(np.var(logs, ddof=1) * (1 + 1 / len(logs)) + beside)
    spread = scale * students_t(len(logs) - 1, 0.95)
    return float(np.exp(middle - spread)), float(np.exp(middle + spread))


def students_t(degrees: int, share: float) -> float:
    """Below which so large a share of Student's t lies, from a half on.

    Not scipy's, whose import would be the slowest part of a plan. With t = sqrt(n) tan(a) the density
    is cos(a)^(n - 1) up to a factor: smooth, and over a finite range.

    Args:
        degrees: of freedom, n.
        share: from 0.5 to below 1.
    """
    # Simpson's rule on a fine grid of a, and the angle at which it has gathered the share.
    angles = np.linspace(0.0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (degrees - 1)
    middles = np.cos((angles[1:] + angles[:-1]) / 2) ** (degrees - 1)
    parts = (density[:-1] + 4 * middles + density[1:]) / 6
    gathered = np.concatenate([[0.0], np.cumsum(parts)])
    angle = float(np.interp((2 * share - 1) * gathered[-1], gathered, angles))
    return math.sqrt(degrees) * math.tan(angle)
