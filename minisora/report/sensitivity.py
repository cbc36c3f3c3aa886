"""What moves a result: intervals and influences by Monte Carlo, and the steps from one preset to another.

Draws are independent; a range that is a factor is filled evenly on a log scale, other ranges linearly, a
certain value stays as it is. The model takes arrays, so that one evaluation serves all draws.

From preset to preset assumptions change one after the other, in a fixed order: a factor is what the result does when
one takes its new value, those before it having changed and those after it not. The product is the whole change,
whatever the order; a single factor can depend on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from minisora.report.assumptions import Assumptions
from minisora.report.model import Results, estimate
from minisora.report.units import Number
from minisora.report.words import setting

NUM_DRAWS = 100_000
# Whose sensitivity the report shows.
MAIN_RESULT = "sora_minutes_per_gpu_hour"
# Relative change; smaller steps are put together.
NEGLIGIBLE = 0.005
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


# From preset to preset.


@dataclass(frozen=True)
class Step:
    """One step from a result to another.

    Args:
        label: what changes, from what to what.
        names: the assumptions.
        before, after: the result around it, in its unit.
    """

    label: str
    names: tuple[str, ...]
    before: float
    after: float

    @property
    def factor(self) -> float:
        """What it multiplies the result by."""
        return self.after / self.before


def bridge(start: Assumptions, end: Assumptions, result: str) -> list[Step]:
    """Steps from the result of one preset to that of another; empty if it is the same.

    Steps that matter less than `NEGLIGIBLE` are one step, the last.

    Args:
        start, end: presets with the same names.
        result: name of a result.
    """
    groups: dict[str, list[str]] = {}
    for name, entry in end.entries.items():
        if entry.value != start.entries[name].value:
            groups.setdefault(entry.brief, []).append(name)

    current, value = start, start.best[result]
    steps, small = [], []
    for label, names in groups.items():
        entries = {**current.entries, **{name: end.entries[name] for name in names}}
        current = replace(current, entries=entries)
        before, value = value, current.best[result]
        step = Step(_describe(label, names, start, end), tuple(names), before, value)
        if abs(step.factor - 1) >= NEGLIGIBLE:
            steps.append(step)
        elif step.factor != 1:
            small.append(step)
    if not small:
        return steps
    # Small steps are moved to the end, so the running value of those behind each has to be set anew.
    return _chain([*steps, _joined(small)], start.best[result], value)


def _joined(small: Sequence[Step]) -> Step:
    product = 1.0
    for step in small:
        product *= step.factor
    label = small[0].label if len(small) == 1 else f"{len(small)} changes under {100 * NEGLIGIBLE:g} % each"
    return Step(label, tuple(name for step in small for name in step.names), 1.0, product)


def _chain(steps: Sequence[Step], start: float, end: float) -> list[Step]:
    chained, value = [], start
    for step in steps:
        following = value * step.factor
        chained.append(replace(step, before=value, after=following))
        value = following
    # The product up to rounding.
    chained[-1] = replace(chained[-1], after=end)
    return chained


def _describe(label: str, names: Sequence[str], start: Assumptions, end: Assumptions) -> str:
    if label == "clip":
        e = end.entries
        seconds, height, width = (e[f"sora.{key}"].value for key in ("seconds", "height", "width"))
        return f"clip: {seconds:g} s of {width:g}×{height:g}"
    (name,) = names
    old, new = start.entries[name].value, end.entries[name].value
    if end.entries[name].is_switch:
        return label if new else f"no {label}"
    return f"{label}: {setting(old)} → {setting(new)}"
