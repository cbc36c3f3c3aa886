"""Intervals and sensitivity: every assumption drawn from its range, every result's 5, 50 and 95 per cent.

Draws are independent; a range that is a factor is filled evenly on a log scale, other ranges linearly, a
certain value stays as it is. The model takes arrays, so a hundred thousand draws take about a second.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from minisora.report.assumptions import Assumptions
from minisora.report.model import Results, estimate
from minisora.report.units import Number

NUM_DRAWS = 100_000
Interval = tuple[float, float, float]
Array = NDArray[np.float64]


def draw(assumptions: Assumptions, num_draws: int = NUM_DRAWS, seed: int = 0) -> dict[str, Array]:
    """Values of every uncertain assumption, by name, each `num_draws` long.

    A name keeps its stream whatever else is uncertain, so that two presets can be compared draw by draw.
    """
    values = {}
    for name, entry in assumptions.entries.items():
        if not entry.is_certain:
            generator = np.random.default_rng([seed, *name.encode()])
            values[name] = np.asarray(entry.at(generator.random(num_draws)), dtype=float)
    return values


def intervals(results: Results) -> dict[str, Interval | None]:
    """The 5, 50 and 95 % points of every result of a Monte Carlo run; None for one that did not vary."""
    ends: dict[str, Interval | None] = {}
    for name, quantity in results.items():
        drawn = np.asarray(quantity.value)
        low, middle, high = np.percentile(drawn, (5, 50, 95))
        # A result that no draw moved differs by rounding only.
        ends[name] = None if high <= low * (1 + 1e-12) else (float(low), float(middle), float(high))
    return ends


@dataclass(frozen=True)
class Influence:
    """What one assumption does to one result.

    Args:
        assumption: its name.
        at_low, at_high: the result with this assumption at the ends of its range, the others at their best.
        variance_share: its squared rank correlation with the result over all draws, as a share of the sum.
    """

    assumption: str
    at_low: float
    at_high: float
    variance_share: float

    @property
    def swing(self) -> float:
        """How far it moves the result, as a factor of one or more."""
        return max(self.at_low, self.at_high) / min(self.at_low, self.at_high)


def influences(
    assumptions: Assumptions, result: str, draws: Mapping[str, Array], drawn: Number
) -> list[Influence]:
    """Assumptions by what they do to a result, the strongest first.

    Args:
        assumptions: the preset.
        result: name of the result.
        draws: from `draw`.
        drawn: the result at those draws.
    """
    ranks = rankdata(np.asarray(drawn))
    squares = {name: np.corrcoef(rankdata(values), ranks)[0, 1] ** 2 for name, values in draws.items()}
    total = sum(squares.values())
    ranked = []
    for name in draws:
        entry = assumptions.entries[name]
        low, high = (
            float(estimate(assumptions.inputs({name: end}))[result].value)
            for end in (float(entry.at(0.0)), float(entry.at(1.0)))
        )
        ranked.append(Influence(name, low, high, float(squares[name] / total)))
    return sorted(ranked, key=lambda influence: -influence.swing)


@dataclass(frozen=True)
class MonteCarlo:
    """One run: the draws, the results at them, and their intervals (see `intervals`)."""

    draws: dict[str, Array]
    results: Results
    intervals: dict[str, Interval | None]


def monte_carlo(assumptions: Assumptions, num_draws: int = NUM_DRAWS, seed: int = 0) -> MonteCarlo:
    """Draw every uncertain assumption and evaluate the model at all draws at once."""
    draws = draw(assumptions, num_draws, seed)
    results = estimate(assumptions.inputs(dict(draws)))
    return MonteCarlo(draws, results, intervals(results))
